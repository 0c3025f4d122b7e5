//! Query configs in KV that no item asks for, and those that the writes left behind: held against the
//! brake, and removed.

use std::collections::VecDeque;

use super::orphans::{CHUNK_KEYS, SETTLE_REQUESTS};
use super::part::{Part, Unclaimed};
use super::report::KeyClass;
use super::run::Run;
use crate::export::bulk;
use crate::export::error::KeyError;
use crate::export::query_config_removal::remove;
use crate::export::table::{Pass, PassOver};
use crate::item::{ItemKey, ItemKind, QueryConfigRef};
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::kv::stored::StoredQueryConfig;
use crate::ports::{KvError, Namespace, ScanColumns, Services};

impl<S: Services> Run<'_, S> {
    /// Removes the query configs of the part that no item asks for, if the brake allows it.
    pub(super) async fn remove_query_configs_nobody_has(
        &mut self,
        part: &mut Part,
    ) -> Result<(), KvError> {
        let left_behind: Vec<QueryConfigRef> = std::mem::take(&mut part.left_behind)
            .into_keys()
            .filter_map(|item| query_config_of(&item))
            .collect();
        let number = u64::try_from(left_behind.len()).unwrap_or(u64::MAX);
        if number > 0 && self.allow_deletes(part, number) {
            self.remove_query_configs(&left_behind).await;
        }
        let counts = part.keys.counts();
        if counts.unclaimed == 0 {
            return Ok(());
        }
        self.report.query_configs.orphaned += counts.unclaimed;
        if self.account().is_some() && !self.found_indexes {
            self.found_indexes = self.table_has_indexes().await;
        }
        let allowed = self.allow_deletes(part, counts.unclaimed);
        let removes = allowed && self.request.apply;
        let mut unclaimed = Unclaimed::of(part);
        loop {
            let keys = self.next_unclaimed(part, &mut unclaimed, CHUNK_KEYS).await?;
            for key in &keys {
                self.report.add_example(KeyClass::Orphaned, key);
            }
            let enough = !removes && self.report.has_enough_examples(KeyClass::Orphaned);
            if keys.is_empty() || enough {
                return Ok(());
            }
            if removes {
                self.remove_orphaned_query_configs(keys).await;
            }
        }
    }

    /// Removes orphaned query configs; whose they are stands in their values.
    async fn remove_orphaned_query_configs(&mut self, keys: Vec<String>) {
        let mut configs = Vec::new();
        let mut keys = VecDeque::from(keys);
        // The turn is for all reads and the delete after them; the values are not held.
        let requests = 2 * keys.len().div_ceil(MAX_BULK_GET_KEYS) + SETTLE_REQUESTS;
        let turn = self.invocation.wait_for_turn(requests, self.invocation.deadline).await;
        while turn.is_ok() && !keys.is_empty() {
            let next = keys.drain(..MAX_BULK_GET_KEYS.min(keys.len())).collect();
            let (held, failures) = bulk::read(self.invocation, Namespace::QueryConfigs, next).await;
            for (key, error) in failures {
                self.fail(Namespace::QueryConfigs, &key, &error.into());
            }
            for (key, stored) in held {
                let config =
                    StoredQueryConfig::parse(&stored.value).and_then(QueryConfigRef::of_stored);
                match config.filter(|config| config.kv_key() == key) {
                    Some(config) => configs.push(config),
                    None => {
                        self.fail(Namespace::QueryConfigs, &key, &KeyError::UnknownQueryConfig);
                    }
                }
            }
        }
        for key in keys {
            self.fail(Namespace::QueryConfigs, &key, &KeyError::Kv(KvError::OutOfTime));
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
        // What failed may be deleted all the same: for the brakes, it is.
        let failed = u64::try_from(removal.failed.len()).unwrap_or(u64::MAX);
        self.progress.tally(Namespace::QueryConfigs).deleted += removal.deleted + failed;
        for (key, error) in &removal.failed {
            self.fail(Namespace::QueryConfigs, key, error);
        }
        for (key, rejection) in removal.rejected {
            let config = configs.iter().find(|config| config.kv_key() == key);
            if let Some(config) = config {
                self.reject(Namespace::QueryConfigs, &config.index, &key, &rejection);
            }
        }
    }

    /// Whether the table has an index item of any account. One that can't be read has none.
    async fn table_has_indexes(&mut self) -> bool {
        let mut pass = Pass::new(self.invocation, PassOver::Table(ScanColumns::Claims));
        loop {
            match pass.next().await {
                Ok(Some(items)) => {
                    let is_index = |key: &ItemKey| matches!(key.kind(), ItemKind::IndexSettings(_));
                    if items.iter().any(|(key, _)| is_index(key)) {
                        return true;
                    }
                }
                Ok(None) => return false,
                Err(error) => {
                    self.stop(format!("the table could not be read: {error}"));
                    return false;
                }
            }
        }
    }
}

fn query_config_of(item: &ItemKey) -> Option<QueryConfigRef> {
    match item.kind() {
        ItemKind::QueryConfig(config) => Some(config),
        ItemKind::IndexSettings(_) | ItemKind::Skipped => None,
    }
}
