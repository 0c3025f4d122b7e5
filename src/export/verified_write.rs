//! Write, read again, write what changed: the one way in which items of the table are written other
//! than from the stream. A change that comes through the stream meanwhile is not left overwritten
//! with the older version.
//!
//! | the item, read again | then |
//! | --- | --- |
//! | is as it was written | done |
//! | has another value | written again, in the next round |
//! | no longer asks for a key that was written | the key is left behind, to be settled or removed |
//! | is gone | all its keys are left behind |
//! | can't be exported any more | KV keeps what was written |
//! | has no API key for now, or can't be read | its keys failed |

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::MAX_ROUNDS;
use super::bulk;
use super::desired::{Desired, NotExportable};
use super::error::KeyError;
use super::invocation::Invocation;
use super::table::ReadError;
use crate::item::{Item, ItemKey, Rejection};
use crate::kv::{Digest, Entry, Pair};
use crate::ports::{Namespace, Services};

/// The items of a use case: how they are read again, and what they ask for.
pub trait Items {
    /// Whether a key that an item asks for only since it was first read is written too; else it is
    /// left to the change's own stream record.
    const WRITES_NEW_KEYS: bool;

    /// Reads items, ascending by key, and hands on those that are there.
    async fn read_again(
        &self,
        items: &[ItemKey],
        found: impl FnMut(&ItemKey, &Item),
    ) -> Result<(), ReadError>;

    /// What KV should hold of an item.
    fn desired(&self, key: &ItemKey, item: &Item) -> Result<Desired, NotExportable>;
}

/// An item's entry and the keys that it is written under.
pub struct ItemWrite {
    /// The item.
    pub item: ItemKey,
    /// The entry.
    pub entry: Rc<Entry>,
    /// The keys.
    pub keys: BTreeSet<String>,
}

/// What became of the keys.
#[derive(Debug, Default)]
pub struct Written {
    /// Keys that hold what the table asks for.
    pub written: BTreeSet<String>,
    /// Keys that may hold something else, and why.
    pub failed: BTreeMap<String, KeyError>,
    /// Items that could not be exported when they were read again.
    pub rejected: Vec<(ItemKey, Rejection)>,
    /// Keys that were written for an item that asks for them no more.
    pub left_behind: BTreeMap<ItemKey, BTreeSet<String>>,
}

/// What was last written of an item.
struct Version {
    digest: Digest,
    keys: BTreeSet<String>,
    /// Whether the table still has the item.
    found: bool,
}

type Versions = BTreeMap<ItemKey, Version>;

/// Writes the items, each in its own keys, and follows their changes for at most [`MAX_ROUNDS`].
pub async fn verified_write<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    items: &impl Items,
    mut writes: Vec<ItemWrite>,
) -> Written {
    let mut outcome = Written::default();
    for _ in 0..MAX_ROUNDS {
        if writes.is_empty() {
            return outcome;
        }
        let versions = outcome.put(invocation, namespace, writes).await;
        writes = outcome.read_again(invocation, items, versions).await;
    }
    for write in writes {
        outcome.fail(&write.keys, &KeyError::StillChanging);
    }
    outcome
}

impl Written {
    async fn put<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        namespace: Namespace,
        writes: Vec<ItemWrite>,
    ) -> Versions {
        let mut pairs = Vec::new();
        let mut versions = Versions::new();
        for ItemWrite { item, entry, keys } in writes {
            let pair = |key: &String| Pair { key: key.clone(), entry: Rc::clone(&entry) };
            pairs.extend(keys.iter().map(pair));
            versions.insert(item, Version { digest: entry.digest(), keys, found: false });
        }
        let failures = bulk::put(invocation, namespace, pairs).await;
        for (item, version) in &mut versions {
            version.keys.retain(|key| !failures.contains_key(key));
            if let Some(left_behind) = self.left_behind.get_mut(item) {
                left_behind.retain(|key| !version.keys.contains(key));
            }
            self.written.extend(version.keys.iter().cloned());
        }
        versions.retain(|_, version| !version.keys.is_empty());
        for (key, error) in failures {
            self.fail(&BTreeSet::from([key]), &error.into());
        }
        versions
    }

    /// Reads what was written again; answers with what has to be written again.
    async fn read_again<S: Services, I: Items>(
        &mut self,
        invocation: &Invocation<'_, S>,
        items: &I,
        mut versions: Versions,
    ) -> Vec<ItemWrite> {
        let keys: Vec<ItemKey> = versions.keys().cloned().collect();
        if keys.is_empty() {
            return Vec::new();
        }
        let mut changed = Vec::new();
        let read = items.read_again(&keys, |key, item| {
            let Some(version) = versions.get_mut(key) else { return };
            version.found = true;
            match items.desired(key, item) {
                Ok(desired) => changed.extend(self.changed::<I>(key, version, desired)),
                Err(NotExportable::Rejected(rejection)) => {
                    self.rejected.push((key.clone(), rejection));
                }
                Err(NotExportable::Unavailable(error)) => self.fail(&version.keys, &error.into()),
            }
        });
        let read = read.await;
        for (item, version) in versions.into_iter().filter(|(_, version)| !version.found) {
            match &read {
                Ok(()) => self.leave_behind(item, version.keys),
                Err(error) => self.fail(&version.keys, &error.clone().into()),
            }
        }
        let stamp = invocation.stamp();
        let write = |(item, desired, keys): (ItemKey, Desired, BTreeSet<String>)| match desired
            .entry(&stamp)
        {
            Ok(entry) => Some(ItemWrite { item, entry, keys }),
            Err(rejection) => {
                self.rejected.push((item, rejection));
                None
            }
        };
        changed.into_iter().filter_map(write).collect()
    }

    /// Compares an item with what was written of it; answers with what has to be written again.
    fn changed<I: Items>(
        &mut self,
        item: &ItemKey,
        version: &Version,
        desired: Desired,
    ) -> Option<(ItemKey, Desired, BTreeSet<String>)> {
        if desired.digest() == version.digest {
            return None;
        }
        let asked: BTreeSet<String> = desired.keys.iter().cloned().collect();
        self.leave_behind(item.clone(), version.keys.difference(&asked).cloned().collect());
        let keys = if I::WRITES_NEW_KEYS { asked } else { &asked & &version.keys };
        (!keys.is_empty()).then(|| (item.clone(), desired, keys))
    }

    fn leave_behind(&mut self, item: ItemKey, keys: BTreeSet<String>) {
        if keys.is_empty() {
            return;
        }
        self.written.retain(|key| !keys.contains(key));
        self.left_behind.entry(item).or_default().extend(keys);
    }

    fn fail(&mut self, keys: &BTreeSet<String>, error: &KeyError) {
        for key in keys {
            self.written.remove(key);
            self.failed.insert(key.clone(), error.clone());
        }
    }
}
