//! Removes keys: what KV holds, a pass over the table, delete, a pass behind it.
//!
//! | the verdict on the key | then |
//! | --- | --- |
//! | orphaned | deleted; put back where the pass behind the delete says otherwise, and removed once more |
//! | an item asks for it | written for that item, under this key alone; another environment's value stays |
//! | withheld | stays, with a warning |
//! | rejected | stays, with an error |
//! | foreign | stays: only what could be put back is deleted |
//!
//! A race that it survives: R reads the table, another item takes the shop id and its record is exported,
//! R deletes the key. The pass behind the delete sees the item; R puts back what it read, looks again, and
//! writes the key for the item.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, warn};

use super::api_keys::ApiKeys;
use super::bulk::{self, Delete};
use super::desired::Exportable;
use super::error::{ExportError, log_rejected};
use super::invocation::{Invocation, OutOfTime};
use super::judge::{Held, KvKey, OwnerItem, Table, Verdict, Wants};
use super::table::{ReadError, pass, read_items};
use super::write::{Fate, READ_ITEMS, WriteItem, write_items};
use crate::error_chain::Chain;
use crate::index::{IndexRef, ItemRef};
use crate::item::ItemKey;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::kv::{Entry, Namespace, Pair, StoredValue, check_key};
use crate::ports::{ScanColumns, Services};

/// How often a key is deleted and put back at most.
const MAX_PUT_BACKS: usize = 3;

/// What a put-back takes, with time to spare.
const TIME_FOR_A_PUT_BACK: Duration = Duration::from_secs(2);

/// What a delete and a put-back take beside the pass between them.
const TIME_FOR_WRITES: Duration = Duration::from_secs(5);

/// What the values may take that are kept to be put back, in bytes; one request reads up to 25 MB more.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What became of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Removal {
    Removed,
    /// Nothing of ours, or it is kept by an alias or by an item that can't be exported.
    Stays,
    /// An item asks for it, and KV holds that.
    Written(ItemRef),
    /// It was to be deleted, and was not let through.
    Held,
    Failed(ExportError),
}

/// Says whether keys that these indexes own may be deleted.
pub type Brake<'a> = &'a dyn Fn(&BTreeSet<Rc<IndexRef>>) -> bool;

/// Removes settings keys, and returns what became of each; names that KV can't hold are left out.
pub async fn remove_keys<S: Services>(
    invocation: &Invocation<'_, S>,
    keys: BTreeSet<String>,
    api_keys: &mut ApiKeys,
    brake: Brake<'_>,
) -> BTreeMap<String, Removal> {
    let mut open: BTreeSet<String> = keys;
    open.retain(|key| check_key(key).is_ok());
    let mut removing = Removing { invocation, api_keys, outcomes: BTreeMap::new() };
    for put_backs in 0..=MAX_PUT_BACKS {
        let may_delete = put_backs < MAX_PUT_BACKS;
        open = removing.round(open, may_delete, brake).await;
        if open.is_empty() {
            break;
        }
    }
    removing.fail(open, &ExportError::StillChanging);
    removing.outcomes
}

struct Removing<'a, 's, S> {
    invocation: &'a Invocation<'s, S>,
    api_keys: &'a mut ApiKeys,
    outcomes: BTreeMap<String, Removal>,
}

/// What KV holds under each key, and the values for which there is room.
#[derive(Default)]
struct Read {
    held: BTreeMap<String, Held>,
    values: BTreeMap<String, StoredValue>,
    bytes: usize,
}

impl<S: Services> Removing<'_, '_, S> {
    /// Removes keys once. Returns those that have to go through it again.
    async fn round(
        &mut self,
        keys: BTreeSet<String>,
        may_delete: bool,
        brake: Brake<'_>,
    ) -> BTreeSet<String> {
        let mut read = Read::default();
        for keys in Vec::from_iter(keys).chunks(MAX_BULK_GET_KEYS) {
            self.read(keys, &mut read).await;
        }
        if read.held.is_empty() {
            return BTreeSet::new();
        }
        let started = Instant::now();
        let mut table = match look(self.invocation, Table::of_settings(&read.held)).await {
            Ok(table) => table,
            Err(error) => {
                self.fail(read.held.into_keys(), &error.into());
                return BTreeSet::new();
            }
        };
        let time_to_delete = started.elapsed() + TIME_FOR_WRITES;
        let is_orphaned =
            |key: &&String| table.verdict(&KvKey::of_settings(*key)) == Verdict::Orphaned;
        let mut open: BTreeSet<String> = read.held.keys().filter(is_orphaned).cloned().collect();
        let owners = open.iter().filter_map(|key| read.held[key].owner().cloned()).collect();
        let outcome = match (open.is_empty(), may_delete) {
            (true, _) => None,
            (false, false) => Some(Removal::Failed(ExportError::StillChanging)),
            (false, true) => (!brake(&owners)).then_some(Removal::Held),
        };
        let mut again = BTreeSet::new();
        if let Some(outcome) = outcome {
            self.outcomes.extend(open.iter().map(|key| (key.clone(), outcome.clone())));
            open.clear();
        }
        loop {
            // The pass behind one group may say otherwise of the next.
            open.retain(|key| table.verdict(&KvKey::of_settings(key)) == Verdict::Orphaned);
            if open.is_empty() {
                break;
            }
            if self.invocation.time_left() < time_to_delete {
                self.fail(open, &ExportError::NoTimeForPass);
                break;
            }
            let group = self.take_group(&mut open, &mut read).await;
            let behind = self.delete(group, &read.held, &mut again).await;
            table = behind.unwrap_or(table);
        }
        // By the last pass, a key that was removed may be asked for.
        read.held.retain(|key, _| {
            let outcome = self.outcomes.get(key);
            !again.contains(key) && matches!(outcome, None | Some(Removal::Removed))
        });
        again.extend(self.write(read.held.keys(), &table).await);
        again
    }

    fn fail(&mut self, keys: impl IntoIterator<Item = String>, error: &ExportError) {
        let failed = Removal::Failed(error.clone());
        self.outcomes.extend(keys.into_iter().map(|key| (key, failed.clone())));
    }

    async fn read(&mut self, keys: &[String], read: &mut Read) {
        let (mut found, failures) =
            bulk::read(self.invocation, Namespace::Settings, keys.iter().cloned()).await;
        for key in keys {
            if let Some(failure) = failures.get(key) {
                self.fail([key.clone()], &ExportError::kv(key, failure.error.clone()));
                continue;
            }
            let stored = found.remove(key);
            let held = Held::read(stored.as_ref(), &self.invocation.config.environment);
            read.held.insert(key.clone(), held);
            if let Some(stored) = stored
                && read.bytes + stored.value.len() <= MAX_BYTES
            {
                read.bytes += stored.value.len();
                read.values.insert(key.clone(), stored);
            }
        }
    }

    /// Takes the next orphans, as many as there is room for their values. Values that were dropped are read
    /// again; what changed meanwhile fails.
    async fn take_group(
        &mut self,
        open: &mut BTreeSet<String>,
        read: &mut Read,
    ) -> BTreeMap<String, StoredValue> {
        if read.values.is_empty() {
            let next: Vec<String> = open.iter().take(MAX_BULK_GET_KEYS).cloned().collect();
            let mut again = Read::default();
            self.read(&next, &mut again).await;
            for key in next {
                open.remove(&key);
                match again.values.remove(&key) {
                    Some(value) if again.held.get(&key) == read.held.get(&key) => {
                        open.insert(key.clone());
                        read.values.insert(key, value);
                    }
                    _ => self.fail([key], &ExportError::StillChanging),
                }
            }
        }
        let mut group = std::mem::take(&mut read.values);
        group.retain(|key, _| open.remove(key));
        group
    }

    /// Deletes orphans, and puts back those that are none by the pass behind that: they go through the
    /// removal again. Where that pass fails, all of them are put back, and have failed. Returns the pass.
    async fn delete(
        &mut self,
        mut group: BTreeMap<String, StoredValue>,
        held: &BTreeMap<String, Held>,
        again: &mut BTreeSet<String>,
    ) -> Option<Table> {
        let deletes = group.iter().filter_map(|(key, stored)| {
            let item = (**held.get(key)?.owner()?).clone().into();
            Some(Delete { key: key.clone(), item, metadata: stored.metadata() })
        });
        let deletes = deletes.collect();
        let failures = bulk::delete(self.invocation, Namespace::Settings, deletes).await;
        for (key, failure) in &failures {
            self.fail([key.clone()], &ExportError::kv(key, failure.error.clone()));
            if !failure.may_be_done {
                group.remove(key);
            }
        }
        let deadline = self.invocation.budget.deadline;
        let until = deadline.checked_sub(TIME_FOR_A_PUT_BACK).unwrap_or(deadline);
        let behind =
            tokio::time::timeout_at(until, look(self.invocation, Table::of_settings(held))).await;
        match behind.unwrap_or(Err(OutOfTime.into())) {
            Ok(table) => {
                let is_orphaned = |key: &String, _: &mut StoredValue| {
                    table.verdict(&KvKey::of_settings(&**key)) == Verdict::Orphaned
                };
                let removed = group.extract_if(.., is_orphaned).map(|(key, _)| key);
                for key in removed.collect::<Vec<_>>() {
                    self.outcomes.entry(key).or_insert(Removal::Removed);
                }
                for key in self.put_back(group).await {
                    self.outcomes.remove(&key);
                    again.insert(key);
                }
                Some(table)
            }
            Err(error) => {
                let keys: Vec<String> = group.keys().cloned().collect();
                let restored = self.put_back(group).await;
                self.fail(keys.into_iter().filter(|key| restored.contains(key)), &error.into());
                None
            }
        }
    }

    /// Puts values back as they were read. Returns the keys that KV has confirmed.
    async fn put_back(&mut self, values: BTreeMap<String, StoredValue>) -> Vec<String> {
        if values.is_empty() {
            return Vec::new();
        }
        let pairs: Vec<Pair> = values
            .iter()
            .map(|(key, stored)| Pair { key: key.clone(), entry: Rc::new(Entry::restored(stored)) })
            .collect();
        let bounds = self.invocation.budget.for_put_backs();
        let failures = bulk::put(self.invocation, Namespace::Settings, bounds, pairs).await;
        let mut restored = Vec::new();
        for key in values.into_keys() {
            match failures.get(&key) {
                None => {
                    warn!(key, "a deleted key is put back: the table needs it after all");
                    self.invocation.count(|stats| stats.deletes_restored += 1);
                    restored.push(key);
                }
                Some(failure) => {
                    error!(
                        key,
                        error = %Chain(&failure.error),
                        "a deleted key could not be put back: re-export the index that needs it"
                    );
                    self.invocation.count(|stats| stats.put_backs_failed += 1);
                    self.fail([key.clone()], &ExportError::kv(&key, failure.error.clone()));
                }
            }
        }
        restored
    }

    /// Says what becomes of keys that were not deleted, and writes those that items ask for. Returns the keys
    /// that have to go through the removal again.
    async fn write(&mut self, keys: impl Iterator<Item = &String>, table: &Table) -> Vec<String> {
        let mut again = Vec::new();
        let mut claimed: BTreeMap<ItemRef, BTreeSet<String>> = BTreeMap::new();
        for name in keys {
            let key = KvKey::of_settings(name);
            match (table.verdict(&key), table.claim_of(&key)) {
                // It was removed.
                (_, None) if self.outcomes.contains_key(name) => {}
                (Verdict::Orphaned, _) => again.push(name.clone()),
                (verdict @ (Verdict::Conflicting | Verdict::Foreign), _) | (verdict, None) => {
                    self.report_kept(name, verdict, table);
                    self.outcomes.insert(name.clone(), Removal::Stays);
                }
                (_, Some(claim)) => {
                    claimed.entry(claim.item()).or_default().insert(name.clone());
                }
            }
        }
        let writes =
            claimed.iter().map(|(item, keys)| WriteItem::under(item.clone(), keys.clone()));
        let writes = writes.collect();
        let written =
            write_items(self.invocation, Namespace::Settings, writes, self.api_keys).await;
        for (key, item) in
            claimed.iter().flat_map(|(item, keys)| keys.iter().map(move |key| (key, item)))
        {
            let outcome = match written.fate(item) {
                Fate::Failed(error) => Removal::Failed(error),
                Fate::Rejected(rejection) => {
                    log_rejected(Some(item), None, &rejection);
                    Removal::Stays
                }
                Fate::Written if written.keys.contains_key(key) => Removal::Written(item.clone()),
                // The table has changed since the pass.
                Fate::Written | Fate::Absent => {
                    again.push(key.clone());
                    continue;
                }
            };
            self.outcomes.insert(key.clone(), outcome);
        }
        again
    }

    fn report_kept(&self, name: &str, verdict: Verdict, table: &Table) {
        let key = KvKey::of_settings(name);
        let owner = table.owner_of(&key);
        if verdict == Verdict::Withheld {
            let pointers: Vec<String> =
                table.protectors(&key).into_iter().map(ToString::to_string).collect();
            warn!(
                key = name,
                pointers = pointers.join(", "),
                "a key that no item asks for stays: active aliases of these items point at it"
            );
            self.invocation.count(|stats| stats.deletes_withheld += 1);
        } else if verdict == Verdict::Rejected {
            error!(
                key = name,
                system_account_id = owner.map(|owner| &owner.account),
                index_name = owner.map(|owner| &owner.name),
                "a key that no item asks for stays: the item of its index can't be exported"
            );
        }
    }
}

/// Makes a pass for the keys that a table knows of.
pub async fn look<S: Services>(
    invocation: &Invocation<'_, S>,
    table: Table,
) -> Result<Table, ReadError> {
    look_at(invocation, table, |_| true).await
}

/// The same over the items that count.
pub async fn look_at<S: Services>(
    invocation: &Invocation<'_, S>,
    mut table: Table,
    mut counts: impl FnMut(&ItemKey) -> bool,
) -> Result<Table, ReadError> {
    pass(invocation, ScanColumns::Claims, async |items| {
        for (key, item) in items.iter().filter(|(key, _)| counts(key)) {
            table.add(key, &item.attributes(), Wants::Unmade);
        }
    })
    .await?;
    // The pass has read only a part of each item.
    let unclaimed = table.rows.values().filter(|row| row.claim.is_none());
    let owners: BTreeSet<Rc<IndexRef>> = unclaimed
        .filter_map(|row| row.held.owner())
        .filter(|owner| table.owner_item(owner) != OwnerItem::Absent)
        .cloned()
        .collect();
    let keys = owners.iter().map(|owner| ItemRef::from((**owner).clone()).key());
    let items = read_items(invocation, invocation.budget.deadline, keys).await?;
    for owner in owners {
        let item = items.get(&ItemRef::from((*owner).clone()).key());
        let decoded = item.map(|item| Exportable::decode(&owner, item, invocation.config));
        table.resolve_owner(
            &owner,
            match decoded {
                Some(Err(_)) => OwnerItem::Rejected,
                Some(Ok(_)) => OwnerItem::Exportable,
                None => OwnerItem::Absent,
            },
        );
    }
    Ok(table)
}

/// Removes query configs: an item is read, its key deleted if it is gone, and the item read again. One
/// that is back is written. Returns what became of each.
pub async fn remove_query_configs<S: Services>(
    invocation: &Invocation<'_, S>,
    items: BTreeSet<ItemRef>,
    api_keys: &mut ApiKeys,
) -> BTreeMap<ItemRef, Removal> {
    let mut outcomes = BTreeMap::new();
    let items: Vec<ItemRef> =
        items.into_iter().filter(|item| check_key(&item.kv_key()).is_ok()).collect();
    for items in items.chunks(READ_ITEMS) {
        let removed = remove_group_of_query_configs(invocation, items, api_keys).await;
        outcomes.extend(removed);
    }
    outcomes
}

async fn remove_group_of_query_configs<S: Services>(
    invocation: &Invocation<'_, S>,
    items: &[ItemRef],
    api_keys: &mut ApiKeys,
) -> BTreeMap<ItemRef, Removal> {
    let mut outcomes = BTreeMap::new();
    let read = async || {
        let keys = items.iter().map(ItemRef::key);
        read_items(invocation, invocation.budget.deadline, keys).await
    };
    let there = match read().await {
        Ok(there) => there,
        Err(error) => {
            let failed = Removal::Failed(error.into());
            return items.iter().map(|item| (item.clone(), failed.clone())).collect();
        }
    };
    let gone = items.iter().filter(|item| !there.contains_key(&item.key()));
    let deletes: Vec<Delete> = gone
        .map(|item| Delete { key: item.kv_key(), item: item.clone(), metadata: None })
        .collect();
    drop(there);
    let failures = bulk::delete(invocation, Namespace::QueryConfigs, deletes).await;
    let behind = read().await;
    let mut back = Vec::new();
    for item in items {
        let failure = failures.get(&item.kv_key());
        let outcome = match (&behind, failure) {
            (Ok(items), _) if items.contains_key(&item.key()) => {
                back.push(item.clone());
                continue;
            }
            (_, Some(failure)) => {
                Removal::Failed(ExportError::kv(&item.kv_key(), failure.error.clone()))
            }
            (Ok(_), None) => Removal::Removed,
            (Err(error), None) => Removal::Failed(error.clone().into()),
        };
        outcomes.insert(item.clone(), outcome);
    }
    let writes = back.iter().cloned().map(WriteItem::new).collect();
    let written = write_items(invocation, Namespace::QueryConfigs, writes, api_keys).await;
    for item in back {
        let outcome = match written.fate(&item) {
            Fate::Written => Removal::Written(item.clone()),
            Fate::Rejected(rejection) => {
                log_rejected(Some(&item), None, &rejection);
                Removal::Stays
            }
            Fate::Absent => Removal::Failed(ExportError::StillChanging),
            Fate::Failed(error) => Removal::Failed(error),
        };
        outcomes.insert(item, outcome);
    }
    outcomes
}
