//! Reads the table: what it asks for, as digests, and what its aliases point at.

use super::desired_keys::Wanted;
use super::{NAMESPACES, ReconcileError, Reconciling};
use crate::export::api_keys::NotExportable;
use crate::export::desired::Desired;
use crate::export::table::Pass;
use crate::index::IndexRef;
use crate::item::alias_targets::{AliasTarget, alias_targets};
use crate::item::keys::claimed_keys;
use crate::item::{IndexSettings, Item, ItemKey, ItemKind, Map, QueryConfigRef, Rejection};
use crate::kv::check_key;
use crate::ports::{Namespace, Services};

/// An index item of a page, whose API key may still have to be asked for.
struct ScannedIndex {
    index: IndexRef,
    keys: Vec<String>,
    settings: Result<IndexSettings, Rejection>,
}

impl<S: Services> Reconciling<'_, S> {
    pub(super) async fn scan(&mut self) -> Result<(), ReconcileError> {
        let mut pass = Pass::new(self.invocation, self.items());
        let mut scanned = 0;
        loop {
            let page = pass.next().await;
            let page =
                page.map_err(|error| ReconcileError::PassStopped { items: scanned, error })?;
            let Some(items) = page else { break };
            scanned += items.len();
            self.add_page(&items).await;
        }
        for namespace in NAMESPACES {
            self.desired(namespace).sort();
            let desired = self.desired(namespace).desired();
            let conflicting = self.desired(namespace).conflicting();
            let counts = self.report.counts(namespace);
            (counts.desired, counts.conflicting) = (desired, conflicting);
        }
        Ok(())
    }

    async fn add_page(&mut self, items: &[(ItemKey, Item)]) {
        let mut indexes = Vec::new();
        for (key, item) in items {
            match key.kind() {
                ItemKind::IndexSettings(index) => {
                    self.found_indexes = true;
                    let attributes = item.attributes();
                    self.note_aliases(key, &attributes);
                    let keys = claimed_keys(&index, &attributes);
                    let settings = IndexSettings::decode(&index, &attributes);
                    indexes.push(ScannedIndex { index, keys, settings });
                }
                ItemKind::QueryConfig(config) => self.add_query_config(&config, item),
                ItemKind::Skipped => self.note_aliases(key, &item.attributes()),
            }
        }
        let exportable = indexes.iter().filter_map(|scanned| scanned.settings.as_ref().ok());
        self.api_keys.ask(self.invocation, exportable).await;
        for scanned in indexes {
            self.add_settings(scanned);
        }
    }

    fn note_aliases(&mut self, key: &ItemKey, item: &Map<'_>) {
        let own = match key.kind() {
            ItemKind::IndexSettings(index) => Some(index.index_id()),
            ItemKind::QueryConfig(_) | ItemKind::Skipped => None,
        };
        for target in alias_targets(&key.pk, item) {
            if let AliasTarget::IndexId(index_id) = target
                && Some(&index_id) != own.as_ref()
            {
                self.pointed_at.insert(index_id);
            }
        }
    }

    fn add_settings(&mut self, ScannedIndex { index, keys, settings }: ScannedIndex) {
        let desired = settings.map_err(NotExportable::Rejected).and_then(|settings| {
            Desired::of_settings(&settings, self.invocation.config, &self.api_keys)
        });
        let wanted = match desired {
            Ok(desired) => Wanted::Value(desired.digest()),
            Err(NotExportable::Unavailable(_)) => Wanted::Unknown,
            Err(NotExportable::Rejected(rejection)) => {
                self.reject(Namespace::Settings, &index, &index.index_id(), &rejection);
                Wanted::Rejected
            }
        };
        for key in &keys {
            self.settings.add(key, &index, wanted);
        }
    }

    fn add_query_config(&mut self, config: &QueryConfigRef, item: &Item) {
        let key = config.kv_key();
        let wanted = match Desired::of_query_config(config, item) {
            Ok(desired) => Wanted::Value(desired.digest()),
            Err(rejection) => {
                self.reject(Namespace::QueryConfigs, &config.index, &key, &rejection);
                Wanted::Rejected
            }
        };
        if check_key(&key).is_ok() {
            self.query_configs.add(&key, &config.index, wanted);
        }
    }
}
