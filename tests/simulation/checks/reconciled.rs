//! After reconciles that nothing interferes with, KV equals the tables, without an exception.

use std::rc::Rc;

use super::settled::{query_config, query_keys, settings_keys};
use crate::world::{Environment, Held, IndexRef, Namespace, Settings, State, item_key};

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

/// A key that nobody asks for is foreign, or kept for a reason. Without any index item, the
/// table is not to be trusted.
fn orphan(state: &State, key: &str, held: &Rc<Held>) -> Option<String> {
    let owner = state.environments.iter().find(|environment| held.is_ours(environment.name))?;
    if !owner.has_indexes() {
        return None;
    }
    let named = held.named.as_ref()?;
    let own = owner.current_settings(&named.index);
    let unable = own.is_some_and(|settings| !owner.exportable(&named.index, settings));
    let item = item_key(&named.index);
    let mut naming = named.naming();
    // The listing does not tell which shop id a value names: a key of the same index stands for it.
    naming.shops.extend(settings_keys(state).into_iter().filter(|other| {
        let held = state.held(Namespace::Settings, other);
        let is_its = held.is_some_and(|held| {
            held.is_ours(owner.name)
                && held.named.as_ref().is_some_and(|it| it.index == named.index)
        });
        is_its && owner.claimants(other).is_empty()
    }));
    let pointed_at = owner.table.iter().any(|(pointer, past)| {
        let aliases = past.last().and_then(|image| image.as_ref()?.aliases());
        *pointer != item
            && aliases.is_some_and(|aliases| {
                aliases.name_shop(key)
                    || own.is_none()
                        && aliases.point_at(&pointer.pk, &named.index, naming.shops.iter())
            })
    });
    (!unable && !pointed_at).then(|| format!("still holds {named:?}"))
}
