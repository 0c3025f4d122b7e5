//! Bounds on what one run deletes and rewrites, so that a repair that is pointed at the wrong
//! namespace, or at a half-restored table, does no harm. Pure.

use super::progress::Tally;

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

/// What a chain of runs may still do in one namespace. What would exceed it is not begun, none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brakes {
    deletes: u64,
    rewrites: u64,
}

impl Brakes {
    /// The brakes of a namespace of which the chain has seen and done so much. A table without any
    /// index item may be emptied or the wrong one: then nothing is deleted, whatever is raised.
    pub fn new(tally: Tally, table_has_indexes: bool, raised: Raised) -> Self {
        let limit = |min: u64, all: u64, percent: u64, raised: Option<u64>| {
            let share = all.saturating_mul(percent) / 100;
            min.max(share).max(raised.unwrap_or_default())
        };
        let deletes = limit(MIN_DELETES, tally.ours, DELETES_PERCENT, raised.deletes);
        let rewrites = limit(MIN_REWRITES, tally.desired, REWRITES_PERCENT, raised.rewrites);
        Self {
            deletes: if table_has_indexes { deletes.saturating_sub(tally.deleted) } else { 0 },
            rewrites: rewrites.saturating_sub(tally.rewritten),
        }
    }

    /// Whether so many keys may be deleted, all or none.
    pub fn allow_deletes(self, keys: u64) -> bool {
        keys <= self.deletes
    }

    /// How many more may be deleted after these.
    pub fn deletes_after(self, keys: u64) -> u64 {
        self.deletes.saturating_sub(keys)
    }

    /// Whether so many keys may be rewritten, all or none.
    pub fn allow_rewrites(self, keys: u64) -> bool {
        keys <= self.rewrites
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING_RAISED: Raised = Raised { deletes: None, rewrites: None };

    fn seen(ours: u64, desired: u64) -> Tally {
        Tally { ours, desired, ..Tally::default() }
    }

    #[test]
    fn a_small_namespace_allows_100_deletes_and_1000_rewrites() {
        let brakes = Brakes::new(seen(5_000, 3_333), true, NOTHING_RAISED);
        assert!(brakes.allow_deletes(100) && !brakes.allow_deletes(101));
        assert!(brakes.allow_rewrites(1_000) && !brakes.allow_rewrites(1_001));
    }

    #[test]
    fn a_larger_one_allows_its_share() {
        let brakes = Brakes::new(seen(10_050, 10_000), true, NOTHING_RAISED);
        assert!(brakes.allow_deletes(201) && !brakes.allow_deletes(202));
        assert!(brakes.allow_rewrites(3_000) && !brakes.allow_rewrites(3_001));
    }

    #[test]
    fn a_request_raises_a_brake_and_never_lowers_it() {
        let allows = |raised, keys| {
            let raised = Raised { deletes: Some(raised), rewrites: Some(raised) };
            let brakes = Brakes::new(seen(0, 0), true, raised);
            (brakes.allow_deletes(keys), brakes.allow_rewrites(keys))
        };
        assert_eq!(allows(4_002, 4_002), (true, true));
        assert_eq!(allows(4_002, 4_003), (false, false));
        assert_eq!(allows(0, 100), (true, true));
        assert_eq!(allows(u64::MAX, u64::MAX), (true, true));
    }

    #[test]
    fn a_table_without_indexes_deletes_nothing_whatever_is_raised() {
        let raised = Raised { deletes: Some(u64::MAX), rewrites: None };
        let brakes = Brakes::new(seen(1_000_000, 0), false, raised);
        assert!(!brakes.allow_deletes(1) && brakes.allow_deletes(0));
    }

    #[test]
    fn what_the_chain_has_done_counts_for_what_comes_after_it() {
        let raised = Raised { deletes: None, rewrites: Some(2_000) };
        let tally = Tally { deleted: 60, rewritten: 1_500, ..seen(0, 0) };
        let brakes = Brakes::new(tally, true, raised);
        assert!(brakes.allow_deletes(40) && !brakes.allow_deletes(41));
        assert!(brakes.allow_rewrites(500) && !brakes.allow_rewrites(501));
        let more_than_allowed = Tally { deleted: 101, ..seen(0, 0) };
        assert!(!Brakes::new(more_than_allowed, true, raised).allow_deletes(1));
    }
}
