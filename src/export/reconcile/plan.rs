//! What a section's rows come to: how many keys there are of each class, and what the brakes let
//! through. Every number is known here, before anything is looked at or sent. Pure.
//!
//! The brakes bound what one run deletes and rewrites, so that a repair that is pointed at the wrong
//! namespace, or at a half-restored table, does no harm. What would exceed a brake is not begun, none of
//! it.

use super::part::Section;
use super::progress::{Allowed, Tally};
use super::report::{Changes, Class, Counts};

/// Keys that a run may delete in a small namespace.
const MIN_DELETES: u64 = 100;
/// Keys that a run may delete of 100 listed ones, in a larger namespace.
const DELETES_PERCENT: u64 = 2;
/// Keys that a run may rewrite in a small namespace.
const MIN_REWRITES: u64 = 1_000;
/// Keys that a run may rewrite of 100 desired ones, in a larger namespace.
const REWRITES_PERCENT: u64 = 30;

/// The numbers to which a request raises the brakes for its run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Raised {
    /// `delete_up_to`.
    pub deletes: Option<u64>,
    /// `rewrite_up_to`; only with it are keys taken from another environment.
    pub rewrites: Option<u64>,
}

impl Raised {
    /// Whether keys are taken from another environment.
    pub fn takes_keys(self) -> bool {
        self.rewrites.is_some()
    }
}

/// How many keys a chain of runs may still delete and rewrite in a namespace of which it has seen and let
/// through so much. A table without any index item may be emptied or the wrong one: then nothing is
/// deleted, whatever is raised.
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

pub struct Plan {
    pub counts: Counts,
    pub allowed: Allowed,
    pub refused: Changes,
}

/// Plans a section, and adds it to what the chain has seen and let through. What is let through counts
/// as done, also by an audit: the brakes of the parts after it are those that a repair would have.
pub fn plan(section: &Section, has_indexes: bool, tally: &mut Tally, raised: Raised) -> Plan {
    let mut counts = section.rows.counts();
    counts[Class::Rejected] = section.rejected;
    counts[Class::Dangling] = section.dangling().count() as u64;
    tally.ours += section.rows.ours();
    tally.desired += counts[Class::Desired];
    let limits = brakes(*tally, has_indexes, raised);
    let all_or_none = |keys: u64, brake: u64| if keys <= brake { keys } else { 0 };
    let (orphaned, to_rewrite) =
        (counts[Class::Orphaned], section.rows.rewrites(raised.takes_keys()));
    let deletes = all_or_none(orphaned, limits.delete);
    let rewrites = all_or_none(to_rewrite, limits.rewrite);
    tally.deleted += deletes;
    tally.rewritten += rewrites;
    let more_deletes = limits.delete - deletes;
    Plan {
        counts,
        allowed: Allowed { writes: true, rewrites, deletes, more_deletes },
        refused: Changes { delete: orphaned - deletes, rewrite: to_rewrite - rewrites },
    }
}

/// Plans what is left of a section's repair, by what has changed since the brakes let it through;
/// answers with what they refuse now. A table that has been emptied deletes nothing, and keys that have
/// become stale are rewritten only as far as the chain may.
pub fn plan_again(
    section: &Section,
    has_indexes: bool,
    tally: &mut Tally,
    left: &mut Allowed,
    raised: Raised,
) -> Changes {
    let mut refused = Changes::default();
    if !has_indexes {
        left.more_deletes = 0;
        refused.delete = std::mem::take(&mut left.deletes);
    }
    let rewrites = section.rows.rewrites(raised.takes_keys());
    let more = rewrites.saturating_sub(left.rewrites);
    if left.rewrites > 0 && more > brakes(*tally, has_indexes, raised).rewrite {
        left.rewrites = 0;
        refused.rewrite = rewrites;
    } else if left.rewrites > 0 {
        left.rewrites += more;
        tally.rewritten += more;
    }
    refused
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::reconcile::rows::Claim;
    use crate::index::IndexRef;
    use crate::item::ItemKey;
    use crate::kv::{Digest, Metadata};

    const NOTHING_RAISED: Raised = Raised { deletes: None, rewrites: None };

    fn seen(ours: u64, desired: u64) -> Tally {
        Tally { ours, desired, ..Tally::default() }
    }

    fn left(tally: Tally, has_indexes: bool, raised: Raised) -> (u64, u64) {
        let Changes { delete, rewrite } = brakes(tally, has_indexes, raised);
        (delete, rewrite)
    }

    #[test]
    fn a_small_namespace_allows_100_deletes_and_1000_rewrites() {
        assert_eq!(left(seen(5_049, 3_336), true, NOTHING_RAISED), (100, 1_000));
    }

    #[test]
    fn a_larger_one_allows_its_share() {
        assert_eq!(left(seen(5_050, 3_337), true, NOTHING_RAISED), (101, 1_001));
        assert_eq!(left(seen(10_050, 10_000), true, NOTHING_RAISED), (201, 3_000));
    }

    #[test]
    fn a_request_raises_a_brake_and_never_lowers_it() {
        for (to, expected) in
            [(4_002, (4_002, 4_002)), (0, (100, 1_000)), (u64::MAX, (u64::MAX, u64::MAX))]
        {
            let raised = Raised { deletes: Some(to), rewrites: Some(to) };
            assert_eq!(left(seen(0, 0), true, raised), expected);
        }
    }

    #[test]
    fn a_table_without_indexes_deletes_nothing_whatever_is_raised() {
        let raised = Raised { deletes: Some(u64::MAX), rewrites: None };
        assert_eq!(left(seen(1_000_000, 0), false, raised), (0, 1_000));
    }

    #[test]
    fn what_the_chain_has_done_counts_for_what_comes_after_it() {
        let raised = Raised { deletes: None, rewrites: Some(2_000) };
        let tally = Tally { deleted: 60, rewritten: 1_500, ..seen(0, 0) };
        assert_eq!(left(tally, true, raised), (40, 500));
        let more_than_allowed = Tally { deleted: 101, ..seen(0, 0) };
        assert_eq!(left(more_than_allowed, true, raised).0, 0);
    }

    /// A section with so many orphans, stale keys, and keys that another environment has written.
    fn section(orphans: usize, stale: usize, taken: usize) -> Section {
        let mut section = Section::default();
        let index = IndexRef::parse("a", "i").unwrap();
        let kinds =
            [("orphan", orphans, "prod"), ("stale", stale, "prod"), ("taken", taken, "test")];
        for (kind, count, environment) in kinds {
            for key in (0..count).map(|number| format!("{kind}-{number}")) {
                let environment = Some(environment.to_owned());
                let metadata = Metadata { index: index.clone(), environment, digest: None };
                section.rows.list(&key, 1, Some(&metadata), "prod", None);
                if kind != "orphan" {
                    let claim = Claim::Value(Digest::of(b"new"));
                    section.rows.claim(&key, &index, &ItemKey::of_index(&index), claim);
                }
            }
        }
        section
    }

    #[test]
    fn what_a_brake_does_not_let_through_whole_is_refused_whole() {
        let raised = |deletes, rewrites| Raised { deletes, rewrites };
        for (keys, has_indexes, raised, allowed, refused) in [
            ((100, 1_000, 0), true, NOTHING_RAISED, (1_000, 100, 0), (0, 0)),
            ((101, 1_000, 0), true, NOTHING_RAISED, (1_000, 0, 100), (101, 0)),
            ((100, 1_001, 0), true, NOTHING_RAISED, (0, 100, 0), (0, 1_001)),
            ((101, 1_001, 0), true, raised(Some(103), Some(1_001)), (1_001, 101, 2), (0, 0)),
            ((3, 0, 0), false, raised(Some(103), None), (0, 0, 0), (3, 0)),
            ((0, 0, 7), true, NOTHING_RAISED, (0, 0, 100), (0, 0)),
            ((0, 0, 7), true, raised(None, Some(0)), (7, 0, 100), (0, 0)),
        ] {
            let mut tally = Tally::default();
            let plan = plan(&section(keys.0, keys.1, keys.2), has_indexes, &mut tally, raised);
            let Allowed { writes, rewrites, deletes, more_deletes } = plan.allowed;
            assert!(writes, "{keys:?}");
            assert_eq!((rewrites, deletes, more_deletes), allowed, "{keys:?}");
            assert_eq!((plan.refused.delete, plan.refused.rewrite), refused, "{keys:?}");
            assert_eq!((tally.rewritten, tally.deleted), (rewrites, deletes), "{keys:?}");
        }
    }

    #[test]
    fn a_section_adds_to_what_the_chain_has_seen_and_let_through() {
        let mut section = section(60, 2, 3);
        section.rejected = 4;
        section.pointed_at.insert("a-gone".to_owned());
        let mut tally = seen(10, 20);
        let first = plan(&section, true, &mut tally, NOTHING_RAISED);
        assert_eq!((first.counts[Class::Rejected], first.counts[Class::Dangling]), (4, 1));
        assert_eq!(tally, Tally { ours: 72, desired: 25, deleted: 60, rewritten: 2 });
        let second = plan(&section, true, &mut tally, NOTHING_RAISED);
        assert_eq!((second.refused.delete, second.allowed.more_deletes), (60, 40));
        assert_eq!(tally, Tally { ours: 134, desired: 30, deleted: 60, rewritten: 4 });
    }

    #[test]
    fn a_repair_that_goes_on_rewrites_what_became_stale_within_the_brake() {
        for (left, stale, rewritten, expected) in [
            (2, 5, 0, (5, 3, 0)),
            (2, 5, 997, (5, 1_000, 0)),
            (2, 5, 998, (0, 998, 5)),
            (5, 2, 0, (5, 0, 0)),
            (0, 5, 0, (0, 0, 0)),
            (0, 5, 998, (0, 998, 0)),
        ] {
            let mut tally = Tally { rewritten, ..Tally::default() };
            let mut left = Allowed { rewrites: left, ..Allowed::default() };
            let refused =
                plan_again(&section(0, stale, 0), true, &mut tally, &mut left, NOTHING_RAISED);
            let now = (left.rewrites, tally.rewritten, refused.rewrite);
            assert_eq!(now, expected, "{stale} of which {rewritten}");
        }
    }

    #[test]
    fn a_repair_that_goes_on_deletes_nothing_if_the_table_was_emptied() {
        for (has_indexes, expected) in [(true, (5, 9, 0)), (false, (0, 0, 5))] {
            let mut left = Allowed { deletes: 5, more_deletes: 9, ..Allowed::default() };
            let refused = plan_again(
                &section(5, 0, 0),
                has_indexes,
                &mut Tally::default(),
                &mut left,
                NOTHING_RAISED,
            );
            assert_eq!((left.deletes, left.more_deletes, refused.delete), expected);
        }
    }
}
