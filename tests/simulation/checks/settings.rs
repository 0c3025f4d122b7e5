//! What may be written and deleted in the settings namespace.

use std::collections::BTreeSet;
use std::rc::Rc;

use ecom_settings_exporter::index::IndexRef;
use ecom_settings_exporter::ports::Namespace;

use super::metadata;
use crate::held::{Held, Named};
use crate::model::{Image, Settings};
use crate::past::{Past, Step};
use crate::state::State;

pub fn put(state: &State, invocation: usize, key: &str, held: &Held) -> Option<String> {
    let began = state.invocations[invocation].began;
    let past = state.kv.get(&(Namespace::Settings, key.to_owned()));
    let restored =
        past.is_some_and(|past| past.since(began).flatten().any(|was| was.value == held.value));
    if restored {
        return None;
    }
    let Some(named) = &held.named else {
        return Some("a value that is not the exporter's".to_owned());
    };
    let Some((image, settings)) = image_of(state, named) else {
        return Some(format!("a value that no image of {} gives", named.index));
    };
    if !settings.asks_for(&named.index, key) {
        return Some(format!("a value whose image does not ask for the key: {image:?}"));
    }
    if named.api_key.is_empty() || held.value != settings.value(&named.index, &named.api_key) {
        return Some(format!("not the value of {}: {}", named.index, held.value));
    }
    if let Some(problem) = metadata::problem(held, &named.index) {
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

fn key_is_fresh(state: &State, invocation: usize, named: &Named) -> bool {
    let run = &state.invocations[invocation];
    let account = &named.index.account;
    if state.api_keys[account].since(run.began).any(|key| *key == named.api_key) {
        return true;
    }
    // If the service gives no answer, the key that KV held of the same index may be used again.
    let images = state.past_of(&named.index).into_iter().flat_map(|past| past.since(0));
    let keys: BTreeSet<String> = images
        .flatten()
        .filter_map(|image| image.settings())
        .flat_map(|settings| settings.kv_keys(&named.index))
        .collect();
    // In any cell: a re-export keeps its key when the item moves to another cell.
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

/// A key that several items ask for stays with the item that KV names.
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

pub fn delete(state: &State, invocation: usize, key: &str) -> Option<String> {
    let began = state.invocations[invocation].began;
    let past = state.kv.get(&(Namespace::Settings, key.to_owned()))?;
    let held = past.last()?.as_ref()?;
    let Some(named) = &held.named else { return Some("a foreign key is deleted".to_owned()) };
    for (index, past) in state.indexes() {
        if past.all_since(began, |image| claims(image, &index, key)) {
            return Some(format!("deleted, but {index} has asked for it all the time"));
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

/// What has protected a key that nobody asks for, all the time since `from`.
pub fn protector(state: &State, key: &str, named: &Named, from: Step) -> Option<String> {
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
