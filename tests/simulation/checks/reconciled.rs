//! After reconciles that nothing interferes with, KV equals the tables, without an exception.

use std::rc::Rc;

use super::settled::{query_config, query_keys, settings_keys};
use crate::world::{Environment, Held, IndexRef, Namespace, Settings, State, index_id, item_key};

pub fn check(state: &mut State) {
    let keys = settings_keys(state);
    let settings = keys.iter().filter_map(|key| {
        let problem = settings_key(state, key)?;
        Some(format!("{key:?} {problem}"))
    });
    let keys = query_keys(state);
    let trusted = state.environments.iter().all(Environment::has_indexes);
    let queries = keys.iter().filter(|_| trusted).filter_map(|key| query_config(state, key, true));
    let problems: Vec<String> = settings.chain(queries).collect();
    for problem in problems {
        state.violate("after a quiet reconcile, KV equals the table", problem);
    }
}

fn settings_key(state: &State, key: &str) -> Option<String> {
    let held = state.held(Namespace::Settings, key);
    let claimants: Vec<(&Environment, IndexRef, &Settings)> = state
        .environments
        .iter()
        .flat_map(|environment| {
            let claimants = environment.claimants(key).into_iter();
            claimants.map(move |(index, settings)| (environment, index, settings))
        })
        .collect();
    if claimants.is_empty() {
        return held.and_then(|held| orphan(state, key, held));
    }
    let unable = claimants
        .iter()
        .any(|(environment, index, settings)| !environment.exportable(index, settings));
    // An environment whose table protects its key keeps it, whoever asks for it in another.
    let protected = || held.is_some_and(|held| orphan(state, key, held).is_none());
    let right = claimants.iter().any(|(environment, index, settings)| {
        let api_key = environment.api_keys[&index.account].last();
        let value = api_key.map(|api_key| settings.value(index, api_key));
        held.map(|held| &held.value) == value.as_ref()
    });
    let shared = state.environments.len() > 1;
    let excused = unable || shared && protected();
    (!right && !excused).then(|| format!("holds {held:?}, asked for by {}", claimants[0].1))
}

/// A key that nobody asks for is foreign, or stays for a reason. Without any index item, the table is not
/// to be trusted.
fn orphan(state: &State, key: &str, held: &Rc<Held>) -> Option<String> {
    let mut environments = state.environments.iter();
    let environment = environments.find(|own| held.is_listed_as_ours(own.name))?;
    if !environment.has_indexes() {
        return None;
    }
    let owner = held.owner.as_ref()?;
    let own = environment.current_settings(owner);
    let unable = own.is_some_and(|settings| !environment.exportable(owner, settings));
    let item = item_key(owner);
    let pointed_at = |name: &str| environment.pointer(state.step, &item, name).is_some();
    let protected = unable || pointed_at(key) || own.is_none() && pointed_at(&index_id(owner));
    (!protected).then(|| format!("still holds {:?}", held.named))
}
