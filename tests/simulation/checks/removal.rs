//! What a removal leaves: what is needed after all is there again.

use std::rc::Rc;

use ecom_settings_exporter::telemetry::Stats;

use super::changes;
use crate::world::{Deleted, Held, Kind, KvKey, State, When};

/// Notes a change of a settings key, for the checks that follow.
pub fn note(state: &mut State, invocation: usize, key: &KvKey, held: Option<&Rc<Held>>) {
    let step = state.step + 1;
    let run = &mut state.invocations[invocation];
    if let Some(held) = held {
        let was = run.deleted.remove(key).and_then(|deleted| deleted.was);
        if was.is_some_and(|was| was.stored == held.stored) {
            run.put_back.insert(key.clone());
        }
        return;
    }
    // What is put back is what was read, and a stale response may have hidden what was there.
    let was = match run.deleted.get(key) {
        Some(deleted) => deleted.was.clone(),
        None => run.told(key).last().cloned().flatten(),
    };
    run.removed.extend(was.as_ref().and_then(|was| was.owner.clone()));
    run.put_back.remove(key);
    run.deleted.insert(key.clone(), Deleted { step, was, write_tried: false });
}

/// A batch that would remove more indexes than a process may removes none.
pub fn flood(state: &State, invocation: usize) -> Option<String> {
    let run = &state.invocations[invocation];
    let is_stream = matches!(run.kind, Kind::Stream { .. });
    let too_many = is_stream && run.removed.len() > state.shape.removals_up_to;
    too_many.then(|| format!("these lose keys: {:?}", run.removed))
}

/// Checks what an answered invocation leaves of its removals. A key that it deleted, and that something has
/// needed ever since, is there again, or the invocation has tried, or it says that a put-back failed. What
/// it put back has had another pass after it, or the answer says that something failed.
pub fn check(state: &mut State, invocation: usize, failed: bool, stats: &Stats) {
    let run = &mut state.invocations[invocation];
    let deleted = std::mem::take(&mut run.deleted);
    let unchecked = std::mem::take(&mut run.put_back);
    let has_deleted = !run.delete_attempts.is_empty();
    if !failed && !unchecked.is_empty() {
        let problem = format!("[{invocation}] {unchecked:?}");
        state.violate("what is put back has a pass after it", problem);
    }
    // Without old images, the key of an index id leads to others, and is gone.
    let is_half_done = failed && has_deleted && !state.shape.old_images;
    state.needs_repair |= is_half_done || stats.put_backs_failed > 0;
    for (key, deleted) in deleted.into_iter().filter(|_| stats.put_backs_failed == 0) {
        let (_, environment) = state.run(invocation);
        let was = deleted.was.as_ref().filter(|was| was.is_ours(environment.name));
        let Some(owner) = was.and_then(|was| was.owner.as_ref()) else { continue };
        if deleted.write_tried || state.held(&key).is_some() {
            continue;
        }
        let since = When::AlwaysSince(deleted.step);
        let needed = changes::asker(environment, since, &key)
            .or_else(|| environment.protector(since, &key, owner));
        if let Some(needed) = needed {
            let problem =
                format!("[{invocation}] {:?} stays deleted, but {needed} since", key.name);
            state.violate("what is needed after all is put back", problem);
        }
    }
}
