//! The items of a repair: read just before they are written, and just after.

use std::collections::{BTreeMap, BTreeSet};

use crate::export::api_keys::{ApiKeys, Exportable, NotExportable};
use crate::export::desired::{Desired, warn_if_odd};
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::table::{ReadError, read_items};
use crate::export::verified_write::{ItemWrite, Reread};
use crate::item::{Item, ItemKey, ItemKind};
use crate::ports::Services;

/// Items that are read at once: five requests of 100 items, and up to some 2 MB.
pub const READ_ITEMS: usize = 500;

/// Items and those of their keys that are to be written.
pub type Work = BTreeMap<ItemKey, BTreeSet<String>>;

/// Items that are read just before they are written, and just after.
pub struct RepairedItems<'a, S> {
    invocation: &'a Invocation<'a, S>,
    api_keys: ApiKeys,
}

type Failed = BTreeMap<String, KeyError>;

impl<'a, S: Services> RepairedItems<'a, S> {
    /// No items yet. Their API keys are asked for here and not taken from the comparison, which may
    /// be minutes old: a key that was rotated meanwhile must not be overwritten with the old one.
    pub fn new(invocation: &'a Invocation<'a, S>, compared_with: &ApiKeys) -> Self {
        Self { invocation, api_keys: compared_with.renewed() }
    }

    /// Reads items; answers with what is to be written of them, and with the keys that failed.
    pub async fn read(&mut self, work: Work) -> (Vec<ItemWrite>, Failed) {
        let items = match read_items(self.invocation, work.keys().cloned()).await {
            Ok(items) => items,
            Err(error) => {
                let keys = work.into_values().flatten();
                let failed = keys.map(|key| (key, error.clone().into())).collect();
                return (Vec::new(), failed);
            }
        };
        let indexes = items.iter().filter_map(|(key, item)| match key.kind() {
            ItemKind::IndexSettings(index) => {
                Exportable::decode(&index, item, self.invocation.config).ok()
            }
            ItemKind::QueryConfig(_) | ItemKind::Skipped => None,
        });
        let indexes: Vec<Exportable> = indexes.collect();
        indexes.iter().for_each(|index| warn_if_odd(&index.settings));
        self.api_keys.ask(self.invocation, &indexes).await;
        let stamp = self.invocation.stamp();
        let (mut writes, mut failed) = (Vec::new(), Failed::new());
        for (item_key, keys) in work {
            // Gone or moved since the scan: nothing was written, so nothing is left behind.
            let Some(item) = items.get(&item_key) else { continue };
            let desired = self.desired(&item_key, item);
            match desired.and_then(|desired| Ok((desired.entry(&stamp)?, desired.keys))) {
                Ok((entry, asked)) => {
                    let keys: BTreeSet<String> =
                        keys.into_iter().filter(|key| asked.contains(key)).collect();
                    if !keys.is_empty() {
                        writes.push(ItemWrite { item: item_key, entry, keys });
                    }
                }
                // What KV holds stays; the scan has logged it.
                Err(NotExportable::Rejected(_)) => {}
                Err(NotExportable::Unavailable(error)) => {
                    failed.extend(keys.into_iter().map(|key| (key, error.clone().into())));
                }
            }
        }
        (writes, failed)
    }
}

impl<S: Services> Reread for RepairedItems<'_, S> {
    const WRITES_NEW_KEYS: bool = false;

    async fn read_again(
        &self,
        items: &[ItemKey],
        mut found: impl FnMut(&ItemKey, &Item),
    ) -> Result<(), ReadError> {
        for part in items.chunks(READ_ITEMS) {
            for (key, item) in &read_items(self.invocation, part.iter().cloned()).await? {
                found(key, item);
            }
        }
        Ok(())
    }

    fn desired(&self, key: &ItemKey, item: &Item) -> Result<Desired, NotExportable> {
        Desired::of_item(key, item, self.invocation.config, &self.api_keys)
    }
}
