//! What may never happen, checked at every request, at every effect and at every answer.

mod metadata;
mod query_configs;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ecom_settings_exporter::ports::Namespace;

use crate::held::Held;
use crate::past::{Past, Step};
use crate::state::State;

/// The cell of items that name no cell.
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
        (Namespace::Settings, Some(held)) => settings::put(state, invocation, key, held),
        (Namespace::Settings, None) => settings::delete(state, invocation, key),
        (Namespace::QueryConfigs, Some(held)) => query_configs::put(state, key, held),
        (Namespace::QueryConfigs, None) => query_configs::delete(state, invocation, key),
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
        // The invocation never saw what another one wrote meanwhile.
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

/// Checks the keys that the invocation deleted: nothing may have needed one ever since.
pub fn after_look(state: &mut State, invocation: usize) {
    let deleted: BTreeMap<String, (Step, Rc<Held>)> =
        std::mem::take(&mut state.invocations[invocation].deleted);
    for (key, (step, was)) in deleted {
        let Some(named) = &was.named else { continue };
        if state.held(Namespace::Settings, &key).is_some() {
            continue;
        }
        if let Some(by) = settings::protector(state, &key, named, step) {
            let problem = format!("[{invocation}] {key:?} stays deleted, but {by} since");
            state.violate("what is needed after all is put back", problem);
        }
    }
}
