//! Drills: incidents on the local stack, for people on call to practise on with the runbook.
//!
//! A step is an incident, or what somebody else does when the runbook says to ask for it.

mod alarms;
mod steps;

use crate::lambda::Function;
use crate::stack::Stack;

/// The steps by their names, with what happens, each incident before what helps with it.
pub const STEPS: [(&str, &str); 16] = [
    ("dead-cell", "a cell's gateway fails"),
    ("cell-repaired", "  its owners have repaired it"),
    ("stuck-shard", "a record fails again and again, and changes wait"),
    ("permission-back", "  the table's owners gave a permission back"),
    ("all-keys-gone", "KV holds no key any more"),
    ("leaked-token", "somebody has the Cloudflare token, and uses it"),
    ("new-token", "  who can log in to Cloudflare has created another token"),
    ("old-token-revoked", "  the same person has revoked the old one"),
    ("new-api-keys", "  all accounts have got new API keys"),
    ("bad-release", "a release crashes"),
    ("release-before", "  `make rollback` has gone back"),
    ("half-restored", "the table lacks items, and a repair was refused"),
    ("held-removals", "a script deletes very many indexes"),
    ("restored", "  the table's owners have put the items of either back"),
    ("too-many-requests", "Cloudflare answers 429"),
    ("limit-over", "  its five minutes are over"),
];

/// Makes a step happen. Returns what people on call get to know of it.
///
/// # Errors
///
/// If there is no such step, or if the stream has not carried the items of the incident to KV,
/// because another incident is not over.
pub async fn play(step: &str, stack: &Stack, function: &Function) -> Result<String, String> {
    Ok(match step {
        "dead-cell" => steps::dead_cell(stack).await?,
        "cell-repaired" => steps::cell_repaired(stack),
        "stuck-shard" => steps::stuck_shard(stack).await?,
        "permission-back" => steps::permission_back(stack),
        "all-keys-gone" => steps::all_keys_gone(stack).await?,
        "leaked-token" => steps::leaked_token(stack).await?,
        "new-token" => steps::new_token(stack),
        "old-token-revoked" => steps::old_token_revoked(stack),
        "new-api-keys" => steps::new_api_keys(stack),
        "bad-release" => steps::bad_release(stack, function).await?,
        "release-before" => steps::release_before(function),
        "half-restored" => steps::half_restored(stack),
        "held-removals" => steps::held_removals(stack).await?,
        "restored" => steps::restored(stack),
        "too-many-requests" => steps::too_many_requests(stack).await?,
        "limit-over" => steps::limit_over(stack),
        _ => return Err(format!("there is no step {step}: `make drill` lists them")),
    })
}
