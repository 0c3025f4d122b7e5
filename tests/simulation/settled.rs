//! At rest, KV is what the table asks for, except for what only a reconcile can know.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ecom_settings_exporter::index::IndexRef;
use ecom_settings_exporter::ports::Namespace;

use crate::held::{Held, Named};
use crate::keys::{query_kv_key, query_of};
use crate::model::{Content, Image, Settings, index_id, query_value};
use crate::past::Past;
use crate::state::State;

/// Checks both namespaces.
pub fn check(state: &mut State) {
    if state.violation.is_some() {
        return;
    }
    let problems: Vec<String> = settings_keys(state)
        .iter()
        .filter(|key| !state.tainted.contains(&(Namespace::Settings, (*key).clone())))
        .filter_map(|key| Some(format!("{key:?} {}", settings_key(state, key)?)))
        .chain(query_configs(state, false))
        .collect();
    for problem in problems {
        state.violate("at rest, KV is what the table asks for", problem);
    }
}

/// The settings keys that KV has or the table asks for.
pub fn settings_keys(state: &State) -> BTreeSet<String> {
    let mut keys: BTreeSet<String> = state
        .kv
        .keys()
        .filter(|(namespace, _)| *namespace == Namespace::Settings)
        .map(|(_, key)| key.clone())
        .collect();
    for (index, _) in state.indexes() {
        keys.extend(state.current_settings(&index).into_iter().flat_map(|s| s.kv_keys(&index)));
    }
    keys
}

fn settings_key(state: &State, key: &str) -> Option<String> {
    let (able, unable): (Vec<_>, Vec<_>) = state
        .indexes()
        .filter_map(|(index, _)| Some((index.clone(), state.current_settings(&index)?)))
        .filter(|(index, settings)| settings.asks_for(index, key))
        .partition(|(index, settings)| state.exportable(index, settings));
    let past = state.kv.get(&(Namespace::Settings, key.to_owned()));
    let held = past.and_then(|past| past.last()).and_then(Option::as_ref);
    match (able.is_empty(), unable.is_empty()) {
        (false, true) => claimed(state, key, held, &able),
        (true, true) => unclaimed(state, key, past, held),
        (true, false) => kept(state, key, past, held, &unable),
        (false, false) => held.is_none().then(|| "is missing".to_owned()),
    }
}

/// Claimed only by items that can be exported: it holds one of them, as it is now.
fn claimed(
    state: &State,
    key: &str,
    held: Option<&Rc<Held>>,
    able: &[(IndexRef, &Settings)],
) -> Option<String> {
    let Some(held) = held else {
        // Without old images, the retry of a removal may not know what the first try deleted.
        let known = state.shape.old_images || !state.half_done.contains(key);
        return known.then(|| "is missing".to_owned());
    };
    let Some(named) = &held.named else { return Some("holds a foreign value".to_owned()) };
    match able.iter().find(|(index, _)| *index == named.index) {
        Some((index, settings)) if held.value == settings.value(index, &named.api_key) => None,
        // Without old images, nobody knows which shop id an item had before, and who waits for it.
        _ if !state.shape.old_images && !are_all_faithful(state, key) => None,
        // After a broken edit, KV keeps the good version before it, under any key.
        _ if ever_unable(state, &named.index) && asked_once(state, key, named) => None,
        _ => Some(format!("holds {named:?}, not what {} asks for", able[0].0)),
    }
}

/// Claimed only by items that can't be exported: it holds what it held.
fn kept(
    state: &State,
    key: &str,
    past: Option<&Past<Option<Rc<Held>>>>,
    held: Option<&Rc<Held>>,
    unable: &[(IndexRef, &Settings)],
) -> Option<String> {
    let (index, _) = &unable[0];
    let claimants = state
        .indexes()
        .filter(|(index, past)| past.since(0).flatten().any(|image| asks(image, index, key)));
    if claimants.count() > 1 || tainted_index(state, index) || state.put_back_over.contains(key) {
        return None;
    }
    if state.keyless.contains(&index.account) {
        let first = past.and_then(|past| past.since(0).next()?.as_ref());
        return (held != first).then(|| "changed for an account without an API key".to_owned());
    }
    // The last good image, unless the item was gone after it.
    let images: Vec<&Option<Rc<Image>>> = state.past_of(index)?.since(0).collect();
    let good = images.iter().rposition(|image| {
        let settings = image.as_ref().and_then(|image| image.settings());
        settings.is_some_and(|settings| state.exportable(index, settings))
    })?;
    let settings = images[good].as_ref()?.settings()?;
    if images[good..].iter().any(|image| image.is_none()) || !settings.asks_for(index, key) {
        return None;
    }
    let holds = held.and_then(|held| held.named.as_ref()).map(|named| named.version);
    (holds != Some(settings.version))
        .then(|| format!("holds {holds:?}, not the last good version {}", settings.version))
}

/// Claimed by nobody: gone, unless something protected it when it was settled.
fn unclaimed(
    state: &State,
    key: &str,
    past: Option<&Past<Option<Rc<Held>>>>,
    held: Option<&Rc<Held>>,
) -> Option<String> {
    let past = past?;
    let held = held?;
    let Some(named) = &held.named else {
        let first = past.since(0).next()?.as_ref();
        return (first != Some(held)).then(|| "a foreign key was changed".to_owned());
    };
    // The index that gave the key up last, and when.
    let last = state
        .indexes()
        .flat_map(|(index, past)| {
            let asked = past.spans().filter(|(_, _, image)| {
                image.as_ref().is_some_and(|image| asks(image, &index, key))
            });
            asked.map(|(_, end, _)| (end, index.clone())).collect::<Vec<_>>()
        })
        .max();
    let Some((dropped, by)) = last else { return Some("nobody ever asked for it".to_owned()) };
    let own = state.past_of(&named.index);
    let gone = own.is_none_or(|past| past.since(dropped).any(Option::is_none));
    let kept = state.indexes().any(|(owner, past)| {
        past.since(dropped).flatten().filter_map(|image| image.settings()).any(|settings| {
            (gone && settings.points_at(&owner, &named.index, named.shop.as_deref()))
                || (owner != named.index && settings.names_shop(key))
                || (owner == named.index && !state.exportable(&owner, settings))
        })
    });
    let moved = !state.shape.old_images && !plain_removal(state, key, &by);
    (!kept && !moved && !ever_unable(state, &by))
        .then(|| format!("still holds {named:?}, which {by} gave up at {dropped}"))
}

/// Whether the key goes even without old images: all items that ever asked for it are gone, and KV
/// always showed that they did.
fn plain_removal(state: &State, key: &str, by: &IndexRef) -> bool {
    let mut askers = state.indexes().filter(|(index, past)| {
        index == by || past.since(0).flatten().any(|image| asks(image, index, key))
    });
    askers.all(|(index, past)| {
        past.last().is_some_and(Option::is_none) && is_faithful(state, &index, key)
    })
}

fn are_all_faithful(state: &State, key: &str) -> bool {
    state.indexes().all(|(index, past)| {
        !past.since(0).flatten().any(|image| asks(image, &index, key))
            || is_faithful(state, &index, key)
    })
}

/// Whether the value under the index id always showed that the index asks for the key: the index
/// always did, and no other value was ever under its id.
fn is_faithful(state: &State, index: &IndexRef, key: &str) -> bool {
    let id = index_id(index);
    let mut images = state.past_of(index).into_iter().flat_map(|past| past.since(0)).flatten();
    let alone = state.indexes().all(|(other, past)| {
        other == *index || !past.since(0).flatten().any(|image| asks(image, &other, &id))
    });
    alone
        && !tainted_index(state, index)
        && images.all(|image| {
            let settings = image.settings();
            asks(image, index, key) && settings.is_some_and(|s| state.exportable(index, s))
        })
}

fn asks(image: &Rc<Image>, index: &IndexRef, key: &str) -> bool {
    image.settings().is_some_and(|settings| settings.asks_for(index, key))
}

fn asked_once(state: &State, key: &str, named: &Named) -> bool {
    let mut images =
        state.past_of(&named.index).into_iter().flat_map(|past| past.since(0)).flatten();
    images.any(|image| {
        asks(image, &named.index, key)
            && image.settings().is_some_and(|settings| settings.version == named.version)
    })
}

fn ever_unable(state: &State, index: &IndexRef) -> bool {
    let mut images = state.past_of(index).into_iter().flat_map(|past| past.since(0)).flatten();
    images.any(|image| image.settings().is_some_and(|settings| !state.exportable(index, settings)))
}

fn tainted_index(state: &State, index: &IndexRef) -> bool {
    state.tainted.contains(&(Namespace::Settings, index_id(index)))
}

/// Query configs are exact; only what a re-export left half done may differ, unless `strict`.
pub fn query_configs(state: &State, strict: bool) -> Vec<String> {
    let mut wanted: BTreeMap<String, Option<String>> = state
        .kv
        .keys()
        .filter(|(namespace, _)| *namespace == Namespace::QueryConfigs)
        .map(|(_, key)| (key.clone(), None))
        .collect();
    for (item, past) in &state.table {
        let Some((index, query)) = query_of(item) else { continue };
        let content = past.last().and_then(Option::as_ref).map(|image| &image.content);
        let value = match content {
            Some(Content::Query(version)) => Some(query_value(&index, &query, *version)),
            _ => None,
        };
        wanted.insert(query_kv_key(&index, &query), value);
    }
    let differs = |(key, value): (String, Option<String>)| {
        let held = state.held(Namespace::QueryConfigs, &key).map(|held| held.value.clone());
        let tainted = state.tainted.contains(&(Namespace::QueryConfigs, key.clone()));
        (held != value && (strict || !tainted))
            .then(|| format!("{key:?} holds {held:?}, not {value:?}"))
    };
    wanted.into_iter().filter_map(differs).collect()
}
