//! Where a written value may come from: the table as it was at some time since the invocation began, or
//! the image of an item's last record, where the table had no such item or could not be read.

use std::time::Duration;

use crate::world::{Invocation, ItemKey, State};

/// A batch waits no longer for the first read of the table.
const UNREADABLE_AFTER: Duration = Duration::from_secs(5);

/// How far behind a pass may be.
pub const TABLE_LAG: Duration = Duration::from_secs(3);

/// Returns why this version of an item may not be written.
pub fn problem(state: &State, invocation: usize, item: &ItemKey, version: u32) -> Option<String> {
    let (run, environment) = state.run(invocation);
    let past = environment.table.get(item);
    let since = || past.into_iter().flat_map(|past| past.since(run.began));
    if since().flatten().any(|image| image.version() == Some(version)) {
        return None;
    }
    let of_batch = run.batch.get(item).is_some_and(|told| told.version == Some(version));
    if !of_batch {
        return Some(format!("v{version} is neither in the batch nor in the table since it began"));
    }
    let was_absent = past.is_none() || since().any(Option::is_none);
    (!was_absent && !table_was_silent(run))
        .then(|| format!("v{version} is the batch's, and the table has said something else"))
}

/// Whether the table may have been unreadable.
pub fn table_was_silent(run: &Invocation) -> bool {
    run.failed_services.contains("table") || run.table_time >= UNREADABLE_AFTER || run.out_of_time
}
