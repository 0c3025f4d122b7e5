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
    /// The gateway of a cell fails.
    DeadCell,
    /// Its owners have repaired it.
    CellRepaired,
    /// A record fails again and again.
    StuckShard,
    /// The owners of the table have given a permission back.
    PermissionBack,
    /// KV holds no key any more.
    AllKeysGone,
    /// Somebody has the Cloudflare token, and uses it.
    LeakedToken,
    /// Who can log in to Cloudflare has created another token.
    NewToken,
    /// Who can log in to Cloudflare has revoked the leaked token.
    OldTokenRevoked,
    /// The owners of the API keys service have given all accounts new keys.
    NewApiKeys,
    /// A release crashes.
    BadRelease,
    /// Somebody has gone back to the release before.
    ReleaseBefore,
    /// A table that is half restored lacks many items.
    HalfRestored,
    /// Its owners have ended the restore.
    Restored,
    /// Cloudflare refuses all requests.
    TooManyRequests,
    /// Its five minutes are over.
    LimitOver,
}

impl Step {
    /// All of them, each incident before what helps with it.
    pub const ALL: [Self; 15] = [
        Self::DeadCell,
        Self::CellRepaired,
        Self::StuckShard,
        Self::PermissionBack,
        Self::AllKeysGone,
        Self::LeakedToken,
        Self::NewToken,
        Self::OldTokenRevoked,
        Self::NewApiKeys,
        Self::BadRelease,
        Self::ReleaseBefore,
        Self::HalfRestored,
        Self::Restored,
        Self::TooManyRequests,
        Self::LimitOver,
    ];

    /// The step with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|step| step.name() == name)
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::DeadCell => "dead-cell",
            Self::CellRepaired => "cell-repaired",
            Self::StuckShard => "stuck-shard",
            Self::PermissionBack => "permission-back",
            Self::AllKeysGone => "all-keys-gone",
            Self::LeakedToken => "leaked-token",
            Self::NewToken => "new-token",
            Self::OldTokenRevoked => "old-token-revoked",
            Self::NewApiKeys => "new-api-keys",
            Self::BadRelease => "bad-release",
            Self::ReleaseBefore => "release-before",
            Self::HalfRestored => "half-restored",
            Self::Restored => "restored",
            Self::TooManyRequests => "too-many-requests",
            Self::LimitOver => "limit-over",
        }
    }

    /// What happens, for a list of the steps.
    pub fn what(self) -> &'static str {
        match self {
            Self::DeadCell => "a cell's gateway fails",
            Self::CellRepaired => "  its owners have repaired it",
            Self::StuckShard => "a record fails again and again, and changes wait behind it",
            Self::PermissionBack => "  the owners of the table have given a permission back",
            Self::AllKeysGone => "KV holds no key any more",
            Self::LeakedToken => "somebody has the Cloudflare token, and uses it",
            Self::NewToken => "  who can log in to Cloudflare has created another token",
            Self::OldTokenRevoked => "  the same person has revoked the leaked token",
            Self::NewApiKeys => "  the API keys service has given all accounts new API keys",
            Self::BadRelease => "a release crashes",
            Self::ReleaseBefore => "  `make rollback` has gone back to the one before",
            Self::HalfRestored => "the table lacks many items, and a repair was refused",
            Self::Restored => "  the owners of the table have ended the restore",
            Self::TooManyRequests => "Cloudflare answers 429",
            Self::LimitOver => "  its five minutes are over",
        }
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
            Self::Restored => Ok(steps::restored(stack)),
            Self::TooManyRequests => steps::too_many_requests(stack).await,
            Self::LimitOver => Ok(steps::limit_over(stack)),
        }
    }
}
