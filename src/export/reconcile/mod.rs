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
mod dangling;
mod findings;
mod kept_claims;
mod listed;
mod orphans;
mod part;
mod part_keys;
mod progress;
mod repair;
mod repaired_items;
mod report;
mod scan;

use tokio::time::Instant;
use tracing::{error, warn};

pub use self::brakes::{Raised, Refused};
pub use self::progress::Progress;
pub use self::report::{Counts, Report};

use self::asks::Answers;
use self::brakes::Brakes;
use self::kept_claims::KeptClaims;
use self::part::Part;
use self::progress::Place;
use super::api_keys::ApiKeys;
use super::error::{Chain, KeyError};
use super::invocation::Invocation;
use super::table::{PassOver, ReadError};
use crate::index::IndexRef;
use crate::item::Rejection;
use crate::ports::{KvError, Namespace, ScanColumns, Services};

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

/// Why a run failed before it had compared anything. Nothing was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileError {
    /// Cloudflare refuses the token.
    #[error(transparent)]
    CloudflareAuthRejected(KvError),
    /// The table could not be read to its end.
    #[error("nothing was written: the pass over the table stopped after {items} items")]
    PassStopped {
        /// How many items had been read.
        items: usize,
        /// Why.
        #[source]
        error: ReadError,
    },
    /// KV could not be listed as far as the first part goes.
    #[error("nothing was written: the listing of {namespace:?} stopped after {keys} keys")]
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
    let mut next = Some(run.progress.place.clone());
    while let Some(place) = next.take() {
        run.progress.place = place.clone();
        let began = Instant::now();
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
            // What was compared and not mended is compared again, unless there is no getting on with
            // it: then the rest of the namespaces must not wait for it.
            let goes_on = if run.has_mended() { Some(place) } else { next };
            return Ok(run.finish(goes_on));
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

/// One run of a chain.
struct Run<'a, S> {
    invocation: &'a Invocation<'a, S>,
    request: &'a Reconcile,
    progress: Progress,
    report: Report,
    refused: Refused,
    /// Whether a pass over the table has found an index item.
    found_indexes: bool,
    api_keys: ApiKeys,
    /// What the settings' pass has seen of the query configs.
    kept_claims: KeptClaims,
}

impl<'a, S: Services> Run<'a, S> {
    fn new(invocation: &'a Invocation<'a, S>, request: &'a Reconcile) -> Self {
        let progress = request.progress.clone().unwrap_or_else(|| Progress::none(request));
        if let (Some(requests), Some(limiter)) = (progress.requests, invocation.rate_limiter()) {
            limiter.count_earlier(requests.number, requests.age(invocation.began));
        }
        Self {
            invocation,
            request,
            progress,
            report: Report {
                apply: request.apply,
                dry_run: invocation.config.dry_run,
                ..Report::default()
            },
            refused: Refused::default(),
            found_indexes: false,
            api_keys: ApiKeys::default(),
            kept_claims: KeptClaims::default(),
        }
    }

    async fn compare_and_mend(&mut self, place: &Place) -> Result<Part, ReconcileError> {
        let mut part = self.list(place).await?;
        let mut asks = self.scan(&mut part).await?;
        self.find_dangling(&part).await;
        let mut rewrites = None;
        loop {
            let answers = self.judge_answered(&mut part, &mut asks).await;
            rewrites = rewrites.or_else(|| self.allow_rewrites(&part, asks.waiting_keys()));
            self.name(&part);
            if self.request.apply {
                self.write_desired(&mut part, rewrites, answers).await;
            }
            // Their look may have to wait for a gateway that hangs: nothing that can be written
            // before waits with it.
            if !part.orphans_seen && (rewrites.is_some() || answers == Answers::All) {
                part.orphans_seen = true;
                self.settle_orphans(&mut part).await;
            }
            if answers == Answers::All {
                break;
            }
        }
        self.count(&part, rewrites);
        Ok(part)
    }

    fn account(&self) -> Option<&'a str> {
        self.request.system_account_id.as_deref()
    }

    /// What this run's passes go over. What an audit sees may be a second old.
    fn items(&self) -> PassOver<'a> {
        match self.account() {
            Some(account) => PassOver::Account(account),
            None if self.request.apply => PassOver::Table(ScanColumns::All),
            None => PassOver::Table(ScanColumns::AllEventuallyConsistent),
        }
    }

    /// What the brakes let through, by what the chain has seen so far.
    fn brakes(&mut self, part: &Part) -> Brakes {
        let counts = part.keys.counts();
        let mut tally = *self.progress.tally(part.namespace);
        tally.ours += counts.ours;
        tally.desired += counts.desired;
        Brakes::new(tally, self.found_indexes, self.request.raised)
    }

    /// Whether so many keys may be deleted, all or none; notes what is refused.
    fn allow_deletes(&mut self, part: &Part, keys: u64) -> bool {
        let allowed = self.brakes(part).allow_deletes(keys);
        if !allowed {
            self.refused.delete += keys;
        } else if !self.request.apply {
            self.progress.tally(part.namespace).deleted += keys;
        }
        allowed
    }

    /// Whether the stale keys may be rewritten, all or none; notes what is refused. `None` where that
    /// depends on keys that still wait for their API keys.
    fn allow_rewrites(&mut self, part: &Part, waiting: u64) -> Option<bool> {
        let counts = part.keys.counts();
        let taken = if self.request.raised.rewrites.is_some() { counts.taken } else { 0 };
        let rewrites = counts.stale + taken;
        let brakes = self.brakes(part);
        if brakes.allow_rewrites(rewrites + waiting) {
            return Some(true);
        }
        if waiting > 0 && brakes.allow_rewrites(rewrites) {
            return None;
        }
        self.refused.rewrite += rewrites;
        Some(false)
    }

    fn has_mended(&self) -> bool {
        self.report.total(|counts| counts.written + counts.deleted) > 0
    }

    fn reject(&mut self, namespace: Namespace, index: &IndexRef, key: &str, rejection: &Rejection) {
        error!(
            system_account_id = index.account,
            index_name = index.name,
            path = rejection.path,
            error = %rejection,
            "an item can't be exported: what KV holds of it stays"
        );
        self.report.counts(namespace).rejected += 1;
        self.report.example("rejected", key);
    }

    fn fail(&mut self, namespace: Namespace, key: &str, error: &KeyError) {
        // An outage fails every key: the counts tell how many, the log the first ones.
        if !self.report.has_enough_examples("failed") {
            error!(key, error = %Chain(error), "a key could not be compared or repaired");
        }
        self.report.counts(namespace).failed += 1;
        self.report.example("failed", key);
    }

    fn stop(&mut self, reason: String) {
        warn!(reason, "reconcile stopped early: the rest is left to the next run");
        self.report.stopped.get_or_insert(reason);
    }
}
