//! Gathers what KV and the table know of a key of the query-config namespace.

use std::collections::{BTreeMap, BTreeSet};

use super::Unknown;
use super::gathered::{self, AskedItem, Gathered, KeyFacts, Unclaimed, Wanted};
use crate::export::bulk;
use crate::export::desired::Desired;
use crate::export::invocation::Invocation;
use crate::export::query_config_removal::{Twins, twins};
use crate::export::table::{ReadError, query_config_page, read_items};
use crate::index::IndexRef;
use crate::item::{Item, ItemKey, ItemKind, QueryConfigRef, Rejection};
use crate::kv::{StoredQueryConfig, StoredValue};
use crate::ports::{Namespace, QueryConfigs, Services};

/// Gathers what is known of the query config that a key is taken for: the one that KV's value under
/// it names, else the one that asks for it.
pub async fn about_key<S: Services>(
    invocation: &Invocation<'_, S>,
    key: &str,
    index_id: &str,
) -> Result<Gathered, Unknown> {
    let (mut found, failures) =
        bulk::read(invocation, Namespace::QueryConfigs, vec![key.to_owned()]).await;
    if let Some(error) = failures.into_values().next() {
        return Err(error.into());
    }
    let stored = found.remove(key);
    let named_config = stored.as_ref().and_then(query_config_named_by);
    let names_the_key = |config: &QueryConfigRef| config.kv_key() == key;
    let configs = match named_config.as_ref().filter(|config| names_the_key(config)) {
        Some(config) => twins(config),
        None => search(invocation, key, index_id).await?,
    };
    let items = read_items(invocation, configs.iter().map(ItemKey::of_query_config)).await?;
    let there = configs.into_iter().filter_map(|config| {
        Some((config.clone(), items.get(&ItemKey::of_query_config(&config))?))
    });
    let there: BTreeMap<QueryConfigRef, &Item> = there.collect();
    let counts =
        stored.as_ref().is_some_and(|stored| stored.counts_for(&invocation.config.environment));
    let owner = owner(&there, named_config.as_ref().filter(|_| counts));
    let taken_for = match (&named_config, &owner) {
        (Some(config), _) if counts => Some(config.clone()),
        (_, Some(owner)) => Some(owner.clone()),
        (config, None) => config.clone(),
    };
    if stored.is_none() && owner.is_none() {
        return Err(Unknown::NotFound);
    }
    let value_of =
        |config: &QueryConfigRef| there.get(config).map(|item| value_of(invocation, config, item));
    let item = match taken_for.as_ref().and_then(value_of) {
        None => AskedItem::Absent,
        Some(Ok(_)) => AskedItem::Exportable,
        Some(Err(rejection)) => AskedItem::Rejected(rejection),
    };
    let wanted = match owner.as_ref().and_then(value_of) {
        Some(Ok(value)) => Wanted::Value(value),
        Some(Err(_)) => Wanted::WhatIsThere,
        None if named_config.as_ref().is_some_and(names_the_key) => {
            Wanted::Unclaimed(Unclaimed::Deleted)
        }
        None => Wanted::Unclaimed(Unclaimed::OfUnknownQueryConfig),
    };
    let named_index = stored.as_ref().and_then(gathered::named_by);
    let index = taken_for.map(|config| config.index).or_else(|| named_index.clone());
    let facts = KeyFacts {
        key: key.to_owned(),
        stored,
        named: named_index,
        claimants: there.keys().map(|config| config.index.clone()).collect(),
        owner: owner.map(|owner| owner.index),
        wanted,
    };
    Ok(Gathered {
        index,
        item,
        keys: vec![facts],
        pointers: BTreeSet::new(),
        of_query_config: true,
        forgot_some: false,
    })
}

/// The item that has the key: the one that KV's value names, else the first.
fn owner(
    there: &BTreeMap<QueryConfigRef, &Item>,
    named: Option<&QueryConfigRef>,
) -> Option<QueryConfigRef> {
    let named = named.filter(|named| there.contains_key(named));
    named.or_else(|| there.keys().next()).cloned()
}

/// What KV should hold of an item.
fn value_of<S: Services>(
    invocation: &Invocation<'_, S>,
    config: &QueryConfigRef,
    item: &Item,
) -> Result<String, Rejection> {
    let entry = Desired::of_query_config(config, item)?.entry(&invocation.stamp())?;
    Ok(entry.to_stored().value)
}

/// The query configs that ask for a key, among all of the indexes that it can mean.
async fn search<S: Services>(
    invocation: &Invocation<'_, S>,
    key: &str,
    index_id: &str,
) -> Result<Twins, ReadError> {
    let mut found = Twins::new();
    for index in IndexRef::all_with_id(index_id) {
        let mut after = None;
        loop {
            let part = QueryConfigs::All(&index);
            let page = query_config_page(invocation, part, after.as_ref()).await?;
            found.extend(page.items.iter().filter_map(|(item, _)| match item.kind() {
                ItemKind::QueryConfig(config) if config.kv_key() == key => Some(config),
                _ => None,
            }));
            after = page.last_read;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(found)
}

/// The query config that a value names.
fn query_config_named_by(stored: &StoredValue) -> Option<QueryConfigRef> {
    StoredQueryConfig::parse(&stored.value).and_then(QueryConfigRef::of_stored)
}
