//! Where a written value may come from: the image of a record in time that decides, or the table as
//! it was at some time since the invocation began.

use std::rc::Rc;
use std::time::Duration;

use crate::world::{Call, Image, ItemKey, State};

/// A table that takes this long to answer about late records can't be read.
const UNREADABLE_AFTER: Duration = Duration::from_secs(10);

/// Where the value of this version of an item came from; a problem if that is not allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// A stream record's image, or the table, which said the same.
    Either,
    Image,
    Table,
}

/// Why a version may not be written, or where it may come from.
pub fn of(
    state: &State,
    invocation: usize,
    item: &ItemKey,
    version: u32,
) -> Result<Origin, String> {
    let (run, environment) = state.run(invocation);
    let past = environment.table.get(item);
    let since = || past.into_iter().flat_map(|past| past.since(run.began));
    let is_version = |image: &Rc<Image>| image.version() == Some(version);
    let of_table = since().flatten().any(is_version);
    let deciding = run.batch.deciding.get(item);
    let deciding = deciding.filter(|deciding| deciding.version == Some(version));
    let Some(deciding) = deciding else {
        return if of_table {
            Ok(Origin::Table)
        } else {
            Err(format!("v{version} is neither in the batch nor in the table since it began"))
        };
    };
    let is_rejected = |image: &Rc<Image>| {
        image.settings().is_some_and(|settings| !environment.is_valid(settings))
    };
    let table_was_silent = run.failed_services.contains("table")
        || run.slowest(Call::Table) >= UNREADABLE_AFTER
        || run.out_of_time
        || since().flatten().any(is_rejected);
    match (deciding.late, of_table, table_was_silent) {
        (false, true, _) | (true, true, true) => Ok(Origin::Either),
        (false, false, _) | (true, false, true) => Ok(Origin::Image),
        (true, true, false) => Ok(Origin::Table),
        (true, false, false) => {
            Err(format!("v{version} is a late record's, and the table has said something else"))
        }
    }
}
