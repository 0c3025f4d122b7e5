//! What a section's rows come to: how many keys there are of each class, and what the brakes let
//! through. Every number is known here, before anything is looked at or sent. Pure.

use super::Reconcile;
use super::brakes::Brakes;
use super::owners::{Fate, Owners};
use super::part::Section;
use super::progress::{Allowed, Tally};
use super::report::{Class, Counts, Refused};
use super::rows::{Unclaimed, number};
use crate::ports::Namespace;

/// The plan for a section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// What was found.
    pub counts: Counts,
    /// What the brakes let through.
    pub allowed: Allowed,
    pub refused: Refused,
    /// The tally with this section. An audit counts as done what a repair would do, for the brakes of
    /// the parts after it.
    pub tally: Tally,
}

/// Plans a section, after the chain has seen and done so much of its namespace.
pub fn plan(
    section: &Section,
    owners: &Owners,
    has_indexes: bool,
    before: Tally,
    request: &Reconcile,
) -> Plan {
    let mut counts = section.rows.counts();
    counts[Class::Rejected] = section.rejected;
    let is_held = |index_id: &&String| section.rows.holds(index_id);
    counts[Class::Dangling] = number(section.pointed_at.iter().filter(|id| !is_held(id)).count());
    for row in section.rows.unclaimed() {
        if let Some(class) = class_of(section.namespace, owners, row) {
            counts[class] += 1;
        }
    }
    let mut tally = Tally {
        ours: before.ours + section.rows.ours(),
        desired: before.desired + counts[Class::Desired],
        ..before
    };
    let taken = if request.raised.takes_keys() { section.rows.taken() } else { 0 };
    let (orphaned, rewrites) = (counts[Class::Orphaned], counts[Class::Stale] + taken);
    let brakes = Brakes::new(tally, has_indexes, request.raised);
    let deletes = brakes.allow_deletes(orphaned);
    let allowed = Allowed {
        writes: true,
        rewrites: brakes.allow_rewrites(rewrites),
        deletes: if deletes { orphaned } else { 0 },
        more_deletes: brakes.deletes_after(if deletes { orphaned } else { 0 }),
    };
    let refused = Refused {
        delete: orphaned - allowed.deletes,
        rewrite: if allowed.rewrites { 0 } else { rewrites },
    };
    if !request.apply {
        tally.deleted += allowed.deletes;
        tally.rewritten += rewrites - refused.rewrite;
    }
    Plan { counts, allowed, refused, tally }
}

/// The class of a key of ours that no item asks for; none where it is kept for an item that can't be
/// exported.
pub fn class_of(namespace: Namespace, owners: &Owners, row: Unclaimed) -> Option<Class> {
    let fate = match namespace {
        Namespace::Settings => owners.fate(row),
        // An alias points at settings.
        Namespace::QueryConfigs => Fate::Orphaned,
    };
    match fate {
        Fate::Orphaned => Some(Class::Orphaned),
        Fate::Withheld => Some(Class::Withheld),
        Fate::Kept => None,
    }
}
