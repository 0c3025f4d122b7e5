//! From a minute after a batch began it writes nothing but what settling decides, and a newer version is
//! not undone for longer than a minute.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::world::{Held, Image, IndexRef, Namespace, State, Step, query_of};

const MINUTE: f64 = 60.0;

pub fn written_too_late(
    state: &State,
    invocation: usize,
    namespace: Namespace,
    changes: &[(String, Option<Rc<Held>>)],
) -> Option<String> {
    let run = &state.invocations[invocation];
    // Settling looks at the table before it writes, and so does the removal of query configs.
    let settles = match namespace {
        Namespace::Settings => run.passes > 0,
        Namespace::QueryConfigs => {
            let mut deciding = run.batch.deciding.iter();
            deciding.any(|(item, record)| record.version.is_none() && query_of(item).is_some())
        }
    };
    let age = state.wall_clock() - run.began_at;
    let writes = changes.iter().any(|(_, held)| held.is_some());
    (run.is_stream() && writes && !settles && age >= MINUTE)
        .then(|| format!("[{invocation}] writes {age:.1} s after it began"))
}

/// A minute, and the batch under way at its end, which may wait 20 s for API keys and 5 s more.
const MAX_UNDONE: Duration = Duration::from_secs(60 + 25);

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
            if !says_when(state, named.version) {
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

/// Whether the record of a version says when the table took it. One that doesn't is never late, so its
/// image is written however old it is, until the record of a newer version comes.
fn says_when(state: &State, version: u32) -> bool {
    let shards = state.environments.iter().flat_map(|environment| &environment.shards);
    let mut records = shards.flat_map(|shard| &shard.records);
    let is_its = |new: &Image| new.version() == Some(version);
    !records.any(|record| record.created.is_none() && record.new.as_deref().is_some_and(is_its))
}

/// The time from one step to another in which every consumer ran.
fn running_time(state: &State, from: Step, until: Step) -> Duration {
    let from = state.time_of(from);
    let until = if until == Step::MAX { state.now() } else { state.time_of(until) };
    let stopped =
        state.stops.iter().map(|(stop, go)| (*go).min(until).saturating_sub((*stop).max(from)));
    (until - from).saturating_sub(stopped.sum())
}
