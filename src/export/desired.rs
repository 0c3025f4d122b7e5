//! What KV should hold of an item, as the table has it.

use std::rc::Rc;

use tracing::warn;

use super::api_keys::{ApiKeys, Exportable, NotExportable};
use crate::config::ExporterConfig;
use crate::index::ItemName;
use crate::item::{IndexSettings, Item, ItemKey, ItemKind, QueryConfig, QueryConfigRef, Rejection};
use crate::kv::limits::check_value_size;
use crate::kv::{Digest, Entry, Stamp};

/// One value and the keys that it goes under. May hold an API key: no `Debug`.
#[derive(Clone)]
pub struct Desired {
    pub item: ItemName,
    /// The KV keys, the primary one first.
    pub keys: Vec<String>,
    value: String,
}

/// Logs what is odd about settings that are exported all the same.
pub fn warn_if_odd(settings: &IndexSettings) {
    if let Some(warning) = &settings.warning {
        warn!(
            system_account_id = settings.index.account,
            index_name = settings.index.name,
            warning,
            "an index is exported as it is, and is worth a look"
        );
    }
}

impl Desired {
    pub fn of_item(
        key: &ItemKey,
        item: &Item,
        config: &ExporterConfig,
        api_keys: &ApiKeys,
    ) -> Result<Self, NotExportable> {
        match key.kind() {
            ItemKind::IndexSettings(index) => {
                Self::of_settings(&Exportable::decode(&index, item, config)?, api_keys)
            }
            ItemKind::QueryConfig(query_config) => Ok(Self::of_query_config(&query_config, item)?),
            ItemKind::Skipped => Err(Rejection::new("sk", "is not an exported item's").into()),
        }
    }

    pub fn of_settings(index: &Exportable, api_keys: &ApiKeys) -> Result<Self, NotExportable> {
        let settings = &index.settings;
        let value = settings.value(api_keys.resolve(index)?);
        check_value_size(value.len()).map_err(Rejection::over_limit("(value)"))?;
        Ok(Self { item: settings.index.clone().into(), keys: settings.kv_keys(), value })
    }

    pub fn entry_of_settings(
        index: &Exportable,
        api_keys: &ApiKeys,
        stamp: &Stamp,
    ) -> Result<Rc<Entry>, NotExportable> {
        Ok(Self::of_settings(index, api_keys)?.entry(stamp))
    }

    pub fn of_query_config(config: &QueryConfigRef, item: &Item) -> Result<Self, Rejection> {
        QueryConfig::decode(config, &item.attributes())
            .map(|decoded| Self::of_decoded_query_config(config, decoded))
    }

    pub fn of_decoded_query_config(config: &QueryConfigRef, decoded: QueryConfig) -> Self {
        Self { item: config.clone().into(), keys: vec![decoded.key], value: decoded.value }
    }

    /// The value. It may hold an API key.
    pub fn value(&self) -> &str {
        &self.value
    }

    pub fn digest(&self) -> Digest {
        Digest::of(self.value.as_bytes())
    }

    pub fn entry(&self, stamp: &Stamp) -> Rc<Entry> {
        let ItemName { index, query } = &self.item;
        Rc::new(Entry::new(&self.value, index, stamp).of_query(query.clone()))
    }
}
