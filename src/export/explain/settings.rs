//! Gathers what KV and the table know of an index, or of a key of the settings namespace.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;

use super::{AskedItem, Findings, KeyFacts, named_by};
use crate::export::api_keys::{ApiKeys, BATCH_TIME_FOR_API_KEYS, NotExportable, Patience, Reuse};
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::settle::decide::{Decision, ItemNow, decide};
use crate::export::settle::table_view::{Held, Named, TableView};
use crate::export::settle::{pass, read_held, read_whole};
use crate::export::table::{ReadError, read_items};
use crate::index::IndexRef;
use crate::item::alias_targets::{AliasTarget, alias_targets};
use crate::item::keys::{claimed_keys, settings_keys};
use crate::item::{Item, ItemKey};
use crate::kv::check_key;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::Services;

/// The most targets of an item's own aliases that are looked up. They share a request with its keys.
const MAX_TARGETS: usize = 50;

const _: () = assert!(MAX_TARGETS + 10 <= MAX_BULK_GET_KEYS);

pub struct Gathering<'a, S> {
    invocation: &'a Invocation<'a, S>,
    /// What KV holds under each key that was read.
    held: BTreeMap<String, Held>,
}

impl<'a, S: Services> Gathering<'a, S> {
    pub fn new(invocation: &'a Invocation<'a, S>) -> Self {
        Self { invocation, held: BTreeMap::new() }
    }

    /// What is known of the index that a key is taken for; `None` where nobody knows the key.
    pub async fn about_key(mut self, key: &str) -> Result<Option<Findings>, KeyError> {
        self.read([key.to_owned()]).await?;
        let named = self.named().next().map(|named| named.index.clone());
        if let Some(index) = named {
            return self.about(&index).await;
        }
        let readings: Vec<Named> = IndexRef::all_with_id(key)
            .map(|index| Named { index, shop_ids: BTreeSet::new() })
            .collect();
        let view = readings.iter().fold(TableView::for_keys(&self.held), TableView::and_for);
        let view = pass(self.invocation, view).await?;
        if let Some(index) = self.taken_for(key, &view, readings) {
            return self.about(&index).await;
        }
        let stored = self.held.get(key).and_then(|held| held.stored.clone());
        let pointers = view.pointers_at_name(key);
        if stored.is_none() && pointers.is_empty() {
            return Ok(None);
        }
        let facts = KeyFacts {
            key: key.to_owned(),
            stored,
            claimants: Vec::new(),
            decision: Decision::LeaveAlone,
            without_api_key: None,
        };
        Ok(Some(Findings { keys: vec![facts], pointers, ..Findings::default() }))
    }

    /// Reads what KV holds under keys, as far as that is not known.
    async fn read(&mut self, keys: impl IntoIterator<Item = String>) -> Result<(), KeyError> {
        let unread = keys.into_iter().filter(|key| !self.held.contains_key(key));
        let unread = unread.map(|key| (key, BTreeSet::new())).collect();
        let (held, failures) = read_held(self.invocation, unread).await;
        if let Some(error) = failures.into_values().next() {
            return Err(error.into());
        }
        self.held.extend(held);
        Ok(())
    }

    /// The index that a key is taken for where KV's value does not count: that of the item which
    /// asks for it, the one that another environment's value names, or one that aliases point at.
    fn taken_for(&self, key: &str, view: &TableView, readings: Vec<Named>) -> Option<IndexRef> {
        let held = self.held.get(key)?;
        let claimant = view.claimant(key, held).cloned();
        claimant.or_else(|| held.stored.as_ref().and_then(named_by)).or_else(|| {
            let pointers = view.pointers_at_name(key);
            let of_own = |index: &IndexRef| pointers.iter().any(|item| item.pk == index.account);
            let readings = readings.into_iter().map(|named| named.index);
            readings.filter(|_| !pointers.is_empty()).min_by_key(|index| !of_own(index))
        })
    }

    /// What is known of an index, its keys, and those that have been read before; `None` where nobody
    /// knows it.
    pub async fn about(mut self, index: &IndexRef) -> Result<Option<Findings>, KeyError> {
        let dangling = self.read_keys_of(index).await?;
        let index_id = index.index_id();
        let shop_ids = self.held.keys().filter(|key| **key != index_id).cloned().collect();
        let named = Named { index: index.clone(), shop_ids };
        let view = TableView::for_keys(&self.held).and_for(&named);
        let view = pass(self.invocation, view).await?;
        let mut indexes = view.items_to_read(&self.held);
        indexes.extend(view.has_item(index).then(|| index.clone()));
        // The API key in KV is part of what is to be explained.
        let mut api_keys = ApiKeys::new(Patience::InAll(BATCH_TIME_FOR_API_KEYS), Reuse::Never);
        let items = read_whole(self.invocation, indexes, &mut api_keys).await?;
        let item = match items.get(index) {
            None => AskedItem::Absent,
            Some(ItemNow { entry: Err(NotExportable::Rejected(rejection)), .. }) => {
                AskedItem::Rejected(rejection.clone())
            }
            Some(_) => AskedItem::Exportable,
        };
        let pointers = view.pointers(&named);
        let holds_nothing = self.held.values().all(|held| held.stored.is_none());
        if item == AskedItem::Absent && pointers.is_empty() && holds_nothing {
            return Ok(None);
        }
        let mut keys = Vec::new();
        for (key, held) in &self.held {
            let stored = held.stored.clone();
            let claimant = view.claimant(key, held);
            let dangles = *key == index_id && !pointers.is_empty();
            if stored.is_none() && claimant.is_none() && !dangles {
                continue;
            }
            let decision = decide(key, held, &view, &items);
            if decision == Decision::LookAgain {
                return Err(KeyError::ChangedMeanwhile);
            }
            let undecided = claimant.filter(|_| matches!(decision, Decision::Undecided(_)));
            let item = undecided.and_then(|index| items.get(index)?.exportable.as_ref().ok());
            keys.push(KeyFacts {
                key: key.clone(),
                stored,
                claimants: view.claimants(key).cloned().collect(),
                decision,
                without_api_key: item.map(|it| it.settings.value(&SecretString::default())),
            });
        }
        // The primary key first, then the index id's, then what is left over.
        keys.sort_by_key(|facts| match (facts.key == index_id, facts.claimants.contains(index)) {
            (false, true) => 0,
            (true, _) => 1,
            (false, false) => 2,
        });
        let index = Some(index.clone());
        Ok(Some(Findings { index, item, keys, of_query_config: false, pointers, dangling }))
    }

    /// Reads the keys that an index asks for, and the shop ids that its values name. Answers with the
    /// index ids that its item's aliases point at and that have neither an item nor a key.
    async fn read_keys_of(&mut self, index: &IndexRef) -> Result<BTreeSet<String>, KeyError> {
        let item = read_items(self.invocation, [ItemKey::of_index(index)]).await?;
        let item = item.values().next().map(Item::attributes);
        let mut keys: BTreeSet<String> = self.shop_ids_named_for(index).collect();
        match &item {
            Some(item) => keys.extend(claimed_keys(index, item)),
            None => keys.extend(settings_keys(index, None)),
        }
        let targets = item.map(|item| alias_targets(&index.account, &item)).unwrap_or_default();
        let targets = targets.into_iter().filter_map(|target| match target {
            AliasTarget::IndexId(id) => Some(id),
            AliasTarget::ShopId(_) => None,
        });
        let is_own = |key: &String| keys.contains(key) || self.held.contains_key(key);
        let targets = targets.filter(|id| check_key(id).is_ok() && !is_own(id)).take(MAX_TARGETS);
        let mut dangling = self.without_item(targets.collect()).await?;
        self.read(keys.into_iter().chain(dangling.iter().cloned())).await?;
        dangling.retain(|target| self.held.remove(target).is_none_or(|held| held.stored.is_none()));
        self.read(self.shop_ids_named_for(index).collect::<Vec<_>>()).await?;
        Ok(dangling)
    }

    /// The index ids for which the table has no item.
    async fn without_item(&self, ids: BTreeSet<String>) -> Result<BTreeSet<String>, ReadError> {
        let readings = ids.iter().flat_map(|id| IndexRef::all_with_id(id));
        let items =
            read_items(self.invocation, readings.map(|index| ItemKey::of_index(&index))).await?;
        let exists = |index: IndexRef| items.contains_key(&ItemKey::of_index(&index));
        Ok(ids.into_iter().filter(|id| !IndexRef::all_with_id(id).any(exists)).collect())
    }

    fn shop_ids_named_for(&self, index: &IndexRef) -> impl Iterator<Item = String> {
        let named = self.named().filter(|named| named.index == *index);
        named.flat_map(|named| named.shop_ids.iter().cloned())
    }

    /// What the values name that count.
    fn named(&self) -> impl Iterator<Item = &Named> {
        self.held.values().flat_map(|held| &held.named)
    }
}
