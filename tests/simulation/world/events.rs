//! Events: changes of the table, and what people do.

use super::small;
use super::{
    Aliases, Content, DEFAULT_CELL, Flaw, IndexRef, ItemKey, OTHER_CELL, Reconcile, Settings,
    Shape, State, WriteAlias, change, garbage, index_id, item_key, put, query_item_key,
};
use crate::choices::Choices;

/// Lets the next event happen.
pub fn fire(state: &mut State) {
    if state.events_left == 0 {
        return;
    }
    state.events_left -= 1;
    match state.shape.small {
        Some(small) => small::fire(state, small.about),
        None => fire_random(state),
    }
}

fn fire_random(state: &mut State) {
    let environments = u32::try_from(state.environments.len()).unwrap();
    let environment = state.choices.below(environments) as usize;
    let index = pick_index(state);
    let special: u32 = state.choices.below(12);
    match special {
        1..=3 => return change(state, environment, &item_key(&index), None),
        4 if state.shape.rotation => return rotate(state, environment, &index.account),
        5 | 6 if state.shape.re_exports => return re_export(state, environment, index),
        7 if state.shape.garbage => return garbage(state, environment),
        8 if state.shape.garbage => return change_other(state, environment, &index),
        8 if state.shape.reconciles => return reconcile(state, environment, index),
        9 | 10 if !state.shape.queries.is_empty() => {
            return change_query(state, environment, &index);
        }
        _ => {}
    }
    let current = state.environments[environment].current_settings(&index).cloned();
    let settings = mutated(state, &index, current.unwrap_or_default(), true);
    put(state, environment, &index, settings);
}

fn pick_index(state: &mut State) -> IndexRef {
    let State { choices, shape, .. } = state;
    choices.pick(&shape.indexes).clone()
}

/// Returns the settings with some random change.
pub fn mutated(
    state: &mut State,
    index: &IndexRef,
    mut settings: Settings,
    live: bool,
) -> Settings {
    let State { choices, shape, .. } = state;
    match choices.below(6) {
        0 => {}
        1..=3 => {
            let shops: Vec<Option<String>> = [None]
                .into_iter()
                .chain(shape.shops.iter().cloned().map(Some))
                .chain([Some(index_id(index))])
                .collect();
            settings.shop = choices.pick(&shops).clone();
        }
        _ => {}
    }
    if shape.aliases && choices.below(2) == 1 {
        settings.aliases = aliases(choices, shape, index);
    }
    if shape.invalid && live {
        settings.flaw = [None, None, None, Some(Flaw::NoEndpoint), Some(Flaw::BadWeight)]
            [choices.below(5) as usize];
    }
    // Without a default, an item that names no cell can't be exported.
    settings.cell = match choices.below(4) {
        3 => Some(OTHER_CELL),
        cell if shape.default_cell || (cell == 0 && live) => None,
        _ => Some(DEFAULT_CELL),
    };
    settings
}

fn aliases(choices: &mut Choices, shape: &Shape, index: &IndexRef) -> Aliases {
    let mut aliases = Aliases::default();
    let target = index_id(choices.pick(&shape.indexes));
    let on = choices.below(4) > 0;
    match choices.below(8) {
        0 => {}
        1 => aliases.read_alias = Some(target),
        2 => aliases.doc_reads = Some((on, target)),
        3 => aliases.doc_writes = Some((on, target)),
        4 => aliases.analytics = Some((on, target)),
        5 => aliases.write = Some(WriteAlias::IndexId(target)),
        6 => {
            let named = choices.pick(&shape.shops).clone();
            let shop = if on { named } else { target };
            aliases.write = Some(WriteAlias::ShopId(shop));
        }
        _ => {
            let named = choices.pick(&shape.indexes).clone();
            let account = (on || named.account != index.account).then_some(named.account);
            aliases.write = Some(WriteAlias::Name { account, name: named.name });
        }
    }
    if choices.below(4) == 1 {
        // A read alias overrides this doc_reads.
        aliases.doc_reads = Some((true, index_id(choices.pick(&shape.indexes))));
    }
    aliases
}

fn change_query(state: &mut State, environment: usize, index: &IndexRef) {
    let State { choices, shape, .. } = state;
    let key = query_item_key(index, choices.pick::<&str>(&shape.queries));
    let gone = state.choices.below(3) == 1;
    state.versions += 1;
    let content = (!gone).then_some(Content::Query(state.versions));
    change(state, environment, &key, content);
}

/// An account's defaults, or something else that is no index; both may have aliases.
fn change_other(state: &mut State, environment: usize, index: &IndexRef) {
    let State { choices, shape, .. } = state;
    let sk = *choices.pick(&["INDEX#DEFAULT_CONFIG", "NOTES", "INDEX##QUERY#p"]);
    let key = ItemKey { pk: index.account.clone(), sk: sk.to_owned() };
    let gone = choices.below(4) == 1;
    let aliases = if shape.aliases { aliases(choices, shape, index) } else { Aliases::default() };
    change(state, environment, &key, (!gone).then_some(Content::Other(aliases)));
}

fn rotate(state: &mut State, environment: usize, account: &str) {
    let step = state.next_step();
    let environment = &mut state.environments[environment];
    let key = format!("key-{}-{account}-{step}", environment.name);
    environment.api_keys.entry(account.to_owned()).or_default().push(step, key.clone());
    state.note(|| format!("the API key of {account} becomes {key}"));
}

fn re_export(state: &mut State, environment: usize, index: IndexRef) {
    let queries = !state.shape.queries.is_empty() && state.choices.below(2) == 0;
    state.environments[environment].re_exports.push((index, queries));
}

fn reconcile(state: &mut State, environment: usize, index: IndexRef) {
    let choices = &mut state.choices;
    let reconcile = Reconcile {
        apply: choices.below(4) > 0,
        account: (choices.below(4) == 1).then_some(index.account),
        delete_up_to: [None, None, Some(0), Some(1_000)][choices.below(4) as usize],
        rewrite_up_to: [None, None, Some(0), Some(1_000)][choices.below(4) as usize],
    };
    state.environments[environment].reconciles.push(reconcile);
}
