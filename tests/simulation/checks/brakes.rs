//! What a reconcile may delete and rewrite, over its whole chain of runs. In worlds of so few keys, the
//! brakes are their least values: the shares of what is listed and desired are the fleet's to show.

use super::changes::TABLE_LAG;
use crate::world::{Kind, KvKey, State, When};

/// Keys that a chain may delete and rewrite however few there are.
const DELETES: u64 = 100;
const REWRITES: u64 = 1_000;

/// Notes what a reconcile is about to delete or rewrite. Returns the problem where that is too much.
pub fn count(state: &mut State, invocation: usize, key: &KvKey, is_put: bool) -> Option<String> {
    let run = &mut state.invocations[invocation];
    let Kind::Reconcile(request) = &run.kind else { return None };
    // One account's shop ids are read, not listed.
    let was_there = run.told(key).first().is_some_and(Option::is_some);
    // A removal reads the key once more, and writes it for an item that has come to ask for it.
    let is_of_a_removal = run.told(key).len() > 1 && !run.done.rewritten.contains(key);
    if is_put {
        // It may have been deleted, and is put back.
        run.done.deleted.remove(key);
        if !was_there {
            run.done.added.insert(key.clone());
        }
    }
    let is_free = is_of_a_removal || run.delete_attempts.contains(key);
    if is_put && (is_free || run.done.added.contains(key)) {
        return None;
    }
    let (least, raised) = match is_put {
        true => (REWRITES, request.rewrite_up_to),
        false => (DELETES, request.delete_up_to),
    };
    let keys = if is_put { &mut run.done.rewritten } else { &mut run.done.deleted };
    keys.insert(key.clone());
    let done = keys.iter().filter(|other| other.namespace == key.namespace).count();
    // A run that is killed takes what it let through with it.
    let most = (1 + run.done.killed) * least.max(raised.unwrap_or_default());
    if done as u64 > most {
        return Some(format!("{done} of {most} keys"));
    }
    let (run, environment) = state.run(invocation);
    let since = When::EverSince(state.before(run.began, TABLE_LAG));
    let is_trusted = is_put || environment.has_indexes(since);
    (!is_trusted).then(|| "deleted, though the table has no index item".to_owned())
}
