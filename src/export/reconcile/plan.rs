//! What a section's rows come to: how many keys there are of each class, and what the brakes let
//! through. Every number is known here, before anything is looked at or sent. Pure.

use super::Reconcile;
use super::brakes::Brakes;
use super::part::Section;
use super::progress::{Allowed, Tally};
use super::report::{Class, Counts, Refused};
use super::rows::number;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub counts: Counts,
    pub allowed: Allowed,
    pub refused: Refused,
    /// The tally with this section. What is let through counts as done, also by an audit: the brakes
    /// of the parts after it are those that a repair would have.
    pub tally: Tally,
}

/// Plans a section, after the chain has seen and let through so much of its namespace.
pub fn plan(section: &Section, has_indexes: bool, before: Tally, request: &Reconcile) -> Plan {
    let mut counts = section.rows.counts();
    counts[Class::Rejected] = section.rejected;
    counts[Class::Dangling] = number(section.dangling().count());
    for class in [Class::Orphaned, Class::Withheld] {
        counts[class] = section.count_unclaimed(class);
    }
    let mut tally = Tally {
        ours: before.ours + section.rows.ours(),
        desired: before.desired + counts[Class::Desired],
        ..before
    };
    let (orphaned, rewrites) =
        (counts[Class::Orphaned], section.rows.rewrites(request.raised.takes_keys()));
    let brakes = Brakes::new(tally, has_indexes, request.raised);
    let all_or_none = |keys: u64, brake: u64| if keys <= brake { keys } else { 0 };
    let deletes = all_or_none(orphaned, brakes.deletes);
    let allowed = Allowed {
        writes: true,
        rewrites: all_or_none(rewrites, brakes.rewrites),
        deletes,
        more_deletes: brakes.deletes - deletes,
    };
    let refused = Refused { delete: orphaned - deletes, rewrite: rewrites - allowed.rewrites };
    tally.deleted += deletes;
    tally.rewritten += allowed.rewrites;
    Plan { counts, allowed, refused, tally }
}
