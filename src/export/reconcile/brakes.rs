//! Bounds on what one run deletes and rewrites, so that a repair that is pointed at the wrong
//! namespace, or at a half-restored table, does no harm. Pure.

use serde::Serialize;

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

/// What a run may still do in one namespace. What would exceed it is not begun, none of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Brakes {
    deletes: u64,
    rewrites: u64,
}

/// What a brake has refused, in keys of both namespaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Deletes.
    pub delete: u64,
    /// Rewrites.
    pub rewrite: u64,
}

impl Brakes {
    /// The brakes of a namespace of which `ours` keys of ours were listed and that should hold
    /// `desired` keys. A table without any index item may be emptied or the wrong one: then nothing
    /// is deleted, whatever is raised.
    pub fn new(ours: u64, desired: u64, table_has_indexes: bool, raised: Raised) -> Self {
        let limit = |min: u64, all: u64, percent: u64, raised: Option<u64>| {
            let share = all.saturating_mul(percent) / 100;
            min.max(share).max(raised.unwrap_or_default())
        };
        let deletes = limit(MIN_DELETES, ours, DELETES_PERCENT, raised.deletes);
        Self {
            deletes: if table_has_indexes { deletes } else { 0 },
            rewrites: limit(MIN_REWRITES, desired, REWRITES_PERCENT, raised.rewrites),
        }
    }

    /// Whether so many keys may be deleted, all or none; counts them, here or as refused.
    pub fn allow_deletes(&mut self, keys: u64, refused: &mut Refused) -> bool {
        allow(keys, &mut self.deletes, &mut refused.delete)
    }

    /// Whether so many keys may be rewritten, all or none; counts them, here or as refused.
    pub fn allow_rewrites(&mut self, keys: u64, refused: &mut Refused) -> bool {
        allow(keys, &mut self.rewrites, &mut refused.rewrite)
    }
}

fn allow(keys: u64, left: &mut u64, refused: &mut u64) -> bool {
    match left.checked_sub(keys) {
        Some(rest) => {
            *left = rest;
            true
        }
        None => {
            *refused += keys;
            false
        }
    }
}

impl Refused {
    /// Everything that was refused.
    pub fn sum(&self) -> u64 {
        self.delete + self.rewrite
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING_RAISED: Raised = Raised { deletes: None, rewrites: None };

    #[test]
    fn a_small_namespace_allows_100_deletes_and_1000_rewrites() {
        let mut refused = Refused::default();
        let brakes = Brakes::new(5_000, 3_333, true, NOTHING_RAISED);
        assert!(brakes.clone().allow_deletes(100, &mut refused));
        assert!(brakes.clone().allow_rewrites(1_000, &mut refused));
        assert_eq!(refused, Refused::default());
        assert!(!brakes.clone().allow_deletes(101, &mut refused));
        assert!(!brakes.clone().allow_rewrites(1_001, &mut refused));
        assert_eq!(refused, Refused { delete: 101, rewrite: 1_001 });
    }

    #[test]
    fn a_larger_one_allows_its_share() {
        let mut refused = Refused::default();
        let brakes = Brakes::new(10_050, 10_000, true, NOTHING_RAISED);
        assert!(brakes.clone().allow_deletes(201, &mut refused));
        assert!(!brakes.clone().allow_deletes(202, &mut refused));
        assert!(brakes.clone().allow_rewrites(3_000, &mut refused));
        assert!(!brakes.clone().allow_rewrites(3_001, &mut refused));
    }

    #[test]
    fn a_request_raises_a_brake_and_never_lowers_it() {
        let allows = |raised, keys| {
            let raised = Raised { deletes: Some(raised), rewrites: Some(raised) };
            let brakes = Brakes::new(0, 0, true, raised);
            let mut refused = Refused::default();
            (
                brakes.clone().allow_deletes(keys, &mut refused),
                brakes.clone().allow_rewrites(keys, &mut refused),
            )
        };
        assert_eq!(allows(4_002, 4_002), (true, true));
        assert_eq!(allows(4_002, 4_003), (false, false));
        assert_eq!(allows(0, 100), (true, true));
        assert_eq!(allows(u64::MAX, u64::MAX), (true, true));
    }

    #[test]
    fn a_table_without_indexes_deletes_nothing_whatever_is_raised() {
        let raised = Raised { deletes: Some(u64::MAX), rewrites: None };
        let mut brakes = Brakes::new(1_000_000, 0, false, raised);
        assert!(!brakes.allow_deletes(1, &mut Refused::default()));
        assert!(brakes.allow_deletes(0, &mut Refused::default()));
    }

    #[test]
    fn what_was_allowed_counts_for_what_comes_after_it() {
        let mut brakes = Brakes::new(0, 0, true, NOTHING_RAISED);
        let mut refused = Refused::default();
        assert!(brakes.allow_deletes(60, &mut refused));
        assert!(!brakes.allow_deletes(41, &mut refused));
        assert!(brakes.allow_deletes(40, &mut refused));
        assert_eq!(refused.delete, 41);
    }
}
