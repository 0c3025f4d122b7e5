//! One run of a chain: what it is asked for, what it has seen, and what it may still do.

use tracing::{error, warn};

use super::asks::Answers;
use super::brakes::{Brakes, Refused};
use super::kept_claims::KeptClaims;
use super::part::Part;
use super::progress::{Place, Progress};
use super::report::Report;
use super::{Reconcile, ReconcileError};
use crate::export::api_keys::ApiKeys;
use crate::export::error::{Chain, KeyError};
use crate::export::invocation::Invocation;
use crate::export::table::PassOver;
use crate::index::IndexRef;
use crate::item::Rejection;
use crate::ports::{Namespace, ScanColumns, Services};

/// One run of a chain.
pub struct Run<'a, S> {
    pub invocation: &'a Invocation<'a, S>,
    pub request: &'a Reconcile,
    pub progress: Progress,
    pub report: Report,
    pub refused: Refused,
    /// Whether a pass over the table has found an index item.
    pub found_indexes: bool,
    pub api_keys: ApiKeys,
    /// What the settings' pass has seen of the query configs.
    pub kept_claims: KeptClaims,
}

impl<'a, S: Services> Run<'a, S> {
    pub fn new(invocation: &'a Invocation<'a, S>, request: &'a Reconcile) -> Self {
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

    pub async fn compare_and_mend(&mut self, place: &Place) -> Result<Part, ReconcileError> {
        let mut part = self.list(place).await?;
        let mut asks = self.scan(&mut part).await?;
        self.find_dangling(&part).await;
        let mut rewrites = None;
        loop {
            let answers = self.judge_answered(&mut part, &mut asks).await;
            rewrites = rewrites.or_else(|| self.allow_rewrites(&part, asks.waiting_keys()));
            self.name(&part);
            if !part.orphans_seen && self.account().is_some() {
                self.find_given_up_shop_ids(&mut part).await;
            }
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

    pub fn account(&self) -> Option<&'a str> {
        self.request.system_account_id.as_deref()
    }

    /// What this run's passes go over. What an audit sees may be a second old.
    pub fn items(&self) -> PassOver<'a> {
        match self.account() {
            Some(account) => PassOver::Account(account),
            None if self.request.apply => PassOver::Table(ScanColumns::All),
            None => PassOver::Table(ScanColumns::AllEventuallyConsistent),
        }
    }

    /// What the brakes let through, by what the chain has seen so far.
    pub fn brakes(&mut self, part: &Part) -> Brakes {
        let counts = part.keys.counts();
        let mut tally = *self.progress.tally(part.namespace);
        tally.ours += counts.ours;
        tally.desired += counts.desired;
        Brakes::new(tally, self.found_indexes, self.request.raised)
    }

    /// Whether so many keys may be deleted, all or none; notes what is refused.
    pub fn allow_deletes(&mut self, part: &Part, keys: u64) -> bool {
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
    pub fn allow_rewrites(&mut self, part: &Part, waiting: u64) -> Option<bool> {
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

    pub fn has_mended(&self) -> bool {
        self.report.total(|counts| counts.written + counts.deleted) > 0
    }

    /// Notes an item that can't be exported. It is found again by every run until it is corrected, so
    /// it is no error of this one.
    pub fn reject(
        &mut self,
        namespace: Namespace,
        index: &IndexRef,
        key: &str,
        rejection: &Rejection,
    ) {
        warn!(
            key,
            system_account_id = index.account,
            index_name = index.name,
            path = rejection.path,
            error = %rejection,
            "an item can't be exported: what KV holds of it stays"
        );
        self.report.counts(namespace).rejected += 1;
        self.report.example("rejected", key);
    }

    pub fn fail(&mut self, namespace: Namespace, key: &str, error: &KeyError) {
        // An outage fails every key: the counts tell how many, the log the first ones.
        if !self.report.has_enough_examples("failed") {
            error!(key, error = %Chain(error), "a key could not be compared or repaired");
        }
        self.report.counts(namespace).failed += 1;
        self.report.example("failed", key);
    }

    pub fn stop(&mut self, reason: String) {
        warn!(reason, "reconcile stopped early: the rest is left to the next run");
        self.report.stopped.get_or_insert(reason);
    }
}
