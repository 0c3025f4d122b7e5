//! Gathers what KV and the table know of a key of the query-config namespace.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{AskedItem, Findings, KeyFacts, named_by};
use crate::export::bulk;
use crate::export::desired::Desired;
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::query_config_removal::twins;
use crate::export::settle::decide::Decision;
use crate::export::table::{ReadError, for_each_query_config, read_items};
use crate::index::IndexRef;
use crate::item::{Item, ItemKey, QueryConfigRef, Rejection};
use crate::kv::Entry;
use crate::ports::{Namespace, Query, Services};

/// What is known of the query config that a key is taken for: the one that KV's value under it names,
/// else the one that asks for it; `None` where there is neither.
pub async fn about_key<S: Services>(
    invocation: &Invocation<'_, S>,
    key: &str,
    index_id: &str,
) -> Result<Option<Findings>, KeyError> {
    let (mut found, failures) =
        bulk::read(invocation, Namespace::QueryConfigs, vec![key.to_owned()]).await;
    if let Some(error) = failures.into_values().next() {
        return Err(error.into());
    }
    let stored = found.remove(key);
    let named = stored.as_ref().and_then(|stored| QueryConfigRef::named_by(&stored.value));
    let names_the_key = named.as_ref().is_some_and(|config| config.kv_key() == key);
    let items = match named.as_ref().filter(|_| names_the_key) {
        Some(config) => {
            read_items(invocation, twins(config).iter().map(ItemKey::of_query_config)).await?
        }
        None => search(invocation, key, index_id).await?,
    };
    let stamp = invocation.stamp();
    let claimant = |(key, item): (&ItemKey, &Item)| {
        let config = key.query_config()?;
        let desired = Desired::of_query_config(&config, item);
        Some((config, desired.map(|desired| desired.entry(&stamp))))
    };
    let claimants: BTreeMap<QueryConfigRef, Result<Rc<Entry>, Rejection>> =
        items.iter().filter_map(claimant).collect();
    let counts =
        stored.as_ref().is_some_and(|stored| stored.counts_for(&invocation.config.environment));
    let counting = named.as_ref().filter(|_| counts);
    let claimant = counting.and_then(|config| claimants.get_key_value(config));
    let claimant = claimant.or_else(|| claimants.first_key_value());
    if stored.is_none() && claimant.is_none() {
        return Ok(None);
    }
    let taken_for = counting.or(claimant.map(|(config, _)| config)).or(named.as_ref());
    let item = match taken_for.and_then(|config| claimants.get(config)) {
        None => AskedItem::Absent,
        Some(Ok(_)) => AskedItem::Exportable,
        Some(Err(rejection)) => AskedItem::Rejected(rejection.clone()),
    };
    let decision = match claimant {
        Some((config, Ok(entry))) => Decision::Write(config.index.clone(), Rc::clone(entry)),
        Some((config, Err(rejection))) => {
            Decision::KeepFor(config.index.clone(), rejection.clone())
        }
        None if names_the_key => Decision::Delete(stored.clone()),
        None => Decision::LeaveAlone,
    };
    let index = taken_for.map(|config| config.index.clone());
    let index = index.or_else(|| stored.as_ref().and_then(named_by));
    let facts = KeyFacts {
        key: key.to_owned(),
        stored,
        claimants: claimants.keys().map(|config| config.index.clone()).collect(),
        decision,
        without_api_key: None,
    };
    let of_query_config = true;
    Ok(Some(Findings { index, item, keys: vec![facts], of_query_config, ..Findings::default() }))
}

/// The query configs that ask for a key, among all of the indexes that it can mean.
async fn search<S: Services>(
    invocation: &Invocation<'_, S>,
    key: &str,
    index_id: &str,
) -> Result<BTreeMap<ItemKey, Item>, ReadError> {
    let mut found = BTreeMap::new();
    for index in IndexRef::all_with_id(index_id) {
        for_each_query_config(invocation, Query::ConfigsOf(&index), |item_key, item| {
            if item_key.query_config().is_some_and(|config| config.kv_key() == key) {
                found.insert(item_key, item);
            }
        })
        .await?;
    }
    Ok(found)
}
