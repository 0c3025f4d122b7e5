//! Reconcile: makes KV equal to the table, from a pass over the one and a listing of the other.
//!
//! Scan (digests of what the table asks for) → list (compare, by the metadata's digests) → look
//! at the orphans → brakes → with `apply`: write what is missing or stale, settle the orphans.
//! Nothing is deleted on the scan's or the listing's word: [`settle`] and [`query_config_removal`]
//! look for themselves. What would exceed a brake is not begun.
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

mod brake;
mod brakes;
mod compare;
mod dangling;
mod desired_keys;
mod findings;
pub(super) mod listed;
mod repair;
mod repaired_items;
mod report;
mod scan;

use std::collections::{BTreeMap, BTreeSet};

use tracing::{error, warn};

pub use self::brakes::{Raised, Refused};
pub use self::report::{Counts, Report};

use self::desired_keys::DesiredKeys;
use super::api_keys::ApiKeys;
use super::error::{Chain, KeyError};
use super::invocation::Invocation;
use super::table::{PassOver, ReadError};
use crate::index::IndexRef;
use crate::item::keys::claimed_keys;
use crate::item::{Item, ItemKey, ItemKind, Rejection};
use crate::ports::{KvError, Namespace, ScanColumns, Services};

const NAMESPACES: [Namespace; 2] = [Namespace::Settings, Namespace::QueryConfigs];

/// Keys that are written or settled in one go; bounds what is held of them at once.
const WORK_KEYS: usize = 10_000;

/// What a reconcile asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconcile {
    /// Whether to repair what differs.
    pub apply: bool,
    /// The one account to look at; all of them where absent.
    pub system_account_id: Option<String>,
    /// The numbers to which the brakes are raised.
    pub raised: Raised,
}

/// Why a reconcile failed before it could report anything. Nothing was written.
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
    /// KV could not be listed to its end.
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
    let mut reconciling = Reconciling::new(invocation, request);
    reconciling.scan().await?;
    reconciling.list().await?;
    reconciling.name_missing().await;
    reconciling.look_at_orphans().await;
    reconciling.find_dangling().await;
    reconciling.count_findings();
    let allowed = reconciling.brake().await;
    if request.apply {
        reconciling.repair(allowed).await;
    }
    Ok(reconciling.finish())
}

struct Reconciling<'a, S> {
    invocation: &'a Invocation<'a, S>,
    account: Option<&'a str>,
    raised: Raised,
    report: Report,
    refused: Refused,
    /// Whether the pass over the table has found an index item.
    found_indexes: bool,
    /// Listed keys of ours.
    ours: BTreeMap<Namespace, u64>,
    /// Keys that are to be taken from another environment.
    taken: BTreeMap<Namespace, u64>,
    settings: DesiredKeys,
    query_configs: DesiredKeys,
    api_keys: ApiKeys,
    /// Index ids that active aliases of the items looked at point at, until something is found
    /// under them.
    pointed_at: BTreeSet<String>,
    /// Keys with our metadata that no item asks for; those of the settings that are to be settled,
    /// once they were looked at.
    orphans: BTreeMap<Namespace, Vec<String>>,
    /// Settings keys that the account asks for and that KV names for another one, whose items this
    /// run has not seen.
    contested: BTreeSet<String>,
    /// Those of them that settling would write for the account.
    contested_stale: Vec<String>,
}

impl<'a, S: Services> Reconciling<'a, S> {
    fn new(invocation: &'a Invocation<'a, S>, request: &'a Reconcile) -> Self {
        Self {
            invocation,
            account: request.system_account_id.as_deref(),
            raised: request.raised,
            report: Report {
                apply: request.apply,
                dry_run: invocation.config.dry_run,
                ..Report::default()
            },
            refused: Refused::default(),
            found_indexes: false,
            ours: BTreeMap::new(),
            taken: BTreeMap::new(),
            settings: DesiredKeys::default(),
            query_configs: DesiredKeys::default(),
            api_keys: ApiKeys::default(),
            pointed_at: BTreeSet::new(),
            orphans: BTreeMap::new(),
            contested: BTreeSet::new(),
            contested_stale: Vec::new(),
        }
    }

    fn desired(&mut self, namespace: Namespace) -> &mut DesiredKeys {
        match namespace {
            Namespace::Settings => &mut self.settings,
            Namespace::QueryConfigs => &mut self.query_configs,
        }
    }

    /// What this run's passes go over.
    fn items(&self) -> PassOver<'a> {
        match self.account {
            Some(account) => PassOver::Account(account),
            None => PassOver::Table(ScanColumns::All),
        }
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

/// The keys that an item asks for, as far as it can be read.
fn asked_keys(key: &ItemKey, item: &Item) -> Option<(Namespace, IndexRef, Vec<String>)> {
    match key.kind() {
        ItemKind::Skipped => None,
        ItemKind::QueryConfig(config) => {
            let key = config.kv_key();
            Some((Namespace::QueryConfigs, config.index, vec![key]))
        }
        ItemKind::IndexSettings(index) => {
            let keys = claimed_keys(&index, &item.attributes());
            Some((Namespace::Settings, index, keys))
        }
    }
}
