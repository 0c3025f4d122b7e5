//! A pass over the table: what its items ask for of a part's keys, and what their aliases point at.
//!
//! The table is judged page by page: a page's accounts are asked for their API keys together, and
//! nothing waits across pages. So memory does not grow with the accounts, and a gateway that gives
//! nothing costs its time once a run.

use tokio::time::Instant;
use tracing::warn;

use super::ReconcileError;
use super::part::{Lister, Part, Section};
use super::report::Class;
use super::rows::Claim;
use crate::config::ExporterConfig;
use crate::export::api_keys::{ApiKeys, Exportable, NotExportable};
use crate::export::desired::Desired;
use crate::export::table::{Pass, PassOver};
use crate::index::IndexRef;
use crate::item::alias_targets::{AliasTarget, alias_targets};
use crate::item::keys::claimed_keys;
use crate::item::{IndexSettings, Item, ItemKey, ItemKind, Map, QueryConfigRef, Rejection};
use crate::kv::check_key;
use crate::ports::{Namespace, Services};

/// Index ids that aliases point at and that KV does not list, as many as are held. What is more than
/// that is no longer a finding, but an outage.
const MAX_POINTED_AT: usize = 50_000;

/// Accounts whose API keys are held for the pages to come: an account with many items is asked for
/// once.
const MAX_HELD_ACCOUNTS: usize = 10_000;

/// One in so many parts of the time is kept for writing what is missing, if API keys take all of it.
const SHARE_TO_WRITE: u32 = 8;

/// An index item whose keys are compared once its account's API key is known.
struct OpenIndex {
    item: ItemKey,
    index: IndexRef,
    keys: Vec<String>,
    exportable: Result<Exportable, Rejection>,
}

/// Goes over the items, and compares what they ask for with what was listed. Without `compares_values`
/// no API key is asked for: which keys the items ask for is all that matters.
pub async fn scan<S: Services>(
    lister: &Lister<'_, S>,
    over: PassOver<'_>,
    compares_values: bool,
    part: &mut Part,
    api_keys: &mut ApiKeys,
) -> Result<(), ReconcileError> {
    let invocation = lister.invocation;
    let left = invocation.deadline.saturating_duration_since(Instant::now());
    let until = invocation.deadline - left / SHARE_TO_WRITE;
    let mut pass = Pass::new(invocation, over);
    let mut scanned = 0;
    loop {
        let page = pass.next().await;
        let page = page.map_err(|error| ReconcileError::PassStopped { items: scanned, error })?;
        let Some(items) = page else { return Ok(()) };
        scanned += items.len();
        let open = part.take_in(&items, invocation.config);
        if lister.only_account().is_some() {
            let keys = open.iter().flat_map(|index| index.keys.iter().cloned()).collect();
            pass.while_waiting(lister.read_unlisted(part, keys)).await;
        }
        if api_keys.answers() > MAX_HELD_ACCOUNTS {
            *api_keys = api_keys.renewed();
        }
        if compares_values {
            let exportable = open.iter().filter_map(|index| index.exportable.as_ref().ok());
            pass.while_waiting(api_keys.ask(invocation, exportable)).await;
        }
        if Instant::now() >= until {
            part.is_unfinished = true;
            return Ok(());
        }
        for index in open {
            part.judge(index, api_keys);
        }
    }
}

impl Part {
    /// Takes in a page of items; answers with the indexes that wait for their API keys.
    fn take_in(&mut self, items: &[(ItemKey, Item)], config: &ExporterConfig) -> Vec<OpenIndex> {
        let mut open = Vec::new();
        for (key, item) in items {
            match key.kind() {
                ItemKind::IndexSettings(index) => {
                    self.has_indexes = true;
                    let attributes = item.attributes();
                    self.note_aliases(key, Some(&index), &attributes);
                    open.extend(self.open_index(key, index, &attributes, config));
                }
                ItemKind::QueryConfig(config) => self.judge_query_config(key, &config, item),
                ItemKind::Skipped => self.note_aliases(key, None, &item.attributes()),
            }
        }
        open
    }

    /// The index of an item, if this part compares a key of it or has one that it owns.
    fn open_index(
        &self,
        item: &ItemKey,
        index: IndexRef,
        attributes: &Map<'_>,
        config: &ExporterConfig,
    ) -> Option<OpenIndex> {
        let section = self.settings()?;
        let mut keys = claimed_keys(&index, attributes);
        keys.retain(|key| section.covers(key));
        let is_of_interest =
            !keys.is_empty() || section.covers(&index.index_id()) || section.owners.have(&index);
        let exportable = is_of_interest
            .then(|| Exportable::new(IndexSettings::decode(&index, attributes)?, config))?;
        Some(OpenIndex { item: item.clone(), index, keys, exportable })
    }

    /// Compares the keys of an index whose API key is known, or known to be unavailable.
    fn judge(&mut self, open: OpenIndex, api_keys: &ApiKeys) {
        let OpenIndex { item, index, keys, exportable } = open;
        let desired = exportable
            .map_err(NotExportable::Rejected)
            .and_then(|exportable| Desired::of_settings(&exportable, api_keys));
        self.compare(Namespace::Settings, &item, &index, &index.index_id(), &keys, &desired);
    }

    fn judge_query_config(&mut self, item: &ItemKey, config: &QueryConfigRef, found: &Item) {
        let key = config.kv_key();
        if self.section(Namespace::QueryConfigs).is_some_and(|section| section.covers(&key)) {
            let desired = Desired::of_query_config(config, found).map_err(NotExportable::Rejected);
            let mut keys = vec![key.clone()];
            keys.retain(|key| check_key(key).is_ok());
            self.compare(Namespace::QueryConfigs, item, &config.index, &key, &keys, &desired);
        }
    }

    /// Compares the keys that an item asks for. One that can't be exported is counted in the part that
    /// has the key with its name: each part's pass sees it.
    fn compare(
        &mut self,
        namespace: Namespace,
        item: &ItemKey,
        index: &IndexRef,
        key_with_its_name: &str,
        keys: &[String],
        desired: &Result<Desired, NotExportable>,
    ) {
        let is_meant = |section: &&mut Section| section.namespace() == namespace;
        let Some(section) = self.sections.iter_mut().find(is_meant) else { return };
        let claim = match desired {
            Ok(desired) => Claim::Value(desired.digest()),
            Err(NotExportable::Unavailable(_)) => Claim::Unknown,
            Err(NotExportable::Rejected(rejection)) => {
                if section.covers(key_with_its_name) {
                    section.rejected += 1;
                    self.examples.add(Class::Rejected, key_with_its_name);
                    warn_rejected(index, key_with_its_name, rejection);
                }
                Claim::Rejected
            }
        };
        section.owners.note_item(index, claim != Claim::Rejected);
        for key in keys {
            if section.rows.claim(key, index, item, claim) {
                self.examples.add(Class::Conflicting, key);
            }
            if let Ok(desired) = desired
                && section.rows.is(key, Class::Stale)
            {
                section.samples.add(key, desired.value());
            }
        }
    }

    /// Notes what the active aliases of an item, perhaps an index's, point at.
    fn note_aliases(&mut self, key: &ItemKey, index: Option<&IndexRef>, attributes: &Map<'_>) {
        let Some(section) = self.section(Namespace::Settings) else { return };
        let own = index.map(IndexRef::index_id);
        for target in alias_targets(&key.pk, attributes) {
            section.owners.note_target(&target, key, &section.rows);
            if let AliasTarget::IndexId(index_id) = target
                && Some(&index_id) != own.as_ref()
                && section.covers(&index_id)
                && !section.rows.holds(&index_id)
                && section.pointed_at.len() < MAX_POINTED_AT
            {
                section.pointed_at.insert(index_id);
            }
        }
    }
}

/// Logs an item that can't be exported. It is found again by every run until it is corrected, so it is
/// no error of this one.
pub fn warn_rejected(index: &IndexRef, key: &str, rejection: &Rejection) {
    warn!(
        key,
        system_account_id = index.account,
        index_name = index.name,
        path = rejection.path,
        error = %rejection,
        "an item can't be exported: what KV holds of it stays"
    );
}
