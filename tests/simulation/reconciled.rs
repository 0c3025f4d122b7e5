//! After a reconcile that nothing interferes with, KV equals the table without exception.

use std::collections::BTreeSet;
use std::rc::Rc;

use ecom_settings_exporter::index::IndexRef;
use ecom_settings_exporter::ports::Namespace;

use crate::held::Held;
use crate::model::Settings;
use crate::settled;
use crate::state::State;

pub fn check(state: &mut State) {
    let keys: BTreeSet<String> = settled::settings_keys(state);
    let problems: Vec<String> = keys
        .iter()
        .filter_map(|key| Some(format!("{key:?} {}", settings_key(state, key)?)))
        .chain(settled::query_configs(state, true))
        .collect();
    for problem in problems {
        state.violate("after a quiet reconcile, KV equals the table", problem);
    }
}

fn settings_key(state: &State, key: &str) -> Option<String> {
    let claimants: Vec<(IndexRef, &Settings)> = state
        .indexes()
        .filter_map(|(index, _)| Some((index.clone(), state.current_settings(&index)?)))
        .filter(|(index, settings)| settings.asks_for(index, key))
        .collect();
    let held = state.held(Namespace::Settings, key);
    if claimants.is_empty() {
        return held.and_then(|held| orphan(state, key, held));
    }
    if claimants.iter().any(|(index, settings)| !state.exportable(index, settings)) {
        return None;
    }
    let right = claimants.iter().any(|(index, settings)| {
        let api_key = state.api_keys[&index.account].last();
        let value = api_key.map(|api_key| settings.value(index, api_key));
        held.map(|held| &held.value) == value.as_ref()
    });
    (!right).then(|| format!("holds {:?}, asked for by {}", held, claimants[0].0))
}

/// A key that nobody asks for is foreign, or kept for a reason.
fn orphan(state: &State, key: &str, held: &Rc<Held>) -> Option<String> {
    let named = held.named.as_ref()?;
    let own = state.current_settings(&named.index);
    let unable = own.is_some_and(|settings| !state.exportable(&named.index, settings));
    let pointed_at = state.indexes().any(|(owner, _)| {
        owner != named.index
            && state.current_settings(&owner).is_some_and(|settings| {
                let points = settings.points_at(&owner, &named.index, named.shop.as_deref());
                settings.names_shop(key) || (own.is_none() && points)
            })
    });
    (!unable && !pointed_at).then(|| format!("still holds {named:?}"))
}
