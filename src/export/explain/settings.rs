//! Gathers what KV and the table know of an index, or of a key of the settings namespace.

use std::collections::BTreeMap;

use secrecy::SecretString;

use super::Unknown;
use super::claim_index::ClaimIndex;
use super::gathered::{AskedItem, Gathered, KeyFacts, Unclaimed, Wanted, named_by};
use super::looking::Looking;
use super::whose::Whose;
use crate::export::api_keys::ApiKeys;
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::settle::decide::{Decision, ItemNow, decide};
use crate::export::settle::table_view::{Held, Named, TableView};
use crate::export::settle::{item_now, read_whole};
use crate::export::table::ReadError;
use crate::index::IndexRef;
use crate::item::IndexSettings;
use crate::kv::StoredValue;
use crate::ports::Services;

/// Gathers what is known of an index.
pub async fn about_index<S: Services>(
    invocation: &Invocation<'_, S>,
    index: &IndexRef,
) -> Result<Gathered, Unknown> {
    let mut looking = Looking::new(invocation);
    looking.read_keys_of(index).await?;
    looking.gathered(index, None).await
}

/// Gathers what is known of the index that a key is taken for.
pub async fn about_key<S: Services>(
    invocation: &Invocation<'_, S>,
    key: &str,
) -> Result<Gathered, Unknown> {
    let mut looking = Looking::new(invocation);
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

impl<S: Services> Looking<'_, S> {
    /// Reads the table's side of all keys that have been read, and decides for each what settling
    /// would make of it.
    async fn gathered(
        mut self,
        index: &IndexRef,
        asked: Option<&str>,
    ) -> Result<Gathered, Unknown> {
        let held = self.held();
        let index_id = index.index_id();
        let shop_ids = held.keys().filter(|key| **key != index_id).cloned().collect();
        let named = Named { index: index.clone(), shop_ids };
        let view = self.filled(TableView::for_keys(&held).and_for(&named)).await?;
        let items = self.items(&view, &held, index).await?;
        let item = match items.now.get(index) {
            None | Some(ItemNow::Gone) => AskedItem::Absent,
            Some(ItemNow::Rejected(rejection)) => AskedItem::Rejected(rejection.clone()),
            Some(ItemNow::Exportable { .. } | ItemNow::Unavailable { .. }) => AskedItem::Exportable,
        };
        let pointers = view.pointers(&named);
        let is_known = item != AskedItem::Absent
            || !pointers.is_empty()
            || self.stored.values().any(Option::is_some);
        if !is_known {
            return Err(Unknown::NotFound);
        }
        let mut keys = Vec::new();
        for (key, held) in &held {
            let stored = self.stored.remove(key).flatten();
            let facts = facts_of(key, held, stored, &view, &items)?;
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
}

/// What is known of a key, with what settling would make of it.
fn facts_of(
    key: &str,
    held: &Held,
    stored: Option<StoredValue>,
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
        (Decision::Delete(_) | Decision::Undecided(_), _) => Wanted::Unclaimed(Unclaimed::Deleted),
        (Decision::LeaveAlone, _) => Wanted::Unclaimed(Unclaimed::LeftAlone),
        (Decision::LookAgain, _) => return Err(KeyError::ChangedMeanwhile),
    };
    let named = stored.as_ref().and_then(named_by);
    let claimants = view.claimants(key).cloned().collect();
    Ok(KeyFacts { key: key.to_owned(), stored, named, claimants, owner, wanted })
}

/// Items that were read whole.
struct Items {
    now: BTreeMap<IndexRef, ItemNow>,
    settings: BTreeMap<IndexRef, IndexSettings>,
}

impl Items {
    fn value_without_api_key(&self, index: &IndexRef) -> Wanted {
        let value =
            self.settings.get(index).map(|settings| settings.value(&SecretString::default()));
        Wanted::ValueWithoutApiKey(value.unwrap_or_default())
    }
}
