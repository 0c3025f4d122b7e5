//! One run of a chain: what it is asked for, and what it has seen and done.

use tracing::{error, warn};

use super::Reconcile;
use super::kept_claims::KeptClaims;
use super::progress::Progress;
use super::report::{KeyClass, Refused, Report};
use crate::error_chain::Chain;
use crate::export::api_keys::{
    ApiKeys, AskingForApiKeys, BATCH_TIME_FOR_API_KEYS, Patience, Reuse,
};
use crate::export::error::KeyError;
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
        let progress = request.progress.clone().unwrap_or_else(|| Progress::at_start(request));
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
            api_keys: ApiKeys::new(AskingForApiKeys {
                patience: Patience::WhileTheCellAnswers(BATCH_TIME_FOR_API_KEYS),
                // What KV holds is what is compared.
                reuse: Reuse::Never,
            }),
            kept_claims: KeptClaims::default(),
        }
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
        self.report.add_example(KeyClass::Rejected, key);
    }

    pub fn fail(&mut self, namespace: Namespace, key: &str, error: &KeyError) {
        // An outage fails every key: the counts tell how many, the log the first ones.
        if !self.report.has_enough_examples(KeyClass::Failed) {
            error!(key, error = %Chain(error), "a key could not be compared or repaired");
        }
        self.report.counts(namespace).failed += 1;
        self.report.add_example(KeyClass::Failed, key);
    }

    pub fn stop(&mut self, reason: String) {
        warn!(reason, "reconcile stopped early: the rest is left to the next run");
        self.report.stopped.get_or_insert(reason);
    }
}
