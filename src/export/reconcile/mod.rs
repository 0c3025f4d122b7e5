//! Reconcile: makes KV equal to the table, from a listing of the one and a pass over the other.
//!
//! A namespace is compared in parts, the settings first. Of each part: list (as many of KV's next
//! keys as memory and time allow) → scan (what items ask for of these keys) → with `apply`: write
//! what is missing or stale → look at the orphans → brakes → settle them. What would exceed a brake
//! is not begun. Nothing is deleted on the scan's or the listing's word: [`settle`] and
//! [`query_config_removal`] look for themselves. When time or Cloudflare's limit of requests get
//! short, the run ends with a `continue`, with which the next one goes on at the next part.
//!
//! | KV has the key | items that ask for it | class |
//! | --- | --- | --- |
//! | no | one that can be exported | missing |
//! | with another digest, or without our metadata | one that can be exported | stale |
//! | named for another account, in a run of one account | one of this account | stale, or conflicting if settling says so |
//! | yes or no | one that can't be exported | (stays) |
//! | with another environment's metadata | one | conflicting; written only if the request raises the brake on rewrites |
//! | with our metadata | none | orphaned, or withheld if settling says so |
//! | without our metadata, or with another environment's | none | foreign |
//!
//! [`settle`]: super::settle
//! [`query_config_removal`]: super::query_config_removal

mod asks;
mod brakes;
mod compare;
mod dangling;
mod ending;
mod findings;
mod kept_claims;
pub(super) mod listed;
mod orphaned_query_configs;
mod orphans;
mod part;
mod part_keys;
mod progress;
mod repair;
mod repaired_items;
mod report;
mod row;
mod run;
mod scan;

use tokio::time::Instant;

pub use self::brakes::Raised;
pub use self::progress::Progress;
pub use self::report::{Counts, Refused, Report};

use self::progress::Place;
use self::run::Run;
use super::invocation::Invocation;
use super::table::ReadError;
use crate::error_chain::Chain;
use crate::ports::{KvError, Namespace, Services};

/// The namespaces in the order in which they are compared.
const NAMESPACES: [Namespace; 2] = [Namespace::Settings, Namespace::QueryConfigs];

/// What a reconcile asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconcile {
    /// Whether to repair what differs.
    pub apply: bool,
    /// The one account to look at; all of them where absent.
    pub system_account_id: Option<String>,
    /// The numbers to which the brakes are raised.
    pub raised: Raised,
    /// How far the runs before this one came, if it goes on with their work.
    pub progress: Option<Progress>,
}

/// Why a part could not be compared. The error of a run's first part is the run's; that of a later one
/// ends it early.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileError {
    /// Cloudflare refuses the token.
    #[error(transparent)]
    CloudflareAuthRejected(KvError),
    /// The table could not be read to its end.
    #[error("the pass over the table stopped after {items} items")]
    PassStopped {
        /// How many items had been read.
        items: usize,
        /// Why.
        #[source]
        error: ReadError,
    },
    /// KV could not be listed as far as the first part goes.
    #[error("the listing of {namespace:?} stopped after {keys} keys")]
    ListingStopped {
        /// Of which namespace.
        namespace: Namespace,
        /// How many keys had been listed.
        keys: u64,
        /// Why.
        #[source]
        error: KvError,
    },
}

/// Compares KV with the table, and repairs what differs if asked to.
pub async fn reconcile<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Reconcile,
) -> Result<Report, ReconcileError> {
    let mut run = Run::new(invocation, request);
    let mut compared_parts = 0;
    let begins_at = run.progress.place.clone();
    let mut next = Some(begins_at.clone());
    while let Some(place) = next.take() {
        run.progress.place = place.clone();
        let began = Instant::now();
        let seen_before = *run.progress.tally(place.namespace);
        match run.compare_and_mend(&place).await {
            Ok(part) => next = part.next.or_else(|| beginning_after(place.namespace)),
            Err(error) if compared_parts == 0 => return Err(error),
            Err(error) => {
                run.stop(format!("the next part could not be compared: {}", Chain(&error)));
                return Ok(run.finish(Some(place)));
            }
        }
        compared_parts += 1;
        if invocation.is_out_of_time() {
            if run.has_mended() || place != begins_at {
                // What was compared and not mended is compared again.
                run.progress.forget_part(place.namespace, seen_before);
                return Ok(run.finish(Some(place)));
            }
            // There is no getting on with this part: the others must not wait for it.
            return Ok(run.finish(next));
        }
        let left = invocation.deadline.saturating_duration_since(Instant::now());
        if next.is_some() && left < began.elapsed() {
            run.stop("the time left is too short for another part".to_owned());
            return Ok(run.finish(next));
        }
    }
    Ok(run.finish(None))
}

fn beginning_after(namespace: Namespace) -> Option<Place> {
    let next = NAMESPACES.iter().skip_while(|name| **name != namespace).nth(1)?;
    Some(Place::beginning_of(*next))
}
