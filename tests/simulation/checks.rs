//! What may never happen, checked at every request, at every effect, at every answer, and at the end.

mod brakes;
mod changes;
pub mod in_time;
pub mod removal;
pub mod settled;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;

use ecom_settings_exporter::lambda::{Answer, Handled};

use crate::world::{Held, ItemKey, Kind, KvKey, Namespace, State};

/// A bulk request as it is sent.
pub fn request(state: &mut State, invocation: usize, changes: &[(KvKey, Option<Rc<Held>>)]) {
    state.note(|| {
        let changes: Vec<String> = changes
            .iter()
            .map(|(key, held)| match held {
                None => format!("delete {}", key.name),
                Some(held) => format!("put {} = {:?} v{:?}", key.name, held.owner, held.version),
            })
            .collect();
        format!("  [{invocation}] sends {}", changes.join(", "))
    });
    let keys: BTreeSet<&KvKey> = changes.iter().map(|(key, _)| key).collect();
    if keys.len() != changes.len() || changes.len() > state.shape.bulk_max_pairs {
        let rule = "a request holds no key twice and no more than it may";
        state.violate(rule, format!("[{invocation}]"));
    }
    let run = &mut state.invocations[invocation];
    run.wrote = true;
    for (key, held) in changes {
        if held.is_none() {
            run.delete_attempts.insert(key.clone());
        } else if let Some(deleted) = run.deleted.get_mut(key) {
            deleted.write_tried = true;
        }
    }
}

/// A key that is about to be changed in KV.
pub fn effect(state: &mut State, invocation: usize, key: &KvKey, held: Option<&Rc<Held>>) {
    let (rule, problem) = match held {
        Some(held) => ("only right values are written", changes::put(state, invocation, key, held)),
        None => ("only what nobody needs is deleted", changes::delete(state, invocation, key)),
    };
    let foreign = changes::of_another_environment(state, invocation, key, held);
    let braked = brakes::count(state, invocation, key, held.is_some());
    if key.namespace == Namespace::Settings {
        removal::note(state, invocation, key, held);
    }
    for (rule, problem) in [
        (rule, problem),
        ("another environment's key is left to it", foreign),
        ("a repair keeps to its brakes", braked),
        ("a flood of removals is held", removal::flood(state, invocation)),
    ] {
        if let Some(problem) = problem {
            state.violate(rule, format!("[{invocation}] {:?}: {problem}", key.name));
        }
    }
    let from = state.oldest_visible();
    state.invocations[invocation].see(key, from, held.cloned());
}

/// Checks a batch's answer: no record is lost. Returns how many of its records are done.
pub fn answer(
    state: &mut State,
    invocation: usize,
    shard: usize,
    batch: Range<usize>,
    (result, stats): &Handled,
) -> usize {
    let Ok(Answer::Stream(answer)) = result else {
        let answer = format!("[{invocation}] {result:?}");
        state.violate("a batch is answered with what failed", answer);
        return 0;
    };
    for (what, times) in [
        ("withheld", stats.deletes_withheld),
        ("put back", stats.deletes_restored),
        ("API keys reused", stats.api_keys_reused),
        ("parked", stats.parked),
        ("held", stats.removals_held),
    ] {
        state.count(what, times);
    }
    let failed = answer.batch_item_failures.iter();
    let failed: Vec<&str> =
        failed.map(|failure| failure.item_identifier.as_deref().unwrap_or_default()).collect();
    state.note(|| format!("  [{invocation}] answers {failed:?}, parked {}", stats.parked));
    let (run, environment) = state.run(invocation);
    let records = &environment.shards[shard].records[batch];
    let numbers = || records.iter().map(|record| record.number.as_str());
    let of_batch: Vec<&str> = numbers().filter(|number| failed.contains(number)).collect();
    let mut fates: BTreeMap<&ItemKey, BTreeSet<bool>> = BTreeMap::new();
    for record in records {
        fates.entry(&record.item).or_default().insert(failed.contains(&record.number.as_str()));
    }
    let outcomes =
        [stats.exported, stats.parked, stats.removals_held, stats.rejected, stats.failed];
    let is_whole = outcomes.iter().sum::<u64>() == records.len() as u64
        && stats.failed == failed.len() as u64
        && of_batch == failed
        && fates.values().all(|fates| fates.len() == 1);
    let done = numbers().position(|number| failed.contains(&number)).unwrap_or(records.len());
    // Items that lack an API key, or are refused, wait for a repair.
    let lacks_api_keys = !run.without_api_key.is_empty();
    let left = stats.parked + stats.removals_held;
    let left = left > 0 || stats.rejected > 0 && lacks_api_keys;
    state.needs_repair |= left;
    if !is_whole {
        state.violate("no record is lost", format!("[{invocation}] {failed:?} failed, {stats:?}"));
    }
    removal::check(state, invocation, stats.failed > 0, stats);
    done
}

fn is_reconcile(kind: &Kind) -> bool {
    matches!(kind, Kind::Reconcile(_))
}
