//! Writes what is missing or stale, then settles the orphans and what the writes left behind.

use std::collections::{BTreeMap, BTreeSet};

use super::brake::Allowed;
use super::repaired_items::{READ_ITEMS, RepairedItems, Work};
use super::{NAMESPACES, Reconciling, WORK_KEYS, asked_keys};
use crate::export::api_keys::ApiKeys;
use crate::export::bulk;
use crate::export::error::KeyError;
use crate::export::query_config_removal::remove;
use crate::export::settle::{self, SettleRequest, Verdict};
use crate::export::table::Pass;
use crate::export::verified_write::{ItemWrite, WriteOutcome, verified_write};
use crate::index::IndexRef;
use crate::item::{ItemKey, ItemKind, QueryConfigRef};
use crate::kv::stored::StoredQueryConfig;
use crate::ports::{Namespace, Services};

/// Values that one write holds at the most, in bytes; with the pairs it bounds the memory.
const WRITE_BYTES: usize = 16 * 1024 * 1024;

/// What the writes leave to be done.
#[derive(Default)]
struct Remains {
    /// Settings keys that were written for an index and that its item asks for no more.
    settings: Vec<(IndexRef, BTreeSet<String>)>,
    /// Query configs that were written and are gone.
    query_configs: Vec<QueryConfigRef>,
}

impl<S: Services> Reconciling<'_, S> {
    pub(super) async fn repair(&mut self, mut allowed: Allowed) {
        let mut remains = Remains::default();
        let to_write: u64 = NAMESPACES
            .iter()
            .map(|namespace| *self.report.counts(*namespace))
            .map(|counts| counts.missing + counts.stale)
            .sum();
        if to_write + self.taken.values().sum::<u64>() > 0 {
            self.write_desired(&mut remains, &allowed).await;
        }
        if allowed.rewrites.contains(&Namespace::Settings) {
            let contested = std::mem::take(&mut self.contested_stale);
            self.settle(SettleRequest::of_keys(contested)).await;
        }
        for (index, keys) in remains.settings {
            if self.may_delete(&mut allowed, Namespace::Settings, keys.len()) {
                self.settle(SettleRequest::written_for(&index, keys)).await;
            }
        }
        let orphans = self.orphans.remove(&Namespace::Settings).unwrap_or_default();
        for keys in orphans.chunks(WORK_KEYS) {
            self.settle(SettleRequest::of_keys(keys.iter().cloned())).await;
        }
        let mut gone = remains.query_configs;
        // A key that several items ask for is another one's now.
        gone.retain(|config| !self.query_configs.is_conflicting(&config.kv_key()));
        if self.may_delete(&mut allowed, Namespace::QueryConfigs, gone.len()) {
            self.remove_query_configs(&gone).await;
        }
        let orphans = self.orphans.remove(&Namespace::QueryConfigs).unwrap_or_default();
        for keys in orphans.chunks(WORK_KEYS) {
            self.remove_orphaned_query_configs(keys.to_vec()).await;
        }
    }

    /// Whether keys that the repair itself has written for nobody may be deleted again.
    fn may_delete(&mut self, allowed: &mut Allowed, namespace: Namespace, keys: usize) -> bool {
        let keys = u64::try_from(keys).unwrap_or(u64::MAX);
        let brakes = allowed.brakes.get_mut(&namespace);
        brakes.is_some_and(|brakes| brakes.allow_deletes(keys, &mut self.refused))
    }

    /// Goes over the table once more, for the items of the keys that are to be written.
    async fn write_desired(&mut self, remains: &mut Remains, allowed: &Allowed) {
        let mut pass = Pass::new(self.invocation, self.items());
        let mut work: BTreeMap<Namespace, Work> = BTreeMap::new();
        loop {
            let items = match pass.next().await {
                Ok(items) => items,
                Err(error) => {
                    self.stop(format!("the table could not be read to its end: {error}"));
                    None
                }
            };
            let ended = items.is_none();
            for (key, item) in items.into_iter().flatten() {
                let Some((namespace, index, keys)) = asked_keys(&key, &item) else { continue };
                let rewrites = allowed.rewrites.contains(&namespace);
                let desired = self.desired(namespace);
                let is_to_write = |key: &String| match rewrites {
                    true => desired.is_to_write(key, &index),
                    false => desired.is_missing(key, &index),
                };
                let keys: BTreeSet<String> = keys.into_iter().filter(is_to_write).collect();
                if !keys.is_empty() {
                    work.entry(namespace).or_default().insert(key, keys);
                }
            }
            for namespace in NAMESPACES {
                let Some(open) = work.get(&namespace) else { continue };
                let keys: usize = open.values().map(BTreeSet::len).sum();
                if keys >= WORK_KEYS || ended {
                    let work = work.remove(&namespace).unwrap_or_default();
                    self.write(namespace, work, remains).await;
                }
            }
            if ended {
                return;
            }
        }
    }

    async fn write(&mut self, namespace: Namespace, work: Work, remains: &mut Remains) {
        let mut items = RepairedItems::new(self.invocation);
        let mut work: Vec<(ItemKey, BTreeSet<String>)> = work.into_iter().collect();
        let mut writes: Vec<ItemWrite> = Vec::new();
        while !work.is_empty() {
            let part: Work = work.drain(..READ_ITEMS.min(work.len())).collect();
            let (read, failed) = items.read(part).await;
            writes.extend(read);
            self.fail_all(namespace, &failed);
            let pairs: usize = writes.iter().map(|write| write.keys.len()).sum();
            let bytes: usize =
                writes.iter().map(|write| write.keys.len() * write.entry.body_bytes()).sum();
            let full = pairs >= self.invocation.config.bulk_max_pairs || bytes >= WRITE_BYTES;
            if full || work.is_empty() {
                let writes = std::mem::take(&mut writes);
                let written = verified_write(self.invocation, namespace, &items, writes).await;
                self.note_written(namespace, written, remains);
            }
        }
    }

    fn note_written(&mut self, namespace: Namespace, written: WriteOutcome, remains: &mut Remains) {
        let keys = u64::try_from(written.written.len()).unwrap_or(u64::MAX);
        self.report.counts(namespace).written += keys;
        self.fail_all(namespace, &written.failed);
        for (item, rejection) in &written.rejected {
            match item.kind() {
                ItemKind::IndexSettings(index) => {
                    self.reject(namespace, &index, &index.index_id(), rejection);
                }
                ItemKind::QueryConfig(config) => {
                    self.reject(namespace, &config.index, &config.kv_key(), rejection);
                }
                ItemKind::Skipped => {}
            }
        }
        for (item, keys) in written.left_behind {
            match item.kind() {
                ItemKind::QueryConfig(config) => remains.query_configs.push(config),
                ItemKind::IndexSettings(index) => remains.settings.push((index, keys)),
                ItemKind::Skipped => {}
            }
        }
    }

    fn fail_all(&mut self, namespace: Namespace, failed: &BTreeMap<String, KeyError>) {
        for (key, error) in failed {
            self.fail(namespace, key, error);
        }
    }

    async fn settle(&mut self, request: SettleRequest) {
        if request.keys.is_empty() {
            return;
        }
        // The comparison's API keys may be minutes old.
        let mut api_keys = ApiKeys::default();
        for (key, verdict) in settle::settle(self.invocation, request, &mut api_keys).await {
            match verdict {
                Verdict::Written(_) => self.report.settings.written += 1,
                Verdict::Deleted => self.report.settings.deleted += 1,
                Verdict::Failed(error) => self.fail(Namespace::Settings, &key, &error),
                Verdict::Withheld(_) | Verdict::Left => {}
            }
        }
    }

    /// Removes orphaned query configs; whose they are stands in their values.
    async fn remove_orphaned_query_configs(&mut self, keys: Vec<String>) {
        let (held, failures) = bulk::read(self.invocation, Namespace::QueryConfigs, keys).await;
        for (key, error) in failures {
            self.fail(Namespace::QueryConfigs, &key, &error.into());
        }
        let mut configs = Vec::new();
        for (key, stored) in held {
            let config = StoredQueryConfig::parse(&stored.value).and_then(query_config);
            match config.filter(|config| config.kv_key() == key) {
                Some(config) => configs.push(config),
                None => {
                    self.fail(Namespace::QueryConfigs, &key, &KeyError::UnknownQueryConfig);
                }
            }
        }
        self.remove_query_configs(&configs).await;
    }

    async fn remove_query_configs(&mut self, configs: &[QueryConfigRef]) {
        if configs.is_empty() {
            return;
        }
        let removal = remove(self.invocation, configs).await;
        self.report.query_configs.deleted += removal.deleted;
        self.report.query_configs.written += removal.written;
        self.fail_all(Namespace::QueryConfigs, &removal.failed);
        for (key, rejection) in removal.rejected {
            let config = configs.iter().find(|config| config.kv_key() == key);
            if let Some(config) = config {
                self.reject(Namespace::QueryConfigs, &config.index, &key, &rejection);
            }
        }
    }
}

/// The query config that a stored value names.
fn query_config(stored: StoredQueryConfig) -> Option<QueryConfigRef> {
    let index = IndexRef::parse(&stored.system_account_id, &stored.index_name)?;
    Some(QueryConfigRef { index, query: stored.normalized_query })
}
