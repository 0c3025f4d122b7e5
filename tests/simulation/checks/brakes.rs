//! What a reconcile may delete and rewrite, over its whole chain of runs. In worlds of so few keys, the
//! brakes are their least values: the shares of what is listed and desired are the fleet's to show.

use std::rc::Rc;

use crate::world::{Held, Kind, Namespace, State};

/// Keys that a chain may delete and rewrite however few there are.
const DELETES: u64 = 100;
const REWRITES: u64 = 1_000;

/// Notes what a reconcile is about to delete or rewrite. Returns the problem where that is too much.
pub fn count(
    state: &mut State,
    invocation: usize,
    namespace: Namespace,
    key: &str,
    held: Option<&Rc<Held>>,
) -> Option<String> {
    let run = &mut state.invocations[invocation];
    let Kind::Reconcile(request) = &run.kind else { return None };
    // One account's shop ids are read, not listed.
    let seen = run.seen.of(namespace, key);
    let was_there = seen.is_some_and(|seen| seen.told.first().is_some_and(Option::is_some));
    let put_back = run.delete_attempts.contains(key);
    let (done, least, raised) = match held {
        None => (&mut run.done.deleted, DELETES, request.delete_up_to),
        Some(_) if was_there && !put_back => {
            (&mut run.done.rewritten, REWRITES, request.rewrite_up_to)
        }
        Some(_) => return None,
    };
    let keys = done.entry(namespace).or_default();
    keys.insert(key.to_owned());
    // A run that is killed takes what it let through with it.
    let most = (1 + run.done.killed) * least.max(raised.unwrap_or_default());
    if keys.len() as u64 > most {
        return Some(format!("{} of {most} keys", keys.len()));
    }
    let (run, environment) = state.run(invocation);
    let from = state.before(run.began, super::origin::TABLE_LAG);
    let mut indexes = environment.indexes();
    let trusted = indexes.any(|(_, past)| past.since(from).any(Option::is_some));
    (held.is_none() && !trusted).then(|| "deleted, though the table has no index item".to_owned())
}
