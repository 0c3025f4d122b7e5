//! What may never happen, checked at every request, at every effect and at every answer.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ecom_settings_exporter::ports::Namespace;
use ecom_settings_exporter::record::IndexRef;
use serde_json::Value;

use crate::events::sha256;
use crate::model::{Image, Settings, query_value};
use crate::past::{Past, Step};
use crate::state::{Held, Named, State, item_key, query_kv_key, query_of};

/// The cell of items that name none.
pub const DEFAULT_CELL: &str = "cell-1";

/// A bulk request as it is sent.
pub fn request(
    state: &mut State,
    invocation: usize,
    namespace: Namespace,
    changes: &[(String, Option<Rc<Held>>)],
) {
    state.note(|| {
        let changes: Vec<String> = changes
            .iter()
            .map(|(key, held)| match held.as_deref() {
                None => format!("delete {key}"),
                Some(Held { named: Some(named), .. }) => {
                    format!("put {key} = {} v{}", named.index, named.version)
                }
                Some(held) => format!("put {key} = {}", held.value),
            })
            .collect();
        format!("  [{invocation}] sends {}", changes.join(", "))
    });
    let keys: BTreeSet<&String> = changes.iter().map(|(key, _)| key).collect();
    if keys.len() != changes.len() || changes.len() > state.shape.bulk_max_pairs {
        state.violate(
            "a request holds no key twice and no more than it may",
            format!("[{invocation}]"),
        );
    }
    let attempted = &mut state.invocations[invocation].attempted;
    attempted.extend(changes.iter().map(|(key, _)| (namespace, key.clone())));
}

/// A key that is about to be changed in KV.
pub fn effect(
    state: &mut State,
    invocation: usize,
    namespace: Namespace,
    key: &str,
    held: Option<&Rc<Held>>,
) {
    let problem = match (namespace, held) {
        (Namespace::Settings, Some(held)) => settings_put(state, invocation, key, held),
        (Namespace::Settings, None) => settings_delete(state, invocation, key),
        (Namespace::QueryConfigs, Some(held)) => query_put(state, key, held),
        (Namespace::QueryConfigs, None) => query_delete(state, invocation, key),
    };
    if let Some(problem) = problem {
        let rule = if held.is_some() {
            "only right values are written"
        } else {
            "only what nobody needs is deleted"
        };
        state.violate(rule, format!("[{invocation}] {key:?}: {problem}"));
    }
    if namespace == Namespace::Settings {
        let (step, began) = (state.step, state.invocations[invocation].began);
        let past = state.kv.get(&(namespace, key.to_owned()));
        // What another one wrote meanwhile was never looked at.
        let seen = past.filter(|past| past.changed() <= began);
        let was = seen.and_then(|past| past.last()?.clone());
        if held.is_none() {
            state.invocations[invocation].deletes.insert(key.to_owned());
        }
        let changed = past.map_or(0, Past::changed);
        let deleted_at = &mut state.invocations[invocation].deleted_at;
        if held.is_none() {
            deleted_at.insert(key.to_owned(), step + 1);
        } else if deleted_at.remove(key).is_some_and(|deleted| changed > deleted) {
            state.put_back_over.insert(key.to_owned());
        }
        if let Some(named) = held.and_then(|held| held.named.as_ref()) {
            let first_written = &mut state.invocations[invocation].first_written;
            first_written.entry(key.to_owned()).or_insert(named.version);
        }
        let deleted = &mut state.invocations[invocation].deleted;
        match (held, was) {
            (None, Some(was)) => {
                deleted.insert(key.to_owned(), (step, was));
            }
            (Some(_), _) => {
                deleted.remove(key);
            }
            (None, None) => {}
        }
    }
}

fn settings_put(state: &State, invocation: usize, key: &str, held: &Held) -> Option<String> {
    let began = state.invocations[invocation].began;
    let past = state.kv.get(&(Namespace::Settings, key.to_owned()));
    let restored =
        past.is_some_and(|past| past.since(began).flatten().any(|was| was.value == held.value));
    if restored {
        return None;
    }
    let Some(named) = &held.named else { return Some("a value that isn't ours".to_owned()) };
    let Some((image, settings)) = image_of(state, named) else {
        return Some(format!("a value that no image of {} gives", named.index));
    };
    if !settings.asks_for(&named.index, key) {
        return Some(format!("a value whose image does not ask for the key: {image:?}"));
    }
    if named.api_key.is_empty() || held.value != settings.value(&named.index, &named.api_key) {
        return Some(format!("not the value of {}: {}", named.index, held.value));
    }
    if let Some(problem) = metadata_problem(held, &named.index) {
        return Some(problem);
    }
    if !key_is_fresh(state, invocation, named) {
        return Some(format!("an old API key, {}, over a new one", named.api_key));
    }
    wrong_claimant(state, invocation, key, named)
}

/// The image that a value was rendered from.
fn image_of<'a>(state: &'a State, named: &Named) -> Option<(&'a Rc<Image>, &'a Settings)> {
    let images = state.past_of(&named.index)?.spans().filter_map(|(_, _, image)| image.as_ref());
    images
        .filter_map(|image| Some((image, image.settings()?)))
        .find(|(_, settings)| settings.version == named.version)
}

fn metadata_problem(held: &Held, index: &IndexRef) -> Option<String> {
    let metadata: Value = serde_json::from_str(held.metadata.as_deref()?).ok()?;
    let right = metadata["digest"] == sha256(&held.value)
        && metadata["system_account_id"] == index.account
        && metadata["index_name"] == index.index;
    (!right).then(|| format!("metadata {metadata}"))
}

fn key_is_fresh(state: &State, invocation: usize, named: &Named) -> bool {
    let run = &state.invocations[invocation];
    let account = &named.index.account;
    if state.api_keys[account].since(run.began).any(|key| *key == named.api_key) {
        return true;
    }
    // What KV held of this very index may be used again where the service gives no answer.
    let images = state.past_of(&named.index).into_iter().flat_map(|past| past.since(0));
    let keys: BTreeSet<String> = images
        .flatten()
        .filter_map(|image| image.settings())
        .flat_map(|settings| settings.kv_keys(&named.index))
        .collect();
    // Of any cell: a re-export keeps the key that it has when the item moves to another one.
    run.unanswered.iter().any(|(_, asked)| asked == account)
        && keys.into_iter().any(|key| {
            state.kv.get(&(Namespace::Settings, key)).is_some_and(|past| {
                past.since(run.began).flatten().any(|held| {
                    held.named
                        .as_ref()
                        .is_some_and(|was| was.index == named.index && was.api_key == named.api_key)
                })
            })
        })
}

/// A key that several items ask for stays with the one that KV names.
fn wrong_claimant(state: &State, invocation: usize, key: &str, named: &Named) -> Option<String> {
    let run = &state.invocations[invocation];
    if run.images.contains(&named.version) || !run.is_stream {
        return None;
    }
    let past = state.kv.get(&(Namespace::Settings, key.to_owned()))?;
    let holder = past.last()?.as_ref()?.named.as_ref()?.index.clone();
    let unchanged = past.changed() <= run.began;
    let claims = |image: &Option<Rc<Image>>| {
        image.as_ref().and_then(|image| image.settings()).is_some_and(|settings| {
            settings.asks_for(&holder, key) && state.exportable(&holder, settings)
        })
    };
    let claims = state.past_of(&holder).is_some_and(|past| past.all_since(run.began, claims));
    (unchanged && claims && holder != named.index)
        .then(|| format!("written for {}, but {holder} has it and asks for it", named.index))
}

fn settings_delete(state: &State, invocation: usize, key: &str) -> Option<String> {
    let began = state.invocations[invocation].began;
    let past = state.kv.get(&(Namespace::Settings, key.to_owned()))?;
    let held = past.last()?.as_ref()?;
    let Some(named) = &held.named else { return Some("a stranger's key is deleted".to_owned()) };
    for (index, past) in state.indexes() {
        if past.all_since(began, |image| claims(image, &index, key)) {
            return Some(format!("deleted, but {index} asks for it all the time"));
        }
    }
    if past.changed() > began {
        return None;
    }
    protector(state, key, named, began).map(|by| format!("deleted, but {by} all the time"))
}

fn claims(image: &Option<Rc<Image>>, index: &IndexRef, key: &str) -> bool {
    let settings = image.as_ref().and_then(|image| image.settings());
    settings.is_some_and(|settings| settings.asks_for(index, key))
}

/// What keeps a key that nobody asks for, all the time since `from`.
fn protector(state: &State, key: &str, named: &Named, from: Step) -> Option<String> {
    let own: Past<Option<Rc<Image>>> = state.past_of(&named.index).cloned().unwrap_or_default();
    let gone = own.last().is_none() || own.since(from).all(Option::is_none);
    let unexportable = own.all_since(from, |image| {
        let settings = image.as_ref().and_then(|image| image.settings());
        settings.is_some_and(|settings| !state.exportable(&named.index, settings))
    });
    if unexportable {
        return Some(format!("{} can't be exported", named.index));
    }
    let pointer = state.indexes().find(|(owner, past)| {
        *owner != named.index
            && past.all_since(from, |image| {
                let settings = image.as_ref().and_then(|image| image.settings());
                settings.is_some_and(|settings| {
                    let points = settings.points_at(owner, &named.index, named.shop.as_deref());
                    settings.names_shop(key) || (gone && points)
                })
            })
    });
    pointer.map(|(owner, _)| format!("{owner} points at it"))
}

/// Whose query config an item is, and what it was at every step.
type QueryItem<'a> = (IndexRef, String, &'a Past<Option<Rc<Image>>>);

fn query_item<'a>(state: &'a State, key: &str) -> Option<QueryItem<'a>> {
    state.table.iter().find_map(|(item, past)| {
        let (index, query) = query_of(item)?;
        (query_kv_key(&index, &query) == key).then_some((index, query, past))
    })
}

fn query_put(state: &State, key: &str, held: &Held) -> Option<String> {
    let Some((index, query, past)) = query_item(state, key) else {
        return Some("no query config has this key".to_owned());
    };
    let known = past.spans().any(|(_, _, image)| match image.as_deref() {
        Some(Image { content: crate::model::Content::Query(version), .. }) => {
            held.value == query_value(&index, &query, *version)
        }
        _ => false,
    });
    if known { metadata_problem(held, &index) } else { Some(format!("value {}", held.value)) }
}

fn query_delete(state: &State, invocation: usize, key: &str) -> Option<String> {
    let began = state.invocations[invocation].began;
    let (_, _, past) = query_item(state, key)?;
    past.all_since(began, Option::is_some).then(|| "deleted, but it is there".to_owned())
}

/// Keys that the invocation deleted, and that something has needed ever since.
pub fn after_look(state: &mut State, invocation: usize) {
    let deleted: BTreeMap<String, (Step, Rc<Held>)> =
        std::mem::take(&mut state.invocations[invocation].deleted);
    for (key, (step, was)) in deleted {
        let Some(named) = &was.named else { continue };
        if state.held(Namespace::Settings, &key).is_some() {
            continue;
        }
        if let Some(by) = protector(state, &key, named, step) {
            let problem = format!("[{invocation}] {key:?} stays deleted, but {by} since");
            state.violate("what is needed after all is put back", problem);
        }
    }
}

/// The current image of an index.
pub fn current_settings<'a>(state: &'a State, index: &IndexRef) -> Option<&'a Settings> {
    state.current(&item_key(index)).and_then(|image| image.settings())
}
