//! Gathers what KV and the table know of an index, or of a key of the settings namespace.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;

use super::Unknown;
use super::claim_index::ClaimIndex;
use super::gathered::{Gathered, ItemNow, KeyFacts, Unclaimed, Wanted, named_by};
use crate::export::api_keys::ApiKeys;
use crate::export::bulk;
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::settle::decide::{Decision, ItemNow as Settled, decide};
use crate::export::settle::look::{item_now, read_whole};
use crate::export::settle::table_view::{Held, Named, TableView};
use crate::export::table::{Pass, PassOver, ReadError, read_items};
use crate::index::IndexRef;
use crate::item::keys::{claimed_keys, settings_keys};
use crate::item::{IndexSettings, ItemKey};
use crate::kv::{StoredValue, check_key};
use crate::ports::{Namespace, ScanColumns, Services};

/// Gathers what is known of an index.
pub async fn about_index<S: Services>(
    invocation: &Invocation<'_, S>,
    index: &IndexRef,
) -> Result<Gathered, Unknown> {
    let mut looking = Looking { invocation, stored: BTreeMap::new(), claims: None };
    looking.read_keys_of(index).await?;
    looking.gathered(index, None).await
}

/// Gathers what is known of the index that a key is taken for.
pub async fn about_key<S: Services>(
    invocation: &Invocation<'_, S>,
    key: &str,
) -> Result<Gathered, Unknown> {
    let mut looking = Looking { invocation, stored: BTreeMap::new(), claims: None };
    looking.read([key.to_owned()]).await?;
    let named = looking.held().values().flat_map(Held::named).next().cloned();
    let index = match named {
        Some(named) => named.index,
        None => match looking.whose(key).await? {
            Whose::Index(index) => index,
            Whose::Nobodys(pointers) => return Ok(looking.nobodys(key, pointers)),
        },
    };
    looking.read_keys_of(&index).await?;
    looking.gathered(&index, Some(key)).await
}

/// Whose a key is that KV lacks, or under which it holds a stranger's value.
enum Whose {
    Index(IndexRef),
    /// Nothing says whose; these items' aliases point at it.
    Nobodys(BTreeSet<ItemKey>),
}

/// What has been read so far.
struct Looking<'a, S> {
    invocation: &'a Invocation<'a, S>,
    /// What KV holds under each key that was read.
    stored: BTreeMap<String, Option<StoredValue>>,
    /// What the pass has found, where it had to come before the index was known.
    claims: Option<ClaimIndex>,
}

impl<S: Services> Looking<'_, S> {
    /// Reads what KV holds under keys, as far as that is not known.
    async fn read(&mut self, keys: impl IntoIterator<Item = String>) -> Result<(), Unknown> {
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
    async fn read_keys_of(&mut self, index: &IndexRef) -> Result<(), Unknown> {
        let key = ItemKey::of_index(index);
        // A stranger's value may name what no table holds.
        let readable = Some(key.clone()).filter(ItemKey::fits_the_table);
        let items = read_items(self.invocation, readable).await?;
        let keys = items.get(&key).map(|item| claimed_keys(index, &item.attributes()));
        let keys = keys.unwrap_or_else(|| settings_keys(index, None));
        self.read(keys.into_iter().chain(self.shop_ids_named_for(index))).await?;
        self.read(self.shop_ids_named_for(index)).await
    }

    fn shop_ids_named_for(&self, index: &IndexRef) -> Vec<String> {
        let held = self.held();
        let named = held.values().flat_map(Held::named).filter(|named| named.index == *index);
        named.flat_map(|named| named.shop_ids.iter().cloned()).collect()
    }

    fn held(&self) -> BTreeMap<String, Held> {
        let environment = &self.invocation.config.environment;
        let held = |stored: &Option<StoredValue>| match stored {
            Some(stored) => Held::new(stored.clone(), environment),
            None => Held::Nothing(BTreeSet::new()),
        };
        self.stored.iter().map(|(key, stored)| (key.clone(), held(stored))).collect()
    }

    /// Finds out whose a key is by the item that asks for it, by what its value names in another
    /// environment, or by who points at it.
    async fn whose(&mut self, key: &str) -> Result<Whose, Unknown> {
        let mut claims = ClaimIndex::about(key);
        let mut pass = Pass::new(self.invocation, PassOver::Table(ScanColumns::Claims));
        while let Some(items) = pass.next().await? {
            for (key, item) in &items {
                claims.add(key, item);
            }
        }
        self.claims = Some(claims);
        let held = self.held();
        let readings: Vec<IndexRef> = IndexRef::all_with_id(key).collect();
        let mut view = TableView::for_keys(&held);
        for index in &readings {
            view = view.and_for(&Named { index: index.clone(), shop_ids: BTreeSet::new() });
        }
        let view = self.filled(view).await?;
        let claimant = held.get(key).and_then(|held| view.claimant(key, held));
        let stored = self.stored.get(key).and_then(Option::as_ref);
        if let Some(index) = claimant.cloned().or_else(|| stored.and_then(named_by)) {
            return Ok(Whose::Index(index));
        }
        let pointers = view.pointers_at_name(key);
        let own_accounts = pointers.iter().map(|pointer| pointer.pk.as_str());
        let own_accounts: BTreeSet<&str> = own_accounts.collect();
        let of_own = readings.iter().find(|index| own_accounts.contains(index.account.as_str()));
        match of_own.or(readings.first()) {
            Some(index) if !pointers.is_empty() => Ok(Whose::Index(index.clone())),
            _ if pointers.is_empty() && stored.is_none() => Err(Unknown::NotFound),
            _ => Ok(Whose::Nobodys(pointers)),
        }
    }

    /// A view with the items of the table that matter to it.
    async fn filled(&self, mut view: TableView) -> Result<TableView, ReadError> {
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
        keys.retain(ItemKey::fits_the_table);
        for (key, item) in &read_items(self.invocation, keys).await? {
            view.add(key, item);
        }
        Ok(view)
    }

    /// Reads the table's side of all keys that have been read, and decides for each what settling
    /// would make of it.
    async fn gathered(self, index: &IndexRef, asked: Option<&str>) -> Result<Gathered, Unknown> {
        let held = self.held();
        let index_id = index.index_id();
        let shop_ids = held.keys().filter(|key| **key != index_id).cloned().collect();
        let named = Named { index: index.clone(), shop_ids };
        let view = self.filled(TableView::for_keys(&held).and_for(&named)).await?;
        let items = self.items(&view, &held, index).await?;
        let item = match items.now.get(index) {
            None | Some(Settled::Gone) => ItemNow::Absent,
            Some(Settled::Rejected(rejection)) => ItemNow::Rejected(rejection.clone()),
            Some(Settled::Exportable { .. } | Settled::Unavailable { .. }) => ItemNow::Exportable,
        };
        let pointers = view.pointers(&named);
        let is_known = item != ItemNow::Absent
            || !pointers.is_empty()
            || self.stored.values().any(Option::is_some);
        if !is_known {
            return Err(Unknown::NotFound);
        }
        let mut keys = Vec::new();
        for (key, held) in &held {
            let facts = self.facts(key, held, &view, &items)?;
            let is_there = facts.stored.is_some() || !facts.claimants.is_empty();
            let dangles = *key == index_id && !pointers.is_empty();
            if is_there || dangles || asked == Some(key) {
                keys.push(facts);
            }
        }
        // The primary key first, then the index id's, then what is left over.
        let place = |facts: &KeyFacts| match facts.claimants.contains(index) {
            true => u8::from(facts.key == index_id),
            false if facts.key == index_id => 1,
            false => 2,
        };
        keys.sort_by_key(place);
        let forgot_some = self.claims.as_ref().is_some_and(ClaimIndex::forgot_some);
        let index = Some(index.clone());
        Ok(Gathered { index, item, keys, pointers, of_query_config: false, forgot_some })
    }

    /// Reads the items that decisions need, and that of the index itself.
    async fn items(
        &self,
        view: &TableView,
        held: &BTreeMap<String, Held>,
        index: &IndexRef,
    ) -> Result<Items, ReadError> {
        let mut indexes = view.items_to_read(held);
        if view.has_item(index) {
            indexes.insert(index.clone());
        }
        let (mut now, complete) = read_whole(self.invocation, indexes).await?;
        // The API key in KV is part of what is to be explained, and is not used again here.
        let mut api_keys = ApiKeys::default();
        api_keys.ask_service(self.invocation, &complete).await;
        for settings in &complete {
            let item = item_now(self.invocation, settings, &api_keys);
            now.insert(settings.index.clone(), item);
        }
        let settings = complete.into_iter().map(|settings| (settings.index.clone(), settings));
        Ok(Items { now, settings: settings.collect() })
    }

    fn facts(
        &self,
        key: &str,
        held: &Held,
        view: &TableView,
        items: &Items,
    ) -> Result<KeyFacts, KeyError> {
        let owner = view.claimant(key, held).cloned();
        let wanted = match (decide(key, held, view, &items.now), &owner) {
            (Decision::Write { entry, .. }, _) => Wanted::Value(entry.to_stored().value),
            (Decision::Undecided(_), Some(owner)) => items.value_without_api_key(owner),
            (Decision::KeepFor { .. }, Some(_)) => Wanted::WhatIsThere,
            (Decision::KeepFor { .. }, None) => Wanted::Unclaimed(Unclaimed::KeptForRejected),
            (Decision::Withhold(pointers), _) => Wanted::Unclaimed(Unclaimed::Withheld(pointers)),
            (Decision::Delete(_) | Decision::Undecided(_), _) => {
                Wanted::Unclaimed(Unclaimed::Deleted)
            }
            (Decision::LeaveAlone, _) => Wanted::Unclaimed(Unclaimed::LeftAlone),
            (Decision::LookAgain, _) => return Err(KeyError::ChangedMeanwhile),
        };
        let stored = self.stored.get(key).cloned().flatten();
        let named = stored.as_ref().and_then(named_by);
        let claimants = view.claimants(key).cloned().collect();
        Ok(KeyFacts { key: key.to_owned(), stored, named, claimants, owner, wanted })
    }

    /// A key of which nothing says whose it is.
    fn nobodys(mut self, key: &str, pointers: BTreeSet<ItemKey>) -> Gathered {
        let facts = KeyFacts {
            key: key.to_owned(),
            stored: self.stored.remove(key).flatten(),
            named: None,
            claimants: Vec::new(),
            owner: None,
            wanted: Wanted::Unclaimed(Unclaimed::LeftAlone),
        };
        Gathered {
            index: None,
            item: ItemNow::Absent,
            keys: vec![facts],
            pointers,
            of_query_config: false,
            forgot_some: false,
        }
    }
}

/// Items that were read whole.
struct Items {
    now: BTreeMap<IndexRef, Settled>,
    settings: BTreeMap<IndexRef, IndexSettings>,
}

impl Items {
    fn value_without_api_key(&self, index: &IndexRef) -> Wanted {
        let value =
            self.settings.get(index).map(|settings| settings.value(&SecretString::default()));
        Wanted::ValueWithoutApiKey(value.unwrap_or_default())
    }
}
