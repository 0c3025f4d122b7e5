//! Removes the keys of query configs that the table has no more.

use std::collections::{BTreeMap, BTreeSet};

use super::bulk;
use super::desired::Desired;
use super::error::KeyError;
use super::invocation::Invocation;
use super::table::read_items;
use crate::item::{ItemKey, QueryConfigRef, Rejection};
use crate::kv::Pair;
use crate::ports::{Namespace, Services};

/// What a removal came to.
#[derive(Debug, Default)]
pub struct Removal {
    /// Keys that are gone, and stay gone.
    pub deleted: u64,
    /// Keys to be tried again.
    pub failed: BTreeMap<String, KeyError>,
    /// Keys of items that came back but can't be exported: they stay deleted.
    pub rejected: BTreeMap<String, Rejection>,
}

/// Deletes the keys of query configs that the table has no more.
///
/// An item that is there is left to its own stream record; one that comes back while its key is
/// being deleted is exported.
pub async fn remove<S: Services>(
    invocation: &Invocation<'_, S>,
    configs: &[QueryConfigRef],
) -> Removal {
    let mut removal = Removal::default();
    let configs: BTreeMap<ItemKey, &QueryConfigRef> =
        configs.iter().map(|config| (ItemKey::of_query_config(config), config)).collect();
    let mut gone: BTreeSet<ItemKey> = configs.keys().cloned().collect();
    let keys = |items: &BTreeSet<ItemKey>| -> Vec<String> {
        items.iter().filter_map(|item| configs.get(item)).map(|config| config.kv_key()).collect()
    };
    match read_items(invocation, gone.iter().cloned()).await {
        Ok(there) => gone.retain(|item| !there.contains_key(item)),
        Err(error) => {
            removal.fail(keys(&gone), &error.into());
            return removal;
        }
    }
    if gone.is_empty() {
        return removal;
    }
    let failures = bulk::delete(invocation, Namespace::QueryConfigs, keys(&gone)).await;
    let back = match read_items(invocation, gone.iter().cloned()).await {
        Ok(back) => back,
        Err(error) => {
            removal.fail(keys(&gone), &error.into());
            return removal;
        }
    };
    gone.retain(|item| !back.contains_key(item));
    let stays_gone = keys(&gone).into_iter().filter(|key| !failures.contains_key(key)).count();
    removal.deleted = u64::try_from(stays_gone).unwrap_or(u64::MAX);
    for (key, error) in failures {
        removal.failed.insert(key, error.into());
    }
    let stamp = invocation.stamp();
    let mut pairs = Vec::new();
    for (item, image) in &back {
        let Some(config) = configs.get(item) else { continue };
        let key = config.kv_key();
        let desired = Desired::of_query_config(config, image);
        match desired.and_then(|desired| desired.entry(&stamp)) {
            Ok(entry) => pairs.push(Pair { key, entry }),
            Err(rejection) => {
                removal.rejected.insert(key, rejection);
            }
        }
    }
    for (key, error) in bulk::put(invocation, Namespace::QueryConfigs, pairs).await {
        removal.failed.insert(key, error.into());
    }
    removal
}

impl Removal {
    fn fail(&mut self, keys: Vec<String>, error: &KeyError) {
        self.failed.extend(keys.into_iter().map(|key| (key, error.clone())));
    }
}
