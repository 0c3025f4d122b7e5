//! Removes the keys of query configs that the table has no more.
//!
//! A dash in a name can give two items one key (`a`/`b-c` and `a-b`/`c`), so the items that the key
//! could also mean are read with it.
//!
//! | the table has | KV's metadata under the key | then |
//! | --- | --- | --- |
//! | the item | | left to its own stream record |
//! | another item of that key | | written for it |
//! | another item of that key, which can't be exported | | stays |
//! | none | another environment's | stays |
//! | none | anything else | deleted; an item that is there after it is exported |

use std::collections::{BTreeMap, BTreeSet};

use super::bulk;
use super::desired::Desired;
use super::error::KeyError;
use super::invocation::Invocation;
use super::table::{ReadError, read_items};
use crate::index::IndexRef;
use crate::item::{Item, ItemKey, QueryConfigRef, Rejection};
use crate::kv::{Pair, StoredValue, check_key};
use crate::ports::{Namespace, Services};

/// What a removal came to.
#[derive(Debug, Default)]
pub struct Removal {
    /// Keys that are gone, and stay gone.
    pub deleted: u64,
    /// Keys that were written for an item that asks for them.
    pub written: u64,
    /// Keys to be tried again.
    pub failed: BTreeMap<String, KeyError>,
    /// Keys of items that can't be exported: what KV holds of them stays.
    pub rejected: BTreeMap<String, Rejection>,
}

/// A key, and all query configs that it could mean, the first by account and index first.
type Twins = BTreeMap<String, BTreeSet<QueryConfigRef>>;

/// Removes the keys of query configs, unless items ask for them.
pub async fn remove<S: Services>(
    invocation: &Invocation<'_, S>,
    configs: &[QueryConfigRef],
) -> Removal {
    let mut removal = Removal::default();
    let removed: BTreeSet<&QueryConfigRef> = configs.iter().collect();
    let mut twins: Twins = configs
        .iter()
        .map(|config| (config.kv_key(), twins(config)))
        // Nothing can be under a name that KV can't hold.
        .filter(|(key, _)| check_key(key).is_ok())
        .collect();
    let items = match read_all(invocation, &twins).await {
        Ok(items) => items,
        Err(error) => {
            removal.fail(twins.into_keys(), &error.into());
            return removal;
        }
    };
    twins.retain(|_, twins| !twins.iter().any(|twin| removed.contains(twin) && items.has(twin)));
    let (claimed, mut gone): (Twins, Twins) =
        twins.into_iter().partition(|(_, twins)| twins.iter().any(|twin| items.has(twin)));
    removal.write(invocation, &claimed, &items).await;
    removal.spare_other_environments(invocation, &mut gone).await;
    if gone.is_empty() {
        return removal;
    }
    let keys = gone.keys().cloned().collect();
    let failures = bulk::delete(invocation, Namespace::QueryConfigs, keys).await;
    let back = match read_all(invocation, &gone).await {
        Ok(back) => back,
        Err(error) => {
            removal.fail(gone.into_keys(), &error.into());
            return removal;
        }
    };
    let (claimed, gone): (Twins, Twins) =
        gone.into_iter().partition(|(_, twins)| twins.iter().any(|twin| back.has(twin)));
    let stays_gone = gone.keys().filter(|key| !failures.contains_key(*key)).count();
    removal.deleted = u64::try_from(stays_gone).unwrap_or(u64::MAX);
    for (key, error) in failures {
        removal.failed.insert(key, error.into());
    }
    removal.write(invocation, &claimed, &back).await;
    removal
}

/// The query configs that have the key of this one, as far as the table can hold them.
fn twins(config: &QueryConfigRef) -> BTreeSet<QueryConfigRef> {
    let index_id = config.index.index_id();
    let twins = IndexRef::all_with_id(&index_id)
        .map(|index| QueryConfigRef { index, query: config.query.clone() })
        .filter(|twin| ItemKey::of_query_config(twin).fits_the_table());
    twins.collect()
}

/// The items of query configs that the table has.
struct Found(BTreeMap<ItemKey, Item>);

impl Found {
    fn has(&self, config: &QueryConfigRef) -> bool {
        self.get(config).is_some()
    }

    fn get(&self, config: &QueryConfigRef) -> Option<&Item> {
        self.0.get(&ItemKey::of_query_config(config))
    }
}

async fn read_all<S: Services>(
    invocation: &Invocation<'_, S>,
    twins: &Twins,
) -> Result<Found, ReadError> {
    let keys = twins.values().flatten().map(ItemKey::of_query_config);
    read_items(invocation, keys).await.map(Found)
}

impl Removal {
    /// Writes each key for the first item that asks for it.
    async fn write<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        claimed: &Twins,
        items: &Found,
    ) {
        let stamp = invocation.stamp();
        let mut pairs = Vec::new();
        for (key, twins) in claimed {
            let claimant = twins.iter().find_map(|twin| Some((twin, items.get(twin)?)));
            let Some((config, item)) = claimant else { continue };
            let desired = Desired::of_query_config(config, item);
            match desired.and_then(|desired| desired.entry(&stamp)) {
                Ok(entry) => pairs.push(Pair { key: key.clone(), entry }),
                Err(rejection) => {
                    self.rejected.insert(key.clone(), rejection);
                }
            }
        }
        let sent = pairs.len();
        let failures = bulk::put(invocation, Namespace::QueryConfigs, pairs).await;
        self.written += u64::try_from(sent - failures.len()).unwrap_or(u64::MAX);
        for (key, error) in failures {
            self.failed.insert(key, error.into());
        }
    }

    /// Takes out the keys that another environment has written, and those that can't be read.
    async fn spare_other_environments<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        gone: &mut Twins,
    ) {
        let keys = gone.keys().cloned().collect();
        let (held, failures) = bulk::read(invocation, Namespace::QueryConfigs, keys).await;
        for (key, error) in failures {
            gone.remove(&key);
            self.failed.insert(key, error.into());
        }
        let environment = &invocation.config.environment;
        let is_ours = |stored: &StoredValue| stored.counts_for(environment);
        gone.retain(|key, _| held.get(key).is_none_or(is_ours));
    }

    fn fail(&mut self, keys: impl Iterator<Item = String>, error: &KeyError) {
        self.failed.extend(keys.map(|key| (key, error.clone())));
    }
}
