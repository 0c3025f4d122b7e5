//! From a minute after a batch began it writes nothing but what a removal decides, and a newer version is
//! not undone for longer than a minute.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::world::{Held, IndexRef, Namespace, State, Step, query_of};

const MINUTE: f64 = 60.0;

pub fn written_too_late(
    state: &State,
    invocation: usize,
    namespace: Namespace,
    changes: &[(String, Option<Rc<Held>>)],
) -> Option<String> {
    let run = &state.invocations[invocation];
    // A removal reads the table before it writes, and so does the removal of query configs.
    let removes = match namespace {
        Namespace::Settings => run.passes > 0,
        Namespace::QueryConfigs => {
            let mut batch = run.batch.iter();
            batch.any(|(item, told)| told.is_removal && query_of(item).is_some())
        }
    };
    let age = state.wall_clock() - run.began_at;
    let writes = changes.iter().any(|(_, held)| held.is_some());
    (run.is_stream() && writes && !removes && age >= MINUTE)
        .then(|| format!("[{invocation}] writes {age:.1} s after it began"))
}

/// How long an older version may stand where a newer one was: what a batch writes is read again at once.
const MAX_UNDONE: Duration = Duration::from_secs(60);

/// Checks each settings key over the whole history. Time in which no consumer ran does not count.
pub fn check(state: &mut State) {
    let mut problems = Vec::new();
    for ((namespace, key), past) in &state.kv {
        if *namespace != Namespace::Settings {
            continue;
        }
        let mut newest: BTreeMap<&IndexRef, u32> = BTreeMap::new();
        let mut undone = Duration::ZERO;
        for (from, until, held) in past.spans() {
            let Some(named) = held.as_ref().and_then(|held| held.named.as_ref()) else {
                undone = Duration::ZERO;
                continue;
            };
            let newest = newest.entry(&named.index).or_default();
            if named.version >= *newest {
                *newest = named.version;
                undone = Duration::ZERO;
                continue;
            }
            undone += running_time(state, from, until);
            if undone > MAX_UNDONE {
                problems.push(format!(
                    "{key:?} held v{newest} of {}, and then v{} for {undone:?}",
                    named.index, named.version
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
