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
use super::api_keys::NotExportable;
use super::bulk;
use super::desired::Desired;
use super::error::KeyError;
use super::invocation::Invocation;
use super::table::{ReadError, for_each_query_config, read_items};
use crate::item::{Item, ItemKey, Rejection};
use crate::kv::{Entry, Pair, Stamp};
use crate::ports::{Namespace, Query, Services};

/// Items that are read at once by their keys: one request, and up to 40 MB, for an item may have 400 KB.
pub const READ_ITEMS: usize = 100;

/// What a use case writes, and how it reads that again.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    pub namespace: Namespace,
    pub reread: Reread,
    /// Whether a key that an item asks for only since it was first read is written too; else it is
    /// left to the change's own stream record.
    pub writes_new_keys: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Reread {
    ByKeys,
    /// Query configs of one index, by the range of their keys: 20 requests for 100,000, and a read
    /// capacity unit for 4 KB of items. By their keys it would be 1,000 requests, and a unit or more
    /// for each item.
    ByRange,
}

/// An item's entry and the keys that it is written under.
pub struct ItemWrite {
    pub item: ItemKey,
    pub entry: Rc<Entry>,
    pub keys: BTreeSet<String>,
}

impl ItemWrite {
    pub fn new(item: ItemKey, desired: Desired, stamp: &Stamp) -> Self {
        Self { item, entry: desired.entry(stamp), keys: desired.keys.into_iter().collect() }
    }
}

#[derive(Debug, Default)]
pub struct WriteOutcome {
    /// Keys that hold what the table asks for.
    pub written: BTreeSet<String>,
    /// Keys that may hold something else, and why.
    pub failed: BTreeMap<String, KeyError>,
    /// Items that could not be exported when they were read again.
    pub rejected: Vec<(ItemKey, Rejection)>,
    /// Keys that were written for an item that no longer asks for them.
    pub left_behind: BTreeMap<ItemKey, BTreeSet<String>>,
    /// Whether anything was sent that may have been carried out.
    pub sent: bool,
}

/// Writes the items, each in its own keys, and follows their changes for at most [`MAX_ROUNDS`].
/// `desired` says what an item asks for that was read again.
pub async fn verified_write<S: Services>(
    invocation: &Invocation<'_, S>,
    policy: Policy,
    mut writes: Vec<ItemWrite>,
    desired: impl Fn(&ItemKey, &Item) -> Result<Desired, NotExportable>,
) -> WriteOutcome {
    let mut outcome = WriteOutcome::default();
    for _ in 0..MAX_ROUNDS {
        if writes.is_empty() {
            break;
        }
        let written = outcome.put(invocation, policy.namespace, writes).await;
        writes = outcome.read_again(invocation, policy, written, &desired).await;
    }
    for write in writes {
        outcome.fail(&write.keys, &KeyError::StillChanging);
    }
    invocation.write_receipts(policy.namespace);
    outcome
}

/// Reads items, ascending by key, and hands on those that are there, and perhaps others.
async fn read<S: Services>(
    invocation: &Invocation<'_, S>,
    reread: Reread,
    items: &[ItemKey],
    mut found: impl FnMut(&ItemKey, &Item),
) -> Result<(), ReadError> {
    match (reread, items.first().zip(items.last())) {
        (Reread::ByRange, Some((first, last))) => {
            let range = Query::Between(first, last);
            for_each_query_config(invocation, range, |key, item| found(&key, &item)).await?;
        }
        _ => {
            for part in items.chunks(READ_ITEMS) {
                let items = read_items(invocation, part.iter().cloned()).await?;
                items.iter().for_each(|(key, item)| found(key, item));
            }
        }
    }
    Ok(())
}

impl WriteOutcome {
    /// Writes the items; answers with those of which a key was written.
    async fn put<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        namespace: Namespace,
        mut writes: Vec<ItemWrite>,
    ) -> Vec<ItemWrite> {
        let mut pairs = Vec::new();
        for ItemWrite { entry, keys, .. } in &writes {
            let pair = |key: &String| Pair { key: key.clone(), entry: Rc::clone(entry) };
            pairs.extend(keys.iter().map(pair));
        }
        let bounds = bulk::Bounds::patient(invocation.writes_until);
        let failures = bulk::put(invocation, namespace, pairs, bounds).await;
        writes.retain_mut(|ItemWrite { item, keys, .. }| {
            keys.retain(|key| !failures.contains_key(key));
            if let Some(left_behind) = self.left_behind.get_mut(item) {
                left_behind.retain(|key| !keys.contains(key));
            }
            self.written.extend(keys.iter().cloned());
            !keys.is_empty()
        });
        let may_be_done = failures.values().any(|error| !error.changed_nothing());
        self.sent |= may_be_done || !writes.is_empty();
        for (key, error) in failures {
            self.fail(&BTreeSet::from([key]), &error.into());
        }
        writes
    }

    /// Reads what was written again; answers with what has to be written again.
    async fn read_again<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        policy: Policy,
        written: Vec<ItemWrite>,
        desired: &impl Fn(&ItemKey, &Item) -> Result<Desired, NotExportable>,
    ) -> Vec<ItemWrite> {
        let mut unread: BTreeMap<ItemKey, ItemWrite> =
            written.into_iter().map(|write| (write.item.clone(), write)).collect();
        let keys: Vec<ItemKey> = unread.keys().cloned().collect();
        let stamp = invocation.stamp();
        let mut writes = Vec::new();
        let read = read(invocation, policy.reread, &keys, |key, item| {
            // What is new within a range has its own stream record.
            let Some(write) = unread.remove(key) else { return };
            match desired(key, item) {
                Ok(desired) if desired.digest() == write.entry.digest() => {}
                Ok(desired) => writes.extend(self.changed(write, desired, policy, &stamp)),
                Err(NotExportable::Rejected(rejection)) => {
                    self.rejected.push((key.clone(), rejection));
                }
                Err(NotExportable::Unavailable(error)) => self.fail(&write.keys, &error.into()),
            }
        });
        let read = read.await;
        for write in unread.into_values() {
            match &read {
                Ok(()) => self.leave_behind(write.item, write.keys),
                Err(error) => self.fail(&write.keys, &error.clone().into()),
            }
        }
        writes
    }

    /// Leaves behind what a changed item no longer asks for; answers with what has to be written again.
    fn changed(
        &mut self,
        ItemWrite { item, keys, .. }: ItemWrite,
        desired: Desired,
        policy: Policy,
        stamp: &Stamp,
    ) -> Option<ItemWrite> {
        let asked: BTreeSet<String> = desired.keys.iter().cloned().collect();
        self.leave_behind(item.clone(), &keys - &asked);
        let keys = if policy.writes_new_keys { asked } else { &asked & &keys };
        (!keys.is_empty()).then(|| ItemWrite { item, entry: desired.entry(stamp), keys })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::{
        Fakes, Keys, KvFault, TableChange, batch_api_keys, index, index_item,
    };
    use crate::ports::{Cause, KvError};
    use serde_json::{Value, json};

    /// Writes index `i` with the shop id `s`, which the table then holds, while the table changes.
    async fn write<const WRITES_NEW_KEYS: bool>(
        fakes: &Fakes,
        changes: impl IntoIterator<Item = TableChange>,
    ) -> WriteOutcome {
        let invocation = fakes.invocation();
        fakes.table.put(index_item("i", &shop("s")));
        fakes.table.changes.then(changes);
        let index = fakes.exportable("i", &shop("s"));
        let mut api_keys = batch_api_keys();
        api_keys.ask(&invocation, [&index]).await;
        let policy = Policy {
            namespace: Namespace::Settings,
            reread: Reread::ByKeys,
            writes_new_keys: WRITES_NEW_KEYS,
        };
        let desired =
            |key: &ItemKey, item: &Item| Desired::of_item(key, item, &fakes.config, &api_keys);
        let (key, item) = index_item("i", &shop("s"));
        let Ok(first) = desired(&key, &item) else { panic!("the API key is there") };
        let write = ItemWrite::new(key, first, &invocation.stamp());
        verified_write(&invocation, policy, vec![write], desired).await
    }

    const RE_EXPORT: bool = true;
    const REPAIR: bool = false;

    fn item_key() -> ItemKey {
        ItemKey::of_index(&index("i"))
    }

    fn shop(shop_id: &str) -> Value {
        json!({"shop_id": {"S": shop_id}})
    }

    /// The item changes: its shop id stays `s` unless the attributes say otherwise.
    fn becomes(attributes: &Value) -> TableChange {
        let mut with_shop = shop("s");
        with_shop.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
        TableChange::Put(index_item("i", &with_shop))
    }

    fn pixel(id: &str) -> TableChange {
        becomes(&json!({"pixel_id": {"S": id}}))
    }

    fn keys(keys: &[&str]) -> BTreeSet<String> {
        keys.iter().map(|key| (*key).to_owned()).collect()
    }

    /// Nothing failed, was rejected or left behind.
    fn assert_clean(written: &WriteOutcome) {
        let clean = written.failed.is_empty()
            && written.rejected.is_empty()
            && written.left_behind.values().all(BTreeSet::is_empty);
        assert!(clean, "{written:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_as_it_was_written_is_done() {
        let fakes = Fakes::new();
        let written = write::<REPAIR>(&fakes, []).await;
        assert_eq!(written.written, keys(&["a-i", "s"]));
        assert_clean(&written);
        assert_eq!(fakes.kv.requests.borrow().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn another_value_is_written_again_in_the_next_round() {
        let fakes = Fakes::new();
        let written = write::<REPAIR>(&fakes, [pixel("1"), pixel("2")]).await;
        assert_eq!(written.written, keys(&["a-i", "s"]));
        assert_clean(&written);
        for key in ["a-i", "s"] {
            assert_eq!(fakes.kv.value(key)["pixel_id"], "2", "{key}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_it_no_longer_asks_for_is_left_behind() {
        let fakes = Fakes::new();
        let written = write::<REPAIR>(&fakes, [becomes(&shop("t"))]).await;
        assert_eq!(written.left_behind, BTreeMap::from([(item_key(), keys(&["s"]))]));
        assert_eq!(written.written, keys(&["a-i"]), "the new key is left to the stream");
        assert_eq!(fakes.kv.value("a-i")["shop_id"], "t");
        assert_eq!(fakes.kv.keys(), ["a-i", "s"], "what is left behind is for others to settle");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_it_asks_for_only_now_is_written_where_the_use_case_says_so() {
        let fakes = Fakes::new();
        let written = write::<RE_EXPORT>(&fakes, [becomes(&shop("t"))]).await;
        assert_eq!(written.left_behind, BTreeMap::from([(item_key(), keys(&["s"]))]));
        assert_eq!(written.written, keys(&["a-i", "t"]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_it_asks_for_again_is_not_left_behind() {
        let fakes = Fakes::new();
        let changes = [becomes(&shop("t")), becomes(&shop("s"))];
        let written = write::<RE_EXPORT>(&fakes, changes).await;
        assert_eq!(written.left_behind, BTreeMap::from([(item_key(), keys(&["t"]))]));
        assert_eq!(written.written, keys(&["a-i", "s"]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_item_that_is_gone_leaves_all_its_keys_behind() {
        let fakes = Fakes::new();
        let written = write::<REPAIR>(&fakes, [TableChange::Remove(item_key())]).await;
        assert_eq!(written.left_behind, BTreeMap::from([(item_key(), keys(&["a-i", "s"]))]));
        assert_eq!(written.written, keys(&[]));
    }

    #[tokio::test(start_paused = true)]
    async fn of_an_item_that_cannot_be_exported_any_more_kv_keeps_what_was_written() {
        let fakes = Fakes::new();
        let broken = becomes(&json!({"index_endpoint": null}));
        let written = write::<REPAIR>(&fakes, [broken]).await;
        assert_eq!(written.written, keys(&["a-i", "s"]));
        let rejected: Vec<&str> =
            written.rejected.iter().map(|(_, rejection)| rejection.path.as_str()).collect();
        assert_eq!(rejected, ["index_endpoint"]);
        assert!(written.failed.is_empty() && written.left_behind.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn an_item_without_its_api_key_for_now_fails_its_keys() {
        let fakes = Fakes::new();
        let moved = becomes(&json!({"cell": {"S": "not asked"}}));
        let written = write::<REPAIR>(&fakes, [moved]).await;
        assert_eq!(written.failed.keys().cloned().collect::<BTreeSet<_>>(), keys(&["a-i", "s"]));
        assert!(written.failed.values().all(|error| matches!(error, KeyError::ApiKey(_))));
        assert_eq!(written.written, keys(&[]));
    }

    #[tokio::test(start_paused = true)]
    async fn an_item_that_cannot_be_read_fails_its_keys() {
        let fakes = Fakes::new();
        let written = write::<REPAIR>(&fakes, [TableChange::Fails]).await;
        assert_eq!(written.failed.keys().cloned().collect::<BTreeSet<_>>(), keys(&["a-i", "s"]));
        assert!(written.failed.values().all(|error| matches!(error, KeyError::Table(_))));
        assert_eq!(written.written, keys(&[]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_changes_four_times_is_followed_and_what_changes_five_times_failed() {
        for (changes, failed) in [(4, false), (5, true)] {
            let fakes = Fakes::new();
            let changes = (0..changes).map(|n| pixel(&n.to_string()));
            let written = write::<REPAIR>(&fakes, changes).await;
            assert_eq!(fakes.kv.requests.borrow().len(), 5);
            assert_eq!(written.written.is_empty(), failed);
            let still_changing =
                BTreeMap::from(["a-i", "s"].map(|key| (key.to_owned(), KeyError::StillChanging)));
            assert_eq!(written.failed, if failed { still_changing } else { BTreeMap::new() });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_kv_does_not_confirm_failed_and_the_other_is_verified() {
        let fakes = Fakes::new();
        fakes.kv.faults.then((0..4).map(|_| KvFault::ListsAsUnsuccessful(Keys::Named(&["s"]))));
        let written = write::<REPAIR>(&fakes, [pixel("1")]).await;
        let unsuccessful = KeyError::Kv(KvError::Unsuccessful { retry_after: None });
        assert_eq!(written.failed, BTreeMap::from([("s".to_owned(), unsuccessful)]));
        assert_eq!(written.written, keys(&["a-i"]));
        assert_eq!(fakes.kv.value("a-i")["pixel_id"], "1");
    }

    #[tokio::test(start_paused = true)]
    async fn an_item_of_which_kv_confirms_no_key_is_not_followed() {
        let fakes = Fakes::new();
        fakes.kv.faults.then([KvFault::Fails(KvError::Refused(Cause::new("scripted")))]);
        let written = write::<RE_EXPORT>(&fakes, [pixel("1")]).await;
        assert!(written.failed.values().all(|error| matches!(error, KeyError::Kv(_))));
        assert_eq!((written.failed.len(), written.written), (2, keys(&[])));
        assert_eq!(fakes.kv.requests.borrow().len(), 1);
    }
}
