//! Gathers what KV and the table know of an index, or of a key of the settings namespace.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;

use super::gathered::{AskedItem, Due, Gathered, KeyFacts, named_by};
use crate::export::api_keys::{
    ApiKeys, AskingForApiKeys, BATCH_TIME_FOR_API_KEYS, Patience, Reuse,
};
use crate::export::bulk;
use crate::export::differs::ApiKeyCheck;
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::settle::decide::{Decision, ItemNow, decide};
use crate::export::settle::table_view::{Held, Named, TableView};
use crate::export::settle::{item_now, read_whole};
use crate::export::table::{Pass, PassOver, ReadError, read_items};
use crate::index::IndexRef;
use crate::item::alias_targets::{AliasTarget, alias_targets};
use crate::item::keys::{claimed_keys, settings_keys};
use crate::item::{IndexSettings, Item, ItemKey};
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::kv::{StoredValue, check_key};
use crate::ports::{Namespace, ScanColumns, Services};

/// The most targets of an item's own aliases that are looked up. They share a request with its keys.
const MAX_TARGETS: usize = 50;

const _: () = assert!(MAX_TARGETS + 10 <= MAX_BULK_GET_KEYS);

/// What is known of an index; `None` where nobody knows it.
pub async fn about_index<S: Services>(
    invocation: &Invocation<'_, S>,
    index: &IndexRef,
) -> Result<Option<Gathered>, KeyError> {
    Gathering::new(invocation).about(index).await
}

/// What is known of the index that a key is taken for.
pub async fn about_key<S: Services>(
    invocation: &Invocation<'_, S>,
    key: &str,
) -> Result<Option<Gathered>, KeyError> {
    let mut gathering = Gathering::new(invocation);
    gathering.read([key.to_owned()]).await?;
    let named = gathering.held.values().flat_map(Held::named).next().cloned();
    if let Some(Named { index, .. }) = named {
        return gathering.about(&index).await;
    }
    let readings: Vec<Named> = IndexRef::all_with_id(key)
        .map(|index| Named { index, shop_ids: BTreeSet::new() })
        .collect();
    let view = readings.iter().fold(TableView::for_keys(&gathering.held), TableView::and_for);
    let view = gathering.pass(view).await?;
    match gathering.taken_for(key, &view, readings) {
        Some(index) => gathering.about(&index).await,
        None => Ok(gathering.of_nobody(key, view.pointers_at_name(key))),
    }
}

struct Gathering<'a, S> {
    invocation: &'a Invocation<'a, S>,
    /// What KV holds under each key that was read, as decisions take it.
    held: BTreeMap<String, Held>,
    /// The same, strangers' values included.
    stored: BTreeMap<String, StoredValue>,
}

impl<'a, S: Services> Gathering<'a, S> {
    fn new(invocation: &'a Invocation<'a, S>) -> Self {
        Self { invocation, held: BTreeMap::new(), stored: BTreeMap::new() }
    }

    /// Reads what KV holds under keys, as far as that is not known.
    async fn read(&mut self, keys: impl IntoIterator<Item = String>) -> Result<(), KeyError> {
        let unread = keys.into_iter().filter(|key| !self.held.contains_key(key));
        let unread: BTreeSet<String> = unread.filter(|key| check_key(key).is_ok()).collect();
        if unread.is_empty() {
            return Ok(());
        }
        let keys = unread.iter().cloned().collect();
        let (mut found, failures) = bulk::read(self.invocation, Namespace::Settings, keys).await;
        if let Some(error) = failures.into_values().next() {
            return Err(error.into());
        }
        for key in unread {
            let stored = found.remove(&key);
            let environment = &self.invocation.config.environment;
            let held = match stored.clone() {
                Some(stored) => Held::new(stored, environment),
                None => Held::Nothing(BTreeSet::new()),
            };
            self.held.insert(key.clone(), held);
            self.stored.extend(stored.map(|stored| (key, stored)));
        }
        Ok(())
    }

    /// Makes a pass over the table, for what the view looks for.
    async fn pass(&self, mut view: TableView) -> Result<TableView, ReadError> {
        let mut pass = Pass::new(self.invocation, PassOver::Table(ScanColumns::Claims));
        while let Some(items) = pass.next().await? {
            for (key, item) in &items {
                view.add(key, item);
            }
        }
        Ok(view)
    }

    /// The index that a key is taken for where KV's value does not count: that of the item which
    /// asks for it, the one that another environment's value names, or one that aliases point at.
    fn taken_for(&self, key: &str, view: &TableView, readings: Vec<Named>) -> Option<IndexRef> {
        let claimant = view.claimant(key, self.held.get(key)?).cloned();
        let stored = self.stored.get(key);
        claimant.or_else(|| stored.and_then(named_by)).or_else(|| {
            let pointers = view.pointers_at_name(key);
            let of_own = |index: &IndexRef| pointers.iter().any(|item| item.pk == index.account);
            let readings = readings.into_iter().map(|named| named.index);
            readings.filter(|_| !pointers.is_empty()).min_by_key(|index| !of_own(index))
        })
    }

    /// A key of which nothing says whose it is.
    fn of_nobody(mut self, key: &str, pointers: BTreeSet<ItemKey>) -> Option<Gathered> {
        let stored = self.stored.remove(key);
        if stored.is_none() && pointers.is_empty() {
            return None;
        }
        let facts = KeyFacts { key: key.to_owned(), stored, ..KeyFacts::default() };
        Some(Gathered { keys: vec![facts], pointers, ..Gathered::default() })
    }

    /// What is known of an index, its keys, and those that have been read before.
    async fn about(mut self, index: &IndexRef) -> Result<Option<Gathered>, KeyError> {
        let dangling = self.read_keys_of(index).await?;
        let index_id = index.index_id();
        let shop_ids = self.held.keys().filter(|key| **key != index_id).cloned().collect();
        let named = Named { index: index.clone(), shop_ids };
        let view = self.pass(TableView::for_keys(&self.held).and_for(&named)).await?;
        let (items, settings) = self.items(&view, index).await?;
        let item = match items.get(index) {
            None | Some(ItemNow::Gone) => AskedItem::Absent,
            Some(ItemNow::Rejected(rejection)) => AskedItem::Rejected(rejection.clone()),
            Some(ItemNow::Exportable { .. } | ItemNow::Unavailable { .. }) => AskedItem::Exportable,
        };
        let pointers = view.pointers(&named);
        if item == AskedItem::Absent && pointers.is_empty() && self.stored.is_empty() {
            return Ok(None);
        }
        let mut keys = Vec::new();
        for (key, held) in &self.held {
            let stored = self.stored.remove(key);
            let claimant = view.claimant(key, held).cloned();
            let dangles = *key == index_id && !pointers.is_empty();
            if stored.is_none() && claimant.is_none() && !dangles {
                continue;
            }
            let decision = decide(key, held, &view, &items);
            keys.push(KeyFacts {
                key: key.clone(),
                stored,
                claimants: view.claimants(key).cloned().collect(),
                due: due(decision, claimant.as_ref().and_then(|claimant| settings.get(claimant)))?,
                claimant,
            });
        }
        // The primary key first, then the index id's, then what is left over.
        keys.sort_by_key(|facts| match (facts.key == index_id, facts.claimants.contains(index)) {
            (false, true) => 0,
            (true, _) => 1,
            (false, false) => 2,
        });
        let index = Some(index.clone());
        Ok(Some(Gathered { index, item, keys, of_query_config: false, pointers, dangling }))
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
        dangling.retain(|target| {
            self.held.remove(target);
            self.stored.remove(target).is_none()
        });
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
        let named = self.held.values().flat_map(Held::named).filter(|named| named.index == *index);
        named.flat_map(|named| named.shop_ids.iter().cloned())
    }

    /// Reads the items that decisions need, and that of the index itself: what each would be exported
    /// as, and the settings of those that can be but for their API keys.
    async fn items(
        &self,
        view: &TableView,
        index: &IndexRef,
    ) -> Result<(BTreeMap<IndexRef, ItemNow>, BTreeMap<IndexRef, IndexSettings>), ReadError> {
        let mut indexes = view.items_to_read(&self.held);
        indexes.extend(view.has_item(index).then(|| index.clone()));
        let (mut items, exportable) = read_whole(self.invocation, indexes).await?;
        let mut api_keys = ApiKeys::new(AskingForApiKeys {
            patience: Patience::InAll(BATCH_TIME_FOR_API_KEYS),
            // The API key in KV is part of what is to be explained.
            reuse: Reuse::Never,
        });
        api_keys.ask(self.invocation, &exportable).await;
        for index in &exportable {
            let item = item_now(self.invocation, index, &api_keys);
            items.insert(index.settings.index.clone(), item);
        }
        let settings = exportable.into_iter();
        let settings = settings.map(|index| (index.settings.index.clone(), index.settings));
        Ok((items, settings.collect()))
    }
}

/// What should become of a key; `claimant` is the item that it is for, if only the API key is open.
fn due(decision: Decision, claimant: Option<&IndexSettings>) -> Result<Due, KeyError> {
    Ok(match (decision, claimant) {
        (Decision::Write { entry, .. }, _) => {
            Due::Value { value: entry.to_stored().value, api_key: ApiKeyCheck::Compared }
        }
        (Decision::Undecided(_), Some(settings)) => Due::Value {
            value: settings.value(&SecretString::default()),
            api_key: ApiKeyCheck::NotCompared,
        },
        (Decision::Delete(_) | Decision::Undecided(_), _) => Due::Deleted,
        (Decision::KeepFor { .. }, _) => Due::KeptForRejected,
        (Decision::Withhold(pointers), _) => Due::Withheld(pointers),
        (Decision::LeaveAlone, _) => Due::LeftAlone,
        (Decision::LookAgain, _) => return Err(KeyError::ChangedMeanwhile),
    })
}
