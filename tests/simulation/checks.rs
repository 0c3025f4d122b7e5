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

use std::collections::BTreeSet;
use std::rc::Rc;

use ecom_settings_exporter::telemetry::Stats;

use crate::world::{Deleted, Held, Namespace, State};

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
        let rule = "a request holds no key twice and no more than it may";
        state.violate(rule, format!("[{invocation}]"));
    }
    if let Some(problem) = in_time::written_too_late(state, invocation, namespace, changes) {
        state.violate("a batch writes for a minute, but for what a removal decides", problem);
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
    let braked = brakes::count(state, invocation, namespace, key, held);
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
        (rule, problem),
        (
            "another environment's key is left to it",
            owners::problem(state, invocation, namespace, key, held),
        ),
        ("a repair keeps to its brakes", braked),
    ];
    if namespace == Namespace::Settings {
        remember(state, invocation, key, held);
    }
    let flood = ("a flood of removals is held", answers::flood(state, invocation));
    for (rule, problem) in problems.into_iter().chain([flood]) {
        if let Some(problem) = problem {
            state.violate(rule, format!("[{invocation}] {key:?}: {problem}"));
        }
    }
    let from = state.oldest_visible();
    state.invocations[invocation].seen.add(namespace, key, from, held.cloned());
}

/// Notes what later checks ask for.
fn remember(state: &mut State, invocation: usize, key: &str, held: Option<&Rc<Held>>) {
    let step = state.step + 1;
    let run = &mut state.invocations[invocation];
    let Some(held) = held else {
        // What is put back is what was read, and a stale response may have hidden what was there.
        let seen = run.seen.of(Namespace::Settings, key);
        let was = match run.deleted.get(key) {
            Some(deleted) => deleted.was.clone(),
            None => seen.and_then(|seen| seen.told.last().cloned().flatten()),
        };
        run.removed.extend(was.as_ref().and_then(|was| was.owner.clone()));
        run.put_back.remove(key);
        run.deleted.insert(key.to_owned(), Deleted { step, was, write_tried: false });
        return;
    };
    if let Some(named) = &held.named {
        run.first_written.entry(key.to_owned()).or_insert_with(|| named.index.clone());
    }
    let was = run.deleted.remove(key).and_then(|deleted| deleted.was);
    if was.is_some_and(|was| was == *held) {
        run.put_back.insert(key.to_owned());
    }
}

/// What an answered invocation leaves of its removals. A key that it deleted, and that something has
/// needed ever since, is there again, or the invocation has tried, or it says that a put-back failed. What
/// it put back has had another pass behind it, or the answer says that something failed.
pub fn after_removal(state: &mut State, invocation: usize, failed: bool, stats: &Stats) {
    let run = &mut state.invocations[invocation];
    let deleted = std::mem::take(&mut run.deleted);
    let unchecked = std::mem::take(&mut run.put_back);
    if !failed && !unchecked.is_empty() {
        let problem = format!("[{invocation}] {unchecked:?}");
        state.violate("what is put back has a pass behind it", problem);
    }
    if failed || stats.put_backs_failed > 0 {
        let attempts = state.invocations[invocation].delete_attempts.clone();
        state.excused.half_removed.extend(attempts);
    }
    for (key, deleted) in deleted.into_iter().filter(|_| stats.put_backs_failed == 0) {
        let environment = state.environment_of(invocation);
        let Some(was) = deleted.was.as_ref().filter(|_| !deleted.write_tried) else { continue };
        let Some(owner) = was.owner.as_ref().filter(|_| was.is_ours(environment.name)) else {
            continue;
        };
        if state.held(Namespace::Settings, &key).is_some() {
            continue;
        }
        let needed = settings::claimant(environment, &key, deleted.step)
            .or_else(|| settings::protector(environment, &key, owner, deleted.step));
        if let Some(needed) = needed {
            let problem = format!("[{invocation}] {key:?} stays deleted, but {needed} since");
            state.violate("what is needed after all is put back", problem);
        }
    }
}
