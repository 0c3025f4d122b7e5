//! What a section's rows come to: how many keys there are of each class, and what the brakes let
//! through. Every number is known here, before anything is looked at or sent. Pure.

use super::brakes::{Brakes, Raised};
use super::part::Section;
use super::progress::{Allowed, Tally};
use super::report::{Class, Counts, Refused};

pub struct Plan {
    pub counts: Counts,
    pub allowed: Allowed,
    pub refused: Refused,
}

/// Plans a section, and adds it to what the chain has seen and let through. What is let through counts
/// as done, also by an audit: the brakes of the parts after it are those that a repair would have.
pub fn plan(section: &Section, has_indexes: bool, tally: &mut Tally, raised: Raised) -> Plan {
    let mut counts = section.rows.counts();
    counts[Class::Rejected] = section.rejected;
    counts[Class::Dangling] = section.dangling().count() as u64;
    tally.ours += section.rows.ours();
    tally.desired += counts[Class::Desired];
    let brakes = Brakes::new(*tally, has_indexes, raised);
    let all_or_none = |keys: u64, brake: u64| if keys <= brake { keys } else { 0 };
    let (orphaned, to_rewrite) =
        (counts[Class::Orphaned], section.rows.rewrites(raised.takes_keys()));
    let deletes = all_or_none(orphaned, brakes.deletes);
    let rewrites = all_or_none(to_rewrite, brakes.rewrites);
    tally.deleted += deletes;
    tally.rewritten += rewrites;
    let more_deletes = brakes.deletes - deletes;
    Plan {
        counts,
        allowed: Allowed { writes: true, rewrites, deletes, more_deletes },
        refused: Refused { delete: orphaned - deletes, rewrite: to_rewrite - rewrites },
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
