//! Removes keys: what KV holds, a pass over the table, delete, a pass after it.
//!
//! | the verdict on the key | then |
//! | --- | --- |
//! | orphaned | deleted; put back where the pass after the delete says otherwise, and removed once more |
//! | an item asks for it | written for that item, under this key alone; another environment's value stays |
//! | withheld | stays, with a warning |
//! | rejected | stays, with an error |
//! | foreign | stays: only what could be put back is deleted |
//!
//! A race that it survives: R reads the table. Another item gets the shop id, and its record is exported. R
//! deletes the key. The pass after the delete finds the item, so R puts back what it read, begins again, and
//! writes the key for the item.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, warn};

use super::api_keys::ApiKeys;
use super::bulk::{self, Delete};
use super::error::{ExportError, log_rejected};
use super::exportable::Exportable;
use super::invocation::{Budget, Invocation, OutOfTime};
use super::judge::{Held, KvKey, OwnerItem, Table, Verdict, Wants};
use super::table::{ReadError, pass, read_items};
use super::write::{Fate, READ_ITEMS, WriteItem, write_items};
use crate::error_chain::Chain;
use crate::index::{IndexRef, ItemRef};
use crate::item::ItemKey;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::kv::{Metadata, Namespace, Pair, StoredValue, check_key};
use crate::ports::{ScanColumns, Services};

/// The most often that a key is deleted and put back.
const MAX_PUT_BACKS: usize = 3;

/// What a put-back takes, with time to spare.
const TIME_FOR_A_PUT_BACK: Duration = Duration::from_secs(2);

/// What a delete and a put-back take beside the pass between them.
const TIME_FOR_WRITES: Duration = Duration::from_secs(5);

/// What the values that are kept to be put back may take, in bytes, unless one alone takes more. One request
/// reads up to 25 MB besides.
const MAX_BYTES: usize = 16 * 1024 * 1024;

/// What became of a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Removal {
    Removed,
    /// It is not ours, or an alias or an item that can't be exported keeps it.
    Stays,
    /// An item asks for it, and KV holds that.
    Written(ItemRef),
    /// It was to be deleted, and was not let through.
    Postponed,
    Failed(ExportError),
}

/// Says whether keys that these indexes own may be deleted.
pub type Brake<'a> = &'a dyn Fn(&BTreeSet<Rc<IndexRef>>) -> bool;

/// Removes settings keys. Returns what became of each, without names that KV can't hold.
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
        let mut table = match look(self.invocation, Table::of_settings(&read.held), |_| true).await
        {
            Ok(table) => table,
            Err(error) => {
                self.fail(read.held.into_keys(), &error.into());
                return BTreeSet::new();
            }
        };
        let a_pass = started.elapsed();
        let orphaned = read.held.keys().filter(|key| table.is_orphaned(key));
        let mut open: BTreeSet<String> = orphaned.cloned().collect();
        let owners = open.iter().filter_map(|key| read.held[key].owner().cloned()).collect();
        let outcome = match (open.is_empty(), may_delete) {
            (true, _) => None,
            (false, false) => Some(Removal::Failed(ExportError::StillChanging)),
            (false, true) => (!brake(&owners)).then_some(Removal::Postponed),
        };
        let mut again = BTreeSet::new();
        if let Some(outcome) = outcome {
            self.outcomes.extend(open.iter().map(|key| (key.clone(), outcome.clone())));
            open.clear();
        }
        loop {
            // The pass after one group may say otherwise of the next.
            open.retain(|key| table.is_orphaned(key));
            if open.is_empty() {
                break;
            }
            if self.invocation.time_left() < a_pass + TIME_FOR_WRITES {
                self.fail(open, &ExportError::NoTimeForPass);
                break;
            }
            let group = self.take_group(&mut open, &mut read).await;
            match self.delete(group, &read.held, a_pass, &mut again).await {
                Ok(behind) => table = behind,
                Err(error) => {
                    self.fail(open, &error.into());
                    break;
                }
            }
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
        let (invocation, keys) = (self.invocation, keys.iter().cloned());
        bulk::read(invocation, Namespace::Settings, invocation.budget, keys, |key, stored| {
            let stored = match stored {
                Ok(stored) => stored,
                Err(error) => {
                    let error = ExportError::kv(&key, error);
                    return self.fail([key], &error);
                }
            };
            let held = Held::read(stored.as_ref(), &invocation.config.environment);
            read.held.insert(key.clone(), held);
            if let Some(stored) = stored
                && (read.values.is_empty() || read.bytes + stored.value.len() <= MAX_BYTES)
            {
                read.bytes += stored.value.len();
                read.values.insert(key, stored);
            }
        })
        .await;
    }

    /// Returns the next orphans, as many as there is room for their values. Values that were dropped are read
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
                match again.held.get(&key) {
                    Some(held) if *held == read.held[&key] => {
                        let value = again.values.remove(&key);
                        read.values.extend(value.map(|value| (key, value)));
                        continue;
                    }
                    Some(_) => self.fail([key.clone()], &ExportError::StillChanging),
                    // It could not be read, and has failed.
                    None => {}
                }
                open.remove(&key);
            }
        }
        let mut group = std::mem::take(&mut read.values);
        group.retain(|key, _| open.remove(key));
        group
    }

    /// Deletes orphans, and makes a pass. What is no orphan by that pass is put back, and goes through the removal
    /// again. Where the pass fails, everything is put back, and has failed. Returns the pass.
    async fn delete(
        &mut self,
        mut group: BTreeMap<String, StoredValue>,
        held: &BTreeMap<String, Held>,
        a_pass: Duration,
        again: &mut BTreeSet<String>,
    ) -> Result<Table, ReadError> {
        let deletes = group.iter().filter_map(|(key, stored)| {
            let item = (**held.get(key)?.owner()?).clone().into();
            Some(Delete { key: key.clone(), item, metadata: stored.metadata() })
        });
        let deletes = deletes.collect();
        let budget = self.invocation.budget;
        let before = |time| budget.deadline.checked_sub(time).unwrap_or(budget.deadline);
        let budget = Budget { deadline: before(a_pass + TIME_FOR_A_PUT_BACK), ..budget };
        let failures = bulk::delete(self.invocation, Namespace::Settings, budget, deletes).await;
        for (key, failure) in &failures {
            self.fail([key.clone()], &ExportError::kv(key, failure.error.clone()));
            if !failure.may_be_done {
                group.remove(key);
            }
        }
        let behind = look(self.invocation, Table::of_settings(held), |_| true);
        let behind = tokio::time::timeout_at(before(TIME_FOR_A_PUT_BACK), behind).await;
        match behind.unwrap_or(Err(OutOfTime.into())) {
            Ok(table) => {
                for (key, _) in group.extract_if(.., |key, _| table.is_orphaned(key)) {
                    self.outcomes.entry(key).or_insert(Removal::Removed);
                }
                for key in self.put_back(group).await {
                    self.outcomes.remove(&key);
                    again.insert(key);
                }
                Ok(table)
            }
            Err(error) => {
                let keys: Vec<String> = group.keys().cloned().collect();
                let restored = self.put_back(group).await;
                let restored = keys.into_iter().filter(|key| restored.contains(key));
                self.fail(restored, &error.clone().into());
                Err(error)
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
            .map(|(key, stored)| Pair {
                key: key.clone(),
                stored: Rc::new(stored.clone()),
                item: None,
            })
            .collect();
        // What was deleted has to be there again: a put-back waits as long as there is time.
        let budget = Budget::until(self.invocation.budget.deadline);
        let failures = bulk::put(self.invocation, Namespace::Settings, budget, pairs).await;
        let mut restored = Vec::new();
        for key in values.into_keys() {
            match failures.get(&key) {
                None => {
                    warn!(key, "a deleted key is put back: the table needs it, or can't be read");
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

/// Makes a pass for the keys that a table knows, over the items that count. Returns the table.
pub async fn look<S: Services>(
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
    let owners: Vec<ItemRef> = owners.iter().map(|owner| (**owner).clone().into()).collect();
    for owners in owners.chunks(READ_ITEMS) {
        let keys = owners.iter().map(ItemRef::key);
        let items = read_items(invocation, invocation.budget.deadline, keys).await?;
        for owner in owners {
            let item = items.get(&owner.key());
            let decoded = item.map(|item| Exportable::decode(owner, item, invocation.config));
            let item = match decoded {
                Some(Err(_)) => OwnerItem::Rejected,
                Some(Ok(_)) => OwnerItem::Exportable,
                None => OwnerItem::Absent,
            };
            table.resolve_owner(&owner.index, item);
        }
    }
    Ok(table)
}

/// Removes query configs. Each item is read, its key deleted if the item is gone, and the item read again. An
/// item that is back is written. Each may come with the metadata that was read under its key, for the receipt.
/// Returns what became of each, without names that KV can't hold.
pub async fn remove_query_configs<S: Services>(
    invocation: &Invocation<'_, S>,
    items: impl IntoIterator<Item = (ItemRef, Option<Metadata>)>,
    api_keys: &mut ApiKeys,
) -> BTreeMap<ItemRef, Removal> {
    let mut outcomes = BTreeMap::new();
    let items = items.into_iter().filter(|(item, _)| check_key(&item.kv_key()).is_ok());
    for items in Vec::from_iter(items).chunks(READ_ITEMS) {
        let read = async || {
            let keys = items.iter().map(|(item, _)| item.key());
            let items = read_items(invocation, invocation.budget.deadline, keys).await;
            items.map(|items| items.into_keys().collect::<BTreeSet<_>>())
        };
        let there = match read().await {
            Ok(there) => there,
            Err(error) => {
                let failed = Removal::Failed(error.into());
                outcomes.extend(items.iter().map(|(item, _)| (item.clone(), failed.clone())));
                continue;
            }
        };
        let gone = items.iter().filter(|(item, _)| !there.contains(&item.key())).cloned();
        // Two of them may have one key.
        let deletes: BTreeMap<String, Delete> = gone
            .map(|(item, metadata)| (item.kv_key(), Delete { key: item.kv_key(), item, metadata }))
            .collect();
        let deletes = deletes.into_values();
        let (namespace, budget) = (Namespace::QueryConfigs, invocation.budget);
        let failures = bulk::delete(invocation, namespace, budget, deletes.collect()).await;
        let behind = read().await;
        let is_back = |item: &ItemRef| behind.as_ref().is_ok_and(|it| it.contains(&item.key()));
        let (back, gone): (Vec<_>, Vec<_>) =
            items.iter().map(|(item, _)| item.clone()).partition(is_back);
        for item in gone {
            let key = item.kv_key();
            let outcome = match (failures.get(&key), &behind) {
                (Some(failure), _) => Removal::Failed(ExportError::kv(&key, failure.error.clone())),
                (None, Err(error)) => Removal::Failed(error.clone().into()),
                // It was there before, so its key was not deleted.
                (None, Ok(_)) if there.contains(&item.key()) => {
                    Removal::Failed(ExportError::StillChanging)
                }
                (None, Ok(_)) => Removal::Removed,
            };
            outcomes.insert(item, outcome);
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
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::api_keys::Fallback;
    use crate::export::fakes::{
        Fakes, Keys, KvFault, TIME_LEFT, TableChange, down, entry, index_item, item, query_config,
        shop,
    };
    use crate::item::{Item, ItemKey};
    use crate::kv::Source;
    use crate::ports::{Cause, KvError};
    use serde_json::{Value, json};
    use std::cell::RefCell;

    /// Removes keys of a batch, for which there is time.
    async fn remove(fakes: &Fakes, keys: &[&str]) -> (BTreeMap<String, Removal>, Counts) {
        remove_within(fakes, keys, TIME_LEFT, &|_| true).await
    }

    /// Keys withheld, put back, and lost.
    type Counts = (u64, u64, u64);

    async fn remove_within(
        fakes: &Fakes,
        keys: &[&str],
        time: Duration,
        brake: Brake<'_>,
    ) -> (BTreeMap<String, Removal>, Counts) {
        let mut invocation = fakes.invocation(Source::Stream);
        invocation.budget.deadline = Instant::now() + time;
        invocation.budget.writes_until = Instant::now() + time / 2;
        let mut api_keys = ApiKeys::new(Fallback::Kv, time);
        let keys = keys.iter().map(|key| (*key).to_owned()).collect();
        let removed = remove_keys(&invocation, keys, &mut api_keys, brake).await;
        let stats = invocation.stats();
        (removed, (stats.deletes_withheld, stats.deletes_restored, stats.put_backs_failed))
    }

    /// What became of a key, in a word.
    fn word(removal: &Removal) -> String {
        match removal {
            Removal::Removed => "removed".to_owned(),
            Removal::Stays => "stays".to_owned(),
            Removal::Written(item) => format!("written for {item}"),
            Removal::Postponed => "held".to_owned(),
            Removal::Failed(error) => format!("failed: {}", Chain(error)),
        }
    }

    /// Item `j`, which asks for key `s`.
    fn claimant() -> (ItemKey, Item) {
        index_item("j", &shop("s"))
    }

    /// Item `name`, whose `read_alias` is `target`.
    fn pointer(name: &str, target: &str) -> (ItemKey, Item) {
        index_item(name, &json!({"read_alias": {"S": target}}))
    }

    /// Services in which KV holds index `gone` under key `s`.
    fn with_key() -> Fakes {
        let fakes = Fakes::new();
        fakes.kv.hold_entry("s", &entry("gone", &json!({"old": 1})));
        fakes
    }

    fn lost() -> KvError {
        KvError::Transient(Cause::new("lost"))
    }

    fn refused() -> KvError {
        KvError::Refused(Cause::new("scripted"))
    }

    #[tokio::test(start_paused = true)]
    async fn each_row_of_the_table() {
        let broken = || index_item("gone", &json!({"index_endpoint": null}));
        let broken_claimant =
            || index_item("j", &json!({"shop_id": {"S": "s"}, "index_endpoint": null}));
        let moved = || index_item("gone", &shop("t"));
        let written = "written for a/j";
        let rows = [
            ("no item", vec![], "removed", 0),
            ("the owner has other keys", vec![moved()], "removed", 0),
            ("an item asks for it", vec![claimant()], written, 0),
            ("an item that can't be exported asks for it", vec![broken_claimant()], "stays", 0),
            ("an alias names the key", vec![pointer("x", "s")], "stays", 1),
            ("an alias names its owner", vec![pointer("x", "a-gone")], "stays", 1),
            ("an item asks for it, and an alias", vec![claimant(), pointer("x", "s")], written, 0),
            ("the owner can't be exported", vec![broken()], "stays", 0),
        ];
        for (name, items, expected, withheld) in rows {
            let fakes = with_key();
            items.into_iter().for_each(|item| fakes.table.put(item));
            let (removed, counts) = remove(&fakes, &["s"]).await;
            assert_eq!(word(&removed["s"]), expected, "{name}");
            assert_eq!(counts, (withheld, 0, 0), "{name}");
            let held: &[&str] = if expected == "removed" { &[] } else { &["s"] };
            assert_eq!(fakes.kv.keys(), held, "{name}: no other key is touched");
            if expected == written {
                assert_eq!(fakes.kv.value("s")["index_name"], "j", "{name}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_ours_stays_and_is_written_for_an_item_that_asks_for_it() {
        let written = "written for a/j";
        for (name, held, environment, is_claimed, expected) in [
            ("nothing", None, "prod", false, "stays"),
            ("nothing, asked for", None, "prod", true, written),
            ("a stranger's", Some(json!(7)), "prod", false, "stays"),
            ("a stranger's, asked for", Some(json!(7)), "prod", true, written),
            ("another environment's", Some(json!({})), "dev", false, "stays"),
            ("another environment's, asked for", Some(json!({})), "dev", true, "stays"),
        ] {
            let mut fakes = Fakes::new();
            fakes.0.config.environment = environment.to_owned();
            match &held {
                Some(Value::Number(_)) => fakes.kv.hold("s", &json!("stranger")),
                Some(value) => fakes.kv.hold_entry("s", &entry("gone", value)),
                None => {}
            }
            is_claimed.then(|| fakes.table.put(claimant()));
            let before = fakes.kv.held.borrow().clone();
            let (removed, _) = remove(&fakes, &["s", "", "."]).await;
            assert_eq!(removed.len(), 1, "{name}: what KV can't hold is left out");
            assert_eq!(word(&removed["s"]), expected, "{name}");
            assert_eq!(*fakes.kv.held.borrow() == before, expected == "stays", "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_something_fails_nothing_is_deleted() {
        let unread = "failed: key \"s\": Cloudflare KV refuses the request: scripted";
        let unpassed = "failed: settings table: Scan: down";
        let no_time = "failed: too little time is left for a delete and the pass after it";
        let fails = TableChange::Fails;
        for (name, kv_fault, table_fault, seconds, expected) in [
            ("KV can't be read", Some(refused()), None, 300, unread),
            ("the pass fails", None, Some(fails), 300, unpassed),
            ("no time for a pass after it", None, None, 4, no_time),
        ] {
            let fakes = with_key();
            fakes.kv.faults.then(kv_fault.map(KvFault::Fails));
            fakes.table.changes.then(table_fault);
            let time = Duration::from_secs(seconds);
            let (removed, _) = remove_within(&fakes, &["s"], time, &|_| true).await;
            assert_eq!(word(&removed["s"]), expected, "{name}");
            assert_eq!(fakes.kv.requests.borrow().len(), 1, "{name}");
        }
        let fakes = with_key();
        fakes.table.put(claimant());
        fakes.api_keys.faults.then((0..4).map(|_| down()));
        let (removed, _) = remove(&fakes, &["s"]).await;
        assert!(word(&removed["s"]).starts_with("failed: no API key from cell"));
        assert_eq!(fakes.kv.value("s")["old"], 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_from_the_pass_behind_the_delete() {
        let lose = |_| KvFault::IsDoneAndFails(Keys::All, lost());
        let four_lost = || (0..4).map(lose).collect::<Vec<_>>();
        let refuse = || KvFault::Fails(refused());
        let done = || KvFault::ListsAsUnsuccessful(Keys::Named(&[]));
        let asked_wait = Some(TIME_LEFT * 3 / 4);
        let asks_to_wait = KvError::Transient(Cause { asked_wait, ..Cause::new("scripted") });
        let slow = vec![done(), KvFault::Fails(asks_to_wait)];
        let put = || vec![TableChange::Put(claimant())];
        let points = || vec![TableChange::Put(pointer("x", "s"))];
        let fails = || vec![TableChange::Fails];
        let (written, unpassed) = ("written for a/j", "failed: settings table: Scan: down");
        let lost = "failed: key \"s\": Cloudflare KV: lost";
        let refused = "failed: key \"s\": Cloudflare KV refuses the request: scripted";
        let (gone, held): (&[&str], &[&str]) = (&[], &["s"]);
        let rows = [
            ("as before", vec![], vec![], "removed", gone, (0, 0, 0)),
            ("asked for", put(), vec![], written, held, (0, 1, 0)),
            ("withheld", points(), vec![], "stays", held, (1, 1, 0)),
            ("it fails", fails(), vec![], unpassed, held, (0, 1, 0)),
            ("a lost delete", vec![], four_lost(), lost, gone, (0, 0, 0)),
            ("a lost delete, asked for", put(), four_lost(), written, held, (0, 1, 0)),
            ("a refused delete, asked for", put(), vec![refuse()], refused, held, (0, 0, 0)),
            ("a put-back after writes end", points(), slow, "stays", held, (1, 1, 0)),
            ("a refused put-back", put(), vec![done(), refuse()], refused, gone, (0, 0, 1)),
            (
                "it fails, refused put-back",
                fails(),
                vec![done(), refuse()],
                refused,
                gone,
                (0, 0, 1),
            ),
        ];
        for (name, passes, faults, expected, held, counts) in rows {
            let fakes = with_key();
            fakes.table.changes.then_nothing(1);
            fakes.table.changes.then(passes);
            fakes.kv.faults.then_nothing(1);
            fakes.kv.faults.then(faults);
            let (removed, counted) = remove(&fakes, &["s"]).await;
            assert_eq!(word(&removed["s"]), expected, "{name}");
            assert_eq!(fakes.kv.keys(), held, "{name}");
            assert_eq!(counted, counts, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_delete_without_a_response_leaves_time_for_its_pass_and_a_put_back() {
        let fakes = with_key();
        fakes.table.changes.then_nothing(1);
        fakes.table.changes.then([TableChange::Put(pointer("x", "s"))]);
        fakes.kv.faults.then_nothing(1);
        fakes.kv.faults.then([KvFault::IsDoneAndHangs]);
        let time = Duration::from_secs(8);
        let (removed, counts) = remove_within(&fakes, &["s"], time, &|_| true).await;
        assert_eq!(word(&removed["s"]), "stays");
        assert_eq!(fakes.kv.keys(), ["s"]);
        assert_eq!(counts, (1, 1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_put_back_is_as_it_was_read() {
        let fakes = with_key();
        let before = fakes.kv.held.borrow().clone();
        fakes.table.changes.then_nothing(1);
        fakes.table.changes.then([TableChange::Fails]);
        remove(&fakes, &["s"]).await;
        assert_eq!(*fakes.kv.held.borrow(), before);
        assert_eq!(fakes.kv.requests.borrow().len(), 3, "read, deleted, put back");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_was_put_back_three_times_is_not_deleted_again() {
        let fakes = with_key();
        let (key, _) = pointer("x", "s");
        for _ in 0..=MAX_PUT_BACKS {
            fakes.table.changes.then([TableChange::Remove(key.clone())]);
            fakes.table.changes.then([TableChange::Put(pointer("x", "s"))]);
        }
        let (removed, counts) = remove(&fakes, &["s"]).await;
        assert_eq!(word(&removed["s"]), "failed: the item still changes after 3 writes");
        assert_eq!(counts, (0, 3, 0));
        assert_eq!(fakes.kv.keys(), ["s"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_whose_item_comes_and_goes_with_each_read_has_failed() {
        let fakes = with_key();
        for _ in 0..=MAX_PUT_BACKS {
            let (key, item) = claimant();
            fakes.table.changes.then([TableChange::Put((key.clone(), item))]);
            fakes.table.changes.then([TableChange::Remove(key)]);
        }
        let (removed, _) = remove(&fakes, &["s"]).await;
        assert_eq!(word(&removed["s"]), "failed: the item still changes after 3 writes");
        assert_eq!(fakes.kv.keys(), ["s"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_brake_holds_all_orphans_and_nothing_else() {
        let fakes = with_key();
        for (key, name) in [("s2", "gone2"), ("s3", "gone2"), ("kept", "gone3"), ("asked", "gone4")]
        {
            fakes.kv.hold_entry(key, &entry(name, &json!({})));
        }
        fakes.table.put(pointer("x", "kept"));
        fakes.table.put(index_item("j", &shop("asked")));
        let asked = RefCell::new(Vec::new());
        let brake = |owners: &BTreeSet<Rc<IndexRef>>| {
            asked.borrow_mut().push(owners.iter().map(|it| it.name.clone()).collect::<Vec<_>>());
            false
        };
        let keys = ["s", "s2", "s3", "kept", "asked"];
        let (removed, _) = remove_within(&fakes, &keys, TIME_LEFT, &brake).await;
        let words: Vec<String> = keys.iter().map(|key| word(&removed[*key])).collect();
        assert_eq!(words, ["held", "held", "held", "stays", "written for a/j"]);
        assert_eq!(*asked.borrow(), [["gone", "gone2"]]);
        assert_eq!(fakes.kv.keys().len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn values_that_do_not_fit_memory_go_in_groups() {
        let fakes = Fakes::new();
        let keys = ["s1", "s2", "s3"];
        for (key, mib) in keys.iter().zip([9, 9, 17]) {
            let value = json!({"x": "x".repeat(mib * 1024 * 1024)});
            fakes.kv.hold_entry(key, &entry("gone", &value));
        }
        let (removed, _) = remove(&fakes, &keys).await;
        let words: Vec<String> = keys.iter().map(|key| word(&removed[*key])).collect();
        assert_eq!(words, ["removed"; 3]);
        assert!(fakes.kv.keys().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_that_changes_before_its_delete_stays() {
        let fakes = Fakes::new();
        let large = |x: &str| entry("gone", &json!({"x": x.repeat(9 * 1024 * 1024)}));
        fakes.kv.hold_entry("s", &large("s"));
        fakes.kv.hold_entry("t", &large("t"));
        // The brake is asked between the two reads of `t`, whose value has no room beside that of `s`.
        let brake = |_: &BTreeSet<Rc<IndexRef>>| {
            fakes.kv.hold_entry("t", &large("u"));
            true
        };
        let (removed, _) = remove_within(&fakes, &["s", "t"], TIME_LEFT, &brake).await;
        assert_eq!(word(&removed["s"]), "removed");
        assert!(matches!(removed["t"], Removal::Failed(ExportError::StillChanging)));
        assert_eq!(fakes.kv.keys(), ["t"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_that_cannot_be_read_again_fails_for_that() {
        let fakes = Fakes::new();
        for key in ["s", "t"] {
            let value = json!({"x": "x".repeat(9 * 1024 * 1024)});
            fakes.kv.hold_entry(key, &entry("gone", &value));
        }
        fakes.kv.faults.then_nothing(2);
        fakes.kv.faults.then([KvFault::Fails(refused())]);
        let (removed, _) = remove(&fakes, &["s", "t"]).await;
        let expected = "failed: key \"t\": Cloudflare KV refuses the request: scripted";
        assert_eq!([word(&removed["s"]), word(&removed["t"])], ["removed", expected]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_items_of_many_owners_are_read_in_hundreds() {
        let fakes = Fakes::new();
        let names: Vec<String> = (0..150).map(|number| number.to_string()).collect();
        for name in &names {
            fakes.kv.hold_entry(&format!("s{name}"), &entry(name, &json!({})));
            fakes.table.put(index_item(name, &shop(&format!("t{name}"))));
        }
        let invocation = fakes.invocation(Source::Stream);
        let mut api_keys = ApiKeys::new(Fallback::Kv, TIME_LEFT);
        let keys = names.iter().map(|name| format!("s{name}")).collect();
        let removed = remove_keys(&invocation, keys, &mut api_keys, &|_| true).await;
        assert!(removed.values().all(|removal| *removal == Removal::Removed));
        assert_eq!(invocation.stats().table_requests, 2 * (8 + 2), "two passes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_of_two_query_configs_is_once_in_a_request() {
        let fakes = Fakes::new();
        let config = |account: &str, name: &str| ItemRef {
            index: IndexRef::parse(account, name).unwrap(),
            query: Some("q".to_owned()),
        };
        let items = [config("a", "b-c"), config("a-b", "c")].map(|item| (item, None));
        let invocation = fakes.invocation(Source::Stream);
        let mut api_keys = ApiKeys::new(Fallback::Nothing, Duration::ZERO);
        let removed = remove_query_configs(&invocation, items, &mut api_keys).await;
        assert!(removed.values().all(|removal| *removal == Removal::Removed));
        assert_eq!(*fakes.kv.requests.borrow(), [[config("a", "b-c").kv_key()]]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_pass_behind_one_group_says_counts_for_the_next() {
        let unpassed = "failed: settings table: Scan: down";
        for (change, words, expected) in [
            (TableChange::Put(pointer("x", "t")), ["removed", "stays"], (1, 0, 0)),
            (TableChange::Fails, [unpassed; 2], (0, 1, 0)),
        ] {
            let fakes = Fakes::new();
            for key in ["s", "t"] {
                let value = json!({"x": "x".repeat(9 * 1024 * 1024)});
                fakes.kv.hold_entry(key, &entry("gone", &value));
            }
            fakes.table.changes.then_nothing(1);
            fakes.table.changes.then([change]);
            let (removed, counts) = remove(&fakes, &["s", "t"]).await;
            assert_eq!([word(&removed["s"]), word(&removed["t"])], words);
            assert_eq!(counts, expected);
        }
    }

    #[tokio::test(start_paused = true)]
    #[expect(clippy::type_complexity, reason = "each row is one case")]
    async fn what_becomes_of_query_configs() {
        let config = query_config("i", "q");
        let stored = || item(&config, &json!({"x": {"N": "2"}}));
        let key = config.kv_key();
        let put = || TableChange::Put(stored());
        let broken = || TableChange::Put(item(&config, &json!({"x": {"Q": "2"}})));
        let gone = || TableChange::Remove(config.key());
        let fails = || TableChange::Fails;
        let unread = "failed: settings table: BatchGetItem: down";
        let changing = "failed: the item still changes after 3 writes";
        let written = "written for a/i \"q\"";
        let refusal = format!("failed: key {key:?}: Cloudflare KV refuses the request: scripted");
        let rows: [(_, Vec<TableChange>, Option<KvError>, &str, Option<i32>); 10] = [
            ("gone", vec![], None, "removed", None),
            ("there, and then the read fails", vec![put(), fails()], None, unread, Some(1)),
            ("there, and then gone", vec![put(), gone()], None, changing, Some(1)),
            ("there", vec![put()], None, written, Some(2)),
            ("back after the delete", vec![gone(), put()], None, written, Some(2)),
            ("back, and can't be exported", vec![gone(), broken()], None, "stays", None),
            ("back, and gone again", vec![gone(), put(), gone()], None, changing, None),
            ("the first read fails", vec![fails()], None, unread, Some(1)),
            ("the second read fails", vec![gone(), fails()], None, unread, None),
            ("the delete fails", vec![], Some(refused()), &refusal, Some(1)),
        ];
        for (name, changes, fault, expected, held) in rows {
            let fakes = Fakes::new();
            fakes.kv.hold_entry(&key, &entry("i", &json!({"x": 1})));
            fakes.table.changes.then(changes);
            fakes.kv.faults.then(fault.map(KvFault::Fails));
            let invocation = fakes.invocation(Source::Stream);
            let mut api_keys = ApiKeys::new(Fallback::Nothing, Duration::ZERO);
            let items = [(config.clone(), None)];
            let removed = remove_query_configs(&invocation, items, &mut api_keys).await;
            assert_eq!(word(&removed[&config]), expected, "{name}");
            let is_held = fakes.kv.keys() == [key.clone()];
            let value = is_held.then(|| fakes.kv.value(&key)["x"].clone());
            assert_eq!(value, held.map(Value::from), "{name}");
        }
    }
}
