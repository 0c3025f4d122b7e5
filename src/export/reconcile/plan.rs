//! What a section's rows come to: how many keys there are of each class, and what the brakes let
//! through. Every number is known here, before anything is looked at or sent. Pure.

use super::Reconcile;
use super::brakes::{Brakes, Raised};
use super::part::Section;
use super::progress::{Allowed, Tally};
use super::report::{Class, Counts, Refused};

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
    counts[Class::Dangling] = section.dangling().count() as u64;
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

/// Plans what is left of a section's repair, by what has changed since the brakes let it through;
/// answers with what they refuse now. A table that has been emptied deletes nothing, and keys that have
/// become stale are rewritten only as far as the chain may.
pub fn plan_again(
    section: &Section,
    has_indexes: bool,
    tally: &mut Tally,
    left: &mut Allowed,
    raised: Raised,
) -> Refused {
    let mut refused = Refused::default();
    if !has_indexes {
        left.more_deletes = 0;
        refused.delete = std::mem::take(&mut left.deletes);
    }
    let rewrites = section.rows.rewrites(raised.takes_keys());
    let more = rewrites.saturating_sub(left.rewrites);
    if left.rewrites > 0 && more > Brakes::new(*tally, has_indexes, raised).rewrites {
        left.rewrites = 0;
        refused.rewrite = rewrites;
    } else if left.rewrites > 0 {
        left.rewrites += more;
        tally.rewritten += more;
    }
    refused
}
