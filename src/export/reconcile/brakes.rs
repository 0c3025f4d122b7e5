//! The brakes bound how much a chain of runs deletes and rewrites in a namespace. So a repair that is pointed
//! at the wrong namespace, or at a half-restored table, does no harm. What would exceed a brake is not begun,
//! none of it. Pure.

use serde::{Deserialize, Serialize};

use super::report::{Change, Changes};

/// Keys that a chain may delete in a small namespace.
const MIN_DELETES: u64 = 100;
/// The share of the keys of ours that a chain may delete in a larger namespace, in percent.
const DELETES_PERCENT: u64 = 2;
/// Keys that a chain may rewrite in a small namespace.
const MIN_REWRITES: u64 = 1_000;
/// The share of the desired keys that a chain may rewrite in a larger namespace, in percent.
const REWRITES_PERCENT: u64 = 30;

/// What a chain has seen of one namespace, and let through its brakes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Listed keys of ours.
    pub ours: u64,
    pub desired: u64,
    pub let_through: Changes,
}

impl Tally {
    /// Lets through changes of this many keys, all or none. What is let through counts as done. `raised` are the
    /// numbers to which the request raises the brakes. Where the pass found no index item, the table may be emptied
    /// or the wrong one: then nothing is deleted, whatever is raised.
    pub fn ask_for(
        &mut self,
        change: Change,
        keys: u64,
        raised: Changes,
        table_has_indexes: bool,
    ) -> bool {
        let (min, all, percent) = match change {
            Change::Delete => (MIN_DELETES, self.ours, DELETES_PERCENT),
            Change::Rewrite => (MIN_REWRITES, self.desired, REWRITES_PERCENT),
        };
        let limit = min.max(all.saturating_mul(percent) / 100).max(raised[change]);
        let may_change = change == Change::Rewrite || table_has_indexes;
        let left = if may_change { limit.saturating_sub(self.let_through[change]) } else { 0 };
        let lets_through = keys <= left;
        if lets_through {
            self.let_through[change] += keys;
        }
        lets_through
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use enum_map::enum_map;

    fn changes(delete: u64, rewrite: u64) -> Changes {
        enum_map! { Change::Delete => delete, Change::Rewrite => rewrite }
    }

    fn seen(ours: u64, desired: u64) -> Tally {
        Tally { ours, desired, ..Tally::default() }
    }

    #[test]
    fn a_chain_may_change_keys_up_to_its_brake_and_not_one_more() {
        let nothing_raised = changes(0, 0);
        let all = u64::MAX;
        let done = Tally { let_through: changes(60, 1_500), ..Tally::default() };
        for (name, tally, has_indexes, raised, (deletes, rewrites)) in [
            ("a small namespace", seen(5_049, 3_336), true, nothing_raised, (100, 1_000)),
            ("just larger", seen(5_050, 3_337), true, nothing_raised, (101, 1_001)),
            ("a larger one", seen(10_050, 10_000), true, nothing_raised, (201, 3_000)),
            ("huge numbers", seen(all, all), true, nothing_raised, (all / 100, all / 100)),
            ("raised", seen(0, 0), true, changes(4_002, 4_003), (4_002, 4_003)),
            ("raised to less", seen(0, 0), true, changes(99, 999), (100, 1_000)),
            ("raised without an end", seen(0, 0), true, changes(all, all), (all, all)),
            ("no index items", seen(10_050, 0), false, nothing_raised, (0, 1_000)),
            ("no index items, raised", seen(10_050, 0), false, changes(all, all), (0, all)),
            ("some is done", done, true, changes(2_000, 2_000), (1_940, 500)),
            ("all is done", done, true, nothing_raised, (40, 0)),
        ] {
            for (change, most) in [(Change::Delete, deletes), (Change::Rewrite, rewrites)] {
                let mut after = tally;
                if most < all {
                    let lets_more = after.ask_for(change, most + 1, raised, has_indexes);
                    assert!(!lets_more, "{name}, {change:?}");
                    assert_eq!(after, tally, "{name}, {change:?}: nothing of it is begun");
                }
                assert!(after.ask_for(change, most, raised, has_indexes), "{name}, {change:?}");
                let let_through = after.let_through[change] - tally.let_through[change];
                assert_eq!(let_through, most, "{name}, {change:?}: what follows has less left");
            }
        }
    }
}
