//! The brakes bound how much a chain of runs deletes and rewrites in a namespace. So a repair that is pointed
//! at the wrong namespace, or at a half-restored table, does no harm. What would exceed a brake is not begun,
//! none of it. Pure.

use serde::{Deserialize, Serialize};

use super::report::Changes;

/// Keys that a chain may delete in a small namespace.
const MIN_DELETES: u64 = 100;
/// The share of the keys of ours that a chain may delete in a larger namespace, in percent.
const DELETES_PERCENT: u64 = 2;
/// Keys that a chain may rewrite in a small namespace.
const MIN_REWRITES: u64 = 1_000;
/// The share of the desired keys that a chain may rewrite in a larger namespace, in percent.
const REWRITES_PERCENT: u64 = 30;

/// The numbers to which a request raises the brakes for its chain.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Raised {
    /// `delete_up_to`.
    pub deletes: Option<u64>,
    /// `rewrite_up_to`.
    pub rewrites: Option<u64>,
}

/// What a chain has seen of one namespace, and let through its brakes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Listed keys of ours.
    pub ours: u64,
    pub desired: u64,
    pub deleted: u64,
    pub rewritten: u64,
}

/// Returns the deletes and rewrites that a chain has left, given its tally. Where the pass found no index item,
/// the table may be emptied or the wrong one: then nothing is deleted, whatever is raised.
pub fn brakes(tally: Tally, table_has_indexes: bool, raised: Raised) -> Changes {
    let limit = |min: u64, all: u64, percent: u64, raised: Option<u64>| {
        let share = all.saturating_mul(percent) / 100;
        min.max(share).max(raised.unwrap_or_default())
    };
    let delete = limit(MIN_DELETES, tally.ours, DELETES_PERCENT, raised.deletes);
    let rewrite = limit(MIN_REWRITES, tally.desired, REWRITES_PERCENT, raised.rewrites);
    Changes {
        delete: if table_has_indexes { delete.saturating_sub(tally.deleted) } else { 0 },
        rewrite: rewrite.saturating_sub(tally.rewritten),
    }
}

/// What the brakes have let through of a part and what is still to be done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowed {
    pub rewrites: u64,
    pub deletes: u64,
    /// Keys that the repair itself leaves behind, and may delete beside the orphans.
    pub spare_deletes: u64,
}

/// Asks the brakes about the changes that a part needs. What is let through counts as done. Returns what is let
/// through, and what is refused.
pub fn ask(
    tally: &mut Tally,
    table_has_indexes: bool,
    raised: Raised,
    to_do: Changes,
) -> (Allowed, Changes) {
    let limits = brakes(*tally, table_has_indexes, raised);
    let all_or_none = |keys: u64, limit: u64| if keys <= limit { keys } else { 0 };
    let deletes = all_or_none(to_do.delete, limits.delete);
    let rewrites = all_or_none(to_do.rewrite, limits.rewrite);
    tally.deleted += deletes;
    tally.rewritten += rewrites;
    let allowed = Allowed { rewrites, deletes, spare_deletes: limits.delete - deletes };
    let refused = Changes { delete: to_do.delete - deletes, rewrite: to_do.rewrite - rewrites };
    (allowed, refused)
}
