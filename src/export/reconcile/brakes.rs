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

impl Allowed {
    pub fn only(rewrites: u64) -> Self {
        Self { rewrites, ..Self::default() }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING_RAISED: Raised = Raised { deletes: None, rewrites: None };

    fn raised(to: u64) -> Raised {
        Raised { deletes: Some(to), rewrites: Some(to) }
    }

    fn seen(ours: u64, desired: u64) -> Tally {
        Tally { ours, desired, ..Tally::default() }
    }

    #[test]
    fn how_much_a_chain_may_delete_and_rewrite() {
        let done = Tally { deleted: 60, rewritten: 1_500, ..Tally::default() };
        for (name, tally, has_indexes, raised, expected) in [
            ("a small namespace", seen(5_049, 3_336), true, NOTHING_RAISED, (100, 1_000)),
            ("just larger", seen(5_050, 3_337), true, NOTHING_RAISED, (101, 1_001)),
            ("a larger one", seen(10_050, 10_000), true, NOTHING_RAISED, (201, 3_000)),
            (
                "huge numbers",
                seen(u64::MAX, u64::MAX),
                true,
                NOTHING_RAISED,
                (u64::MAX / 100, u64::MAX / 100),
            ),
            ("raised", seen(0, 0), true, raised(4_002), (4_002, 4_002)),
            ("raised to less", seen(0, 0), true, raised(0), (100, 1_000)),
            ("raised without an end", seen(0, 0), true, raised(u64::MAX), (u64::MAX, u64::MAX)),
            ("no index items", seen(10_050, 0), false, NOTHING_RAISED, (0, 1_000)),
            ("no index items, raised", seen(10_050, 0), false, raised(u64::MAX), (0, u64::MAX)),
            ("some is done", done, true, raised(2_000), (1_940, 500)),
            ("all is done", done, true, NOTHING_RAISED, (40, 0)),
        ] {
            let Changes { delete, rewrite } = brakes(tally, has_indexes, raised);
            assert_eq!((delete, rewrite), expected, "{name}");
        }
    }

    #[test]
    fn what_a_brake_does_not_let_through_whole_is_refused_whole() {
        for (delete, rewrite, allowed, spare, refused) in [
            (0, 0, (0, 0), 100, (0, 0)),
            (99, 1_000, (99, 1_000), 1, (0, 0)),
            (100, 1_001, (100, 0), 0, (0, 1_001)),
            (101, 1_000, (0, 1_000), 100, (101, 0)),
        ] {
            let mut tally = Tally::default();
            let to_do = Changes { delete, rewrite };
            let (allows, refuses) = ask(&mut tally, true, NOTHING_RAISED, to_do);
            assert_eq!((allows.deletes, allows.rewrites), allowed, "{to_do:?}");
            assert_eq!(allows.spare_deletes, spare, "{to_do:?}");
            assert_eq!((refuses.delete, refuses.rewrite), refused, "{to_do:?}");
            assert_eq!((tally.deleted, tally.rewritten), allowed, "{to_do:?}");
        }
    }

    #[test]
    fn what_was_let_through_counts_for_the_parts_that_follow() {
        let mut tally = Tally::default();
        let part = Changes { delete: 60, rewrite: 600 };
        assert!(ask(&mut tally, true, NOTHING_RAISED, part).1.are_none());
        let (allowed, refused) = ask(&mut tally, true, NOTHING_RAISED, part);
        assert_eq!((refused, allowed.spare_deletes), (part, 40));
    }
}
