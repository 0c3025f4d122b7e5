//! Reads what KV and the table know, a request at a time.

use std::collections::{BTreeMap, BTreeSet};

use super::Unknown;
use super::claim_index::ClaimIndex;
use crate::export::bulk;
use crate::export::invocation::Invocation;
use crate::export::settle::table_view::{Held, Named, TableView};
use crate::export::table::{Pass, PassOver, ReadError, read_items};
use crate::index::IndexRef;
use crate::item::ItemKey;
use crate::item::keys::{claimed_keys, settings_keys};
use crate::kv::{StoredValue, check_key};
use crate::ports::{Namespace, ScanColumns, Services};

/// What has been read so far.
pub struct Looking<'a, S> {
    pub invocation: &'a Invocation<'a, S>,
    /// What KV holds under each key that was read.
    pub stored: BTreeMap<String, Option<StoredValue>>,
    /// What the pass has found, where it had to come before the index was known.
    pub claims: Option<ClaimIndex>,
}

impl<'a, S: Services> Looking<'a, S> {
    /// Nothing has been read yet.
    pub fn new(invocation: &'a Invocation<'a, S>) -> Self {
        Self { invocation, stored: BTreeMap::new(), claims: None }
    }

    /// Reads what KV holds under keys, as far as that is not known.
    pub async fn read(&mut self, keys: impl IntoIterator<Item = String>) -> Result<(), Unknown> {
        let unread = keys.into_iter().filter(|key| !self.stored.contains_key(key));
        let unread: BTreeSet<String> = unread.filter(|key| check_key(key).is_ok()).collect();
        if unread.is_empty() {
            return Ok(());
        }
        let keys = unread.iter().cloned().collect();
        let (mut found, failures) = bulk::read(self.invocation, Namespace::Settings, keys).await;
        if let Some(error) = failures.into_values().next() {
            return Err(error.into());
        }
        self.stored.extend(unread.into_iter().map(|key| {
            let stored = found.remove(&key);
            (key, stored)
        }));
        Ok(())
    }

    /// Reads the keys that an index asks for, and the shop ids that its values name.
    pub async fn read_keys_of(&mut self, index: &IndexRef) -> Result<(), Unknown> {
        let key = ItemKey::of_index(index);
        let items = read_items(self.invocation, [key.clone()]).await?;
        let keys = items.get(&key).map(|item| claimed_keys(index, &item.attributes()));
        let keys = keys.unwrap_or_else(|| settings_keys(index, None));
        self.read(keys.into_iter().chain(self.shop_ids_named_for(index))).await?;
        self.read(self.shop_ids_named_for(index)).await
    }

    pub fn shop_ids_named_for(&self, index: &IndexRef) -> Vec<String> {
        let held = self.held();
        let named = held.values().flat_map(Held::named).filter(|named| named.index == *index);
        named.flat_map(|named| named.shop_ids.iter().cloned()).collect()
    }

    pub fn held(&self) -> BTreeMap<String, Held> {
        let environment = &self.invocation.config.environment;
        // Values can be large, and what is decided hangs on what they name alone.
        let nothing = || StoredValue { value: String::new(), metadata: None };
        let held = |stored: &Option<StoredValue>| match stored {
            None => Held::Nothing(BTreeSet::new()),
            Some(stored) => match Named::of(stored, environment) {
                Some(named) => Held::Ours { named, stored: nothing() },
                None => Held::Strangers,
            },
        };
        self.stored.iter().map(|(key, stored)| (key.clone(), held(stored))).collect()
    }

    /// A view with the items of the table that matter to it.
    pub async fn filled(&self, mut view: TableView) -> Result<TableView, ReadError> {
        let Some(claims) = &self.claims else {
            let mut pass = Pass::new(self.invocation, PassOver::Table(ScanColumns::Claims));
            while let Some(items) = pass.next().await? {
                for (key, item) in &items {
                    view.add(key, item);
                }
            }
            return Ok(view);
        };
        let names = view.names();
        let by_index_id = names.iter().flat_map(|name| IndexRef::all_with_id(name));
        let mut keys: BTreeSet<ItemKey> =
            by_index_id.map(|index| ItemKey::of_index(&index)).collect();
        keys.extend(claims.items_that_name(names.iter().copied()));
        for (key, item) in &read_items(self.invocation, keys).await? {
            view.add(key, item);
        }
        Ok(view)
    }
}
