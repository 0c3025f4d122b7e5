//! From a minute after a batch began it writes nothing but what settling decides.

use std::rc::Rc;

use crate::world::{Held, Namespace, State, query_of};

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
