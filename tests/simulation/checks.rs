//! What may never happen, checked at every request, at every effect and at every answer.

pub mod answers;
pub mod brakes;
pub mod in_time;
pub mod metadata;
mod origin;
mod owners;
mod query_configs;
pub mod receipts;
pub mod reconciled;
mod records;
mod settings;
pub mod settled;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ecom_settings_exporter::telemetry::Stats;

use crate::world::{Deleted, Held, Namespace, Past, State};

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
    if let Some(problem) = in_time::written_too_late(state, invocation, namespace, changes) {
        state.violate("a batch writes for a minute, but for what settling decides", problem);
    }
    let run = &mut state.invocations[invocation];
    run.attempted.extend(changes.iter().map(|(key, _)| (namespace, key.clone())));
    if namespace == Namespace::Settings {
        for (key, held) in changes {
            if held.is_none() {
                run.delete_attempts.insert(key.clone());
            } else if let Some(deleted) = run.deleted.get_mut(key) {
                deleted.write_tried = true;
            }
        }
    }
}

/// A key that is about to be changed in KV.
pub fn effect(
    state: &mut State,
    invocation: usize,
    namespace: Namespace,
    key: &str,
    held: Option<&Rc<Held>>,
) {
    brakes::count(state, invocation, namespace, key, held);
    receipts::note_change(state, invocation, namespace, key);
    let problem = match (namespace, held) {
        (Namespace::Settings, Some(held)) => settings::put(state, invocation, key, held),
        (Namespace::Settings, None) => settings::delete(state, invocation, key),
        (Namespace::QueryConfigs, Some(held)) => query_configs::put(state, invocation, key, held),
        (Namespace::QueryConfigs, None) => query_configs::delete(state, invocation, key),
    };
    let rule = match held {
        Some(_) => "only right values are written",
        None => "only what nobody needs is deleted",
    };
    let problems = [
        problem.map(|problem| (rule, problem)),
        owners::problem(state, invocation, namespace, key, held)
            .map(|problem| ("another environment's key is left to it", problem)),
        brakes::problem(state, invocation, namespace, held)
            .map(|problem| ("a repair keeps to its brakes", problem)),
    ];
    for (rule, problem) in problems.into_iter().flatten() {
        state.violate(rule, format!("[{invocation}] {key:?}: {problem}"));
    }
    if namespace == Namespace::Settings {
        remember(state, invocation, key, held);
    }
    let from = state.oldest_visible();
    state.invocations[invocation].seen.add(namespace, key, from, held.cloned());
}

/// Notes what later checks ask for.
fn remember(state: &mut State, invocation: usize, key: &str, held: Option<&Rc<Held>>) {
    let step = state.step + 1;
    let changed = state.kv.get(&(Namespace::Settings, key.to_owned())).map_or(0, Past::changed);
    let run = &mut state.invocations[invocation];
    let Some(held) = held else {
        // Put back is what was read, and an old answer may have hidden what was there.
        let seen = run.seen.of(Namespace::Settings, key);
        let was = match run.deleted.get(key) {
            Some(deleted) => deleted.was.clone(),
            None => seen.and_then(|seen| seen.answers.last().cloned().flatten()),
        };
        run.deleted.insert(key.to_owned(), Deleted { step, was, write_tried: false });
        return;
    };
    if let Some(named) = &held.named {
        run.first_written.entry(key.to_owned()).or_insert(named.version);
    }
    if run.deleted.remove(key).is_some_and(|deleted| changed > deleted.step) {
        state.excused.put_back_over.insert(key.to_owned());
    }
}

/// An answer about a key that is not as it is now. Where it names something else, or hides a key
/// that nothing else tells of, it misleads.
pub fn old_answer(
    state: &mut State,
    invocation: usize,
    namespace: Namespace,
    key: &str,
    told: Option<&Held>,
    now: Option<&Held>,
) {
    let naming = |held: &Held| held.named.as_ref().map(|named| named.naming());
    let misleads = match (told, now) {
        (Some(told), Some(now)) => naming(told) != naming(now) || told.owner != now.owner,
        (None, Some(_)) => {
            let batch = &state.invocations[invocation].batch;
            batch.removals_naming(key).next().is_none()
        }
        (_, None) => false,
    };
    if namespace == Namespace::Settings && told.is_none() {
        state.excused.hidden.insert(key.to_owned());
    }
    if misleads {
        state.excused.misread.insert((namespace, key.to_owned()));
    }
}

/// Keys that an answered invocation deleted, and that something has needed ever since: each is there
/// again, or the invocation has at least tried, or it says that there was no time to try.
pub fn after_look(state: &mut State, invocation: usize, stats: &Stats) {
    if state.invocations[invocation].out_of_time && stats.put_backs_failed > 0 {
        return;
    }
    let deleted: BTreeMap<String, Deleted> =
        std::mem::take(&mut state.invocations[invocation].deleted);
    for (key, deleted) in deleted {
        let environment = state.environment_of(invocation);
        let Some(was) = deleted.was.as_ref().filter(|_| !deleted.write_tried) else { continue };
        let Some(named) = was.named_for(environment.name) else { continue };
        if state.held(Namespace::Settings, &key).is_some() {
            continue;
        }
        let naming = named.naming();
        let needed = settings::claimant(environment, &key, deleted.step)
            .or_else(|| settings::protector(environment, &key, &naming, deleted.step));
        if let Some(needed) = needed {
            let problem = format!("[{invocation}] {key:?} stays deleted, but {needed} since");
            state.violate("what is needed after all is put back", problem);
        }
    }
}
