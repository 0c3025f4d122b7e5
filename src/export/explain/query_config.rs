//! Gathers what KV and the table know of a key of the query-config namespace.

use std::collections::BTreeMap;

use super::{AskedItem, Due, Gathered, KeyFacts, named_by};
use crate::export::bulk;
use crate::export::desired::Desired;
use crate::export::differs::ApiKeyCheck;
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::query_config_removal::twins;
use crate::export::table::{ReadError, query_config_page, read_items};
use crate::index::IndexRef;
use crate::item::{Item, ItemKey, ItemKind, QueryConfigRef, Rejection};
use crate::ports::{Namespace, QueryConfigs, Services};

/// What is known of the query config that a key is taken for: the one that KV's value under it names,
/// else the one that asks for it; `None` where there is neither.
pub async fn about_key<S: Services>(
    invocation: &Invocation<'_, S>,
    key: &str,
    index_id: &str,
) -> Result<Option<Gathered>, KeyError> {
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
    let value = |config: &QueryConfigRef, item: &Item| -> Result<String, Rejection> {
        let entry = Desired::of_query_config(config, item)?.entry(&invocation.stamp())?;
        Ok(entry.to_stored().value)
    };
    let claimants: BTreeMap<QueryConfigRef, Result<String, Rejection>> = items
        .iter()
        .filter_map(|(key, item)| query_config(key).map(|config| (config, item)))
        .map(|(config, item)| (config.clone(), value(&config, item)))
        .collect();
    let counts =
        stored.as_ref().is_some_and(|stored| stored.counts_for(&invocation.config.environment));
    let counting = named.as_ref().filter(|_| counts);
    let claimant = counting.filter(|config| claimants.contains_key(config));
    let claimant = claimant.or_else(|| claimants.keys().next());
    if stored.is_none() && claimant.is_none() {
        return Ok(None);
    }
    let taken_for = counting.or(claimant).or(named.as_ref());
    let item = match taken_for.and_then(|config| claimants.get(config)) {
        None => AskedItem::Absent,
        Some(Ok(_)) => AskedItem::Exportable,
        Some(Err(rejection)) => AskedItem::Rejected(rejection.clone()),
    };
    let due = match claimant.and_then(|config| claimants.get(config)) {
        Some(Ok(value)) => Due::Value(value.clone(), ApiKeyCheck::Compared),
        Some(Err(_)) => Due::KeptForRejected,
        None if names_the_key => Due::Deleted,
        None => Due::OfUnknownQueryConfig,
    };
    let index = taken_for.map(|config| config.index.clone());
    let index = index.or_else(|| stored.as_ref().and_then(named_by));
    let facts = KeyFacts {
        key: key.to_owned(),
        stored,
        claimants: claimants.keys().map(|config| config.index.clone()).collect(),
        claimant: claimant.map(|config| config.index.clone()),
        due,
    };
    Ok(Some(Gathered {
        index,
        item,
        keys: vec![facts],
        of_query_config: true,
        ..Gathered::default()
    }))
}

/// The query configs that ask for a key, among all of the indexes that it can mean.
async fn search<S: Services>(
    invocation: &Invocation<'_, S>,
    key: &str,
    index_id: &str,
) -> Result<BTreeMap<ItemKey, Item>, ReadError> {
    let mut found = BTreeMap::new();
    for index in IndexRef::all_with_id(index_id) {
        let mut after = None;
        loop {
            let part = QueryConfigs::All(&index);
            let page = query_config_page(invocation, part, after.as_ref()).await?;
            let asks = |item: &ItemKey| query_config(item).is_some_and(|it| it.kv_key() == key);
            found.extend(page.items.into_iter().filter(|(item, _)| asks(item)));
            after = page.last_read;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(found)
}

fn query_config(key: &ItemKey) -> Option<QueryConfigRef> {
    match key.kind() {
        ItemKind::QueryConfig(config) => Some(config),
        ItemKind::IndexSettings(_) | ItemKind::Skipped => None,
    }
}
