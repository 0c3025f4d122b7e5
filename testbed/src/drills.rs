//! Drills: incidents on the local stack, for people on call to practise on with the runbook.
//!
//! A [`Step`] is an incident, or what somebody else does when the runbook says to ask for it.

mod alarms;
mod steps;

use crate::lambda::Function;
use crate::stack::Stack;

/// A step of a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    DeadCell,
    CellRepaired,
    StuckShard,
    PermissionBack,
    AllKeysGone,
    LeakedToken,
    NewToken,
    OldTokenRevoked,
    NewApiKeys,
    BadRelease,
    ReleaseBefore,
    HalfRestored,
    HeldRemovals,
    Restored,
    TooManyRequests,
    LimitOver,
}

impl Step {
    /// All of them with their names and what happens, each incident before what helps with it.
    pub const ALL: [(Self, &'static str, &'static str); 16] = [
        (Self::DeadCell, "dead-cell", "a cell's gateway fails"),
        (Self::CellRepaired, "cell-repaired", "  its owners have repaired it"),
        (Self::StuckShard, "stuck-shard", "a record fails again and again, and changes wait"),
        (Self::PermissionBack, "permission-back", "  the table's owners gave a permission back"),
        (Self::AllKeysGone, "all-keys-gone", "KV holds no key any more"),
        (Self::LeakedToken, "leaked-token", "somebody has the Cloudflare token, and uses it"),
        (Self::NewToken, "new-token", "  who can log in to Cloudflare has created another token"),
        (Self::OldTokenRevoked, "old-token-revoked", "  the same person has revoked the old one"),
        (Self::NewApiKeys, "new-api-keys", "  all accounts have got new API keys"),
        (Self::BadRelease, "bad-release", "a release crashes"),
        (Self::ReleaseBefore, "release-before", "  `make rollback` has gone back"),
        (Self::HalfRestored, "half-restored", "the table lacks items, and a repair was refused"),
        (Self::HeldRemovals, "held-removals", "a script deletes very many indexes"),
        (Self::Restored, "restored", "  the table's owners have put the items of either back"),
        (Self::TooManyRequests, "too-many-requests", "Cloudflare answers 429"),
        (Self::LimitOver, "limit-over", "  its five minutes are over"),
    ];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find_map(|(step, its, _)| (its == name).then_some(step))
    }

    /// Makes it happen. Returns what people on call get to know of it.
    ///
    /// # Errors
    ///
    /// If the stream has not carried the items of the incident to KV, because another incident is
    /// not over.
    pub async fn play(self, stack: &Stack, function: &Function) -> Result<String, String> {
        match self {
            Self::DeadCell => steps::dead_cell(stack).await,
            Self::CellRepaired => Ok(steps::cell_repaired(stack)),
            Self::StuckShard => steps::stuck_shard(stack).await,
            Self::PermissionBack => Ok(steps::permission_back(stack)),
            Self::AllKeysGone => steps::all_keys_gone(stack).await,
            Self::LeakedToken => steps::leaked_token(stack).await,
            Self::NewToken => Ok(steps::new_token(stack)),
            Self::OldTokenRevoked => Ok(steps::old_token_revoked(stack)),
            Self::NewApiKeys => Ok(steps::new_api_keys(stack)),
            Self::BadRelease => steps::bad_release(stack, function).await,
            Self::ReleaseBefore => Ok(steps::release_before(function)),
            Self::HalfRestored => Ok(steps::half_restored(stack)),
            Self::HeldRemovals => steps::held_removals(stack).await,
            Self::Restored => Ok(steps::restored(stack)),
            Self::TooManyRequests => steps::too_many_requests(stack).await,
            Self::LimitOver => Ok(steps::limit_over(stack)),
        }
    }
}
