//! A newer version is not undone for longer than a minute, where no call takes long.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::world::{IndexRef, Namespace, State, Step};

/// How long an older version may stand where a newer one was: what a batch writes is read again at once.
const MAX_UNDONE: Duration = Duration::from_secs(60);

/// Checks each settings key over the whole history. Time in which no consumer ran does not count.
pub fn check(state: &mut State) {
    let is_slow = state.shape.latencies.iter().any(|milliseconds| *milliseconds > 100);
    if is_slow || state.shape.is_small() {
        return;
    }
    let mut problems = Vec::new();
    for (key, past) in state.kv.iter().filter(|(key, _)| key.namespace == Namespace::Settings) {
        let mut newest: BTreeMap<&IndexRef, u32> = BTreeMap::new();
        let mut undone = Duration::ZERO;
        for (from, until, held) in past.spans() {
            let held = held.as_ref().and_then(|held| Some((held.owner.as_ref()?, held.version?)));
            let Some((owner, version)) = held else {
                undone = Duration::ZERO;
                continue;
            };
            let newest = newest.entry(owner).or_default();
            if version >= *newest {
                *newest = version;
                undone = Duration::ZERO;
                continue;
            }
            undone += running_time(state, from, until);
            if undone > MAX_UNDONE {
                let key = &key.name;
                problems.push(format!(
                    "{key:?} held v{newest} of {owner}, and then v{version} for {undone:?}"
                ));
            }
        }
    }
    for problem in problems {
        state.violate("a newer version is not undone for longer than a minute", problem);
    }
}

/// Returns the time from one step to another in which every consumer ran.
fn running_time(state: &State, from: Step, until: Step) -> Duration {
    let from = state.time_of(from);
    let until = if until == Step::MAX { state.now() } else { state.time_of(until) };
    let stopped =
        state.stops.iter().map(|(stop, go)| (*go).min(until).saturating_sub((*stop).max(from)));
    (until - from).saturating_sub(stopped.sum())
}
