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
use super::invocation::{Budget, Invocation};
use super::judge::{Held, KvKey, Range, Table, Verdict, Wants};
use super::table::{pass, read_items};
use super::write::{Fate, READ_ITEMS, WriteItem, Written, write_items};
use crate::index::{IndexRef, ItemRef};
use crate::item::ItemKey;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::kv::{Metadata, Namespace, Pair, StoredValue, check_key};
use crate::ports::{ScanColumns, Service, ServiceError, Services};
use crate::text::Chain;

/// The most often that a key begins again: it was put back, or its item has changed meanwhile.
const MAX_REPEATS: usize = 3;

/// What a delete takes, with time to spare.
const TIME_FOR_A_DELETE: Duration = Duration::from_secs(3);

/// Returns what a put-back takes, with time to spare: 2 s, and 1 s for each MiB or 1,000 keys.
fn time_for_a_put_back(values: &BTreeMap<String, StoredValue>) -> Duration {
    let bytes: usize = values.values().map(|stored| stored.value.len()).sum();
    Duration::from_secs((2 + bytes / (1024 * 1024) + values.len() / 1_000) as u64)
}

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

/// Says whether keys that these indexes own may be deleted. It is asked before the deletes of each round, with the
/// owners of all orphans.
pub type Brake<'a> = &'a dyn Fn(&BTreeSet<Rc<IndexRef>>) -> bool;

fn failed(key: &str, error: ServiceError) -> Removal {
    Removal::Failed(ExportError::kv(key, error))
}

fn still_changing() -> Removal {
    Removal::Failed(ExportError::StillChanging)
}

/// What follows for a key after a round.
#[derive(Clone)]
enum Step {
    Done(Removal),
    /// The key has changed meanwhile, and begins again.
    BeginAgain,
    /// It was not read, or is an orphan whose value had no room.
    NextRound,
}

type Steps = BTreeMap<String, Step>;

/// Removes settings keys. Returns what became of each, without names that KV can't hold.
pub async fn remove_keys<S: Services>(
    invocation: &Invocation<'_, S>,
    keys: BTreeSet<String>,
    api_keys: &mut ApiKeys,
    brake: Option<Brake<'_>>,
) -> BTreeMap<String, Removal> {
    let keys = keys.into_iter().filter(|key| check_key(key).is_ok());
    let open = keys.map(|key| (key, 0)).collect();
    let mut removing = Removing { invocation, api_keys, brake, open };
    let mut removed = BTreeMap::new();
    while !removing.open.is_empty() {
        let (mut steps, of_others) = removing.round().await;
        for (key, repeats) in std::mem::take(&mut removing.open) {
            match steps.remove(&key).unwrap_or_else(|| of_others.clone()) {
                Step::Done(removal) => {
                    removed.insert(key, removal);
                }
                Step::BeginAgain if repeats == MAX_REPEATS => {
                    removed.insert(key, still_changing());
                }
                Step::BeginAgain => {
                    removing.open.insert(key, repeats + 1);
                }
                Step::NextRound => {
                    removing.open.insert(key, repeats);
                }
            }
        }
    }
    removed
}

struct Removing<'a, 's, S> {
    invocation: &'a Invocation<'s, S>,
    api_keys: &'a mut ApiKeys,
    brake: Option<Brake<'a>>,
    /// Keys about which nothing is decided, each with how often it has begun again.
    open: BTreeMap<String, usize>,
}

impl<S: Services> Removing<'_, '_, S> {
    /// Removes the open keys once. Returns a step for each key that is decided, and one for all others.
    async fn round(&mut self) -> (Steps, Step) {
        let (held, mut values, mut steps) = self.read().await;
        if held.rows.is_empty() {
            return (steps, Step::NextRound);
        }
        let started = Instant::now();
        let mut table =
            match look(self.invocation, ScanColumns::Claims, held.clone(), |_| true).await {
                Ok(table) => table,
                Err(error) => return (steps, Step::Done(Removal::Failed(error.into()))),
            };
        let a_pass = started.elapsed();
        // One that has begun again too often is not deleted once more.
        let may_go = |key: &String| table.is_orphaned(key) && self.open[key] < MAX_REPEATS;
        let orphans = table.rows.iter().filter(|(key, _)| may_go(&key.name));
        let owners = orphans.filter_map(|(_, row)| row.held.owner().cloned()).collect();
        values.retain(|key, _| may_go(key));
        let mut of_others = Step::NextRound;
        let put_back = time_for_a_put_back(&values);
        if self.invocation.time_left() < TIME_FOR_A_DELETE + a_pass + put_back {
            of_others = Step::Done(Removal::Failed(ExportError::NoTimeForPass));
        } else if self.brake.is_some_and(|lets_through| !lets_through(&owners)) {
            of_others = Step::Done(Removal::Postponed);
        } else if !values.is_empty() {
            let (behind, of_orphans) = self.delete(values, held, a_pass).await;
            steps.extend(of_orphans);
            match behind {
                Ok(behind) => table = behind,
                Err(error) => of_others = Step::Done(Removal::Failed(error.into())),
            }
        }
        (self.write(&table, steps).await, of_others)
    }

    /// Reads the open keys. Returns a table that knows what KV holds under them, the values for which there is room,
    /// and which keys can't be read. Reading ends where there is no more room, unless a brake has to know all owners.
    async fn read(&self) -> (Table, BTreeMap<String, StoredValue>, Steps) {
        let (invocation, mut bytes) = (self.invocation, 0);
        let (mut table, mut values) = (Table::new(Range::empty()), BTreeMap::new());
        let mut steps = Steps::new();
        let open: Vec<String> = self.open.keys().cloned().collect();
        for keys in open.chunks(MAX_BULK_GET_KEYS) {
            if bytes > MAX_BYTES && self.brake.is_none() {
                break;
            }
            let (settings, keys) = (Namespace::Settings, keys.to_vec());
            bulk::read(invocation, settings, invocation.budget, keys, |key, stored| match stored {
                Ok(stored) => {
                    let held = Held::read(stored.as_ref(), &invocation.config.environment);
                    table.hold(KvKey::of_settings(&key), held);
                    let Some(stored) = stored else { return };
                    bytes += stored.value.len();
                    if values.is_empty() || bytes <= MAX_BYTES {
                        values.insert(key, stored);
                    }
                }
                Err(error) => {
                    // What was put back may be older than the table, so it is not left to a repair.
                    let is_put_back = self.open[&key] > 0;
                    let error = if is_put_back { error.without_fault() } else { error };
                    steps.insert(key.clone(), Step::Done(failed(&key, error)));
                }
            })
            .await;
        }
        (table, values, steps)
    }

    /// Deletes orphans, and makes a pass. What is no orphan by that pass is put back; where the pass fails,
    /// everything is. Returns the pass, and what became of the orphans.
    async fn delete(
        &self,
        orphans: BTreeMap<String, StoredValue>,
        held: Table,
        a_pass: Duration,
    ) -> (Result<Table, ServiceError>, Steps) {
        let deletes = orphans.iter().filter_map(|(key, stored)| {
            let owner = held.owner_of(&KvKey::of_settings(key))?;
            let item = IndexRef::clone(owner).into();
            Some(Delete { key: key.clone(), item, metadata: stored.metadata() })
        });
        let deletes = deletes.collect();
        let budget = self.invocation.budget;
        let pass_until = budget.deadline - time_for_a_put_back(&orphans);
        let budget = Budget { deadline: pass_until - a_pass, ..budget };
        let failures = bulk::delete(self.invocation, Namespace::Settings, budget, deletes).await;
        let behind = look(self.invocation, ScanColumns::Claims, held, |_| true);
        let behind = tokio::time::timeout_at(pass_until, behind).await;
        let behind =
            behind.unwrap_or_else(|_| Err(ServiceError::out_of_time(Service::Table, true)));
        let mut steps = Steps::new();
        let mut needed = Vec::new();
        for (key, stored) in orphans {
            let failure = failures.get(&key);
            let may_be_deleted = failure.is_none_or(|failure| failure.may_be_done);
            if may_be_deleted && !behind.as_ref().is_ok_and(|table| table.is_orphaned(&key)) {
                needed.push(Pair { key, stored: Rc::new(stored), item: None });
            } else {
                let removal = failure.map(|failure| failed(&key, failure.error.clone()));
                let removal = removal.unwrap_or(Removal::Removed);
                steps.insert(key, Step::Done(removal));
            }
        }
        let restored = match &behind {
            Ok(_) => Step::BeginAgain,
            Err(error) => Step::Done(Removal::Failed(error.clone().into())),
        };
        steps.extend(self.put_back(needed, restored).await);
        (behind, steps)
    }

    /// Puts values back as they were read. What KV confirms comes to `restored`.
    async fn put_back(&self, pairs: Vec<Pair>, restored: Step) -> Steps {
        // What was deleted has to be there again: a put-back waits as long as there is time.
        let budget = Budget::until(self.invocation.budget.deadline);
        let failures = bulk::put(self.invocation, Namespace::Settings, budget, pairs.clone()).await;
        let mut steps = Steps::new();
        for Pair { key, .. } in pairs {
            let step = match failures.get(&key) {
                None => {
                    warn!(key, "a deleted key is put back: the table needs it, or can't be read");
                    self.invocation.count(|stats| stats.deletes_restored += 1);
                    restored.clone()
                }
                Some(failure) => {
                    error!(
                        key,
                        error = %Chain(&failure.error),
                        "a deleted key could not be put back: re-export the index that needs it"
                    );
                    self.invocation.count(|stats| stats.put_backs_failed += 1);
                    let (key, error) = (key.clone(), failure.error.clone());
                    Step::Done(Removal::Failed(ExportError::NotPutBack { key, error }))
                }
            };
            steps.insert(key, step);
        }
        steps
    }

    /// Says what becomes of the keys that are undecided, and writes those that items ask for. Orphans are left to
    /// the next round, if they may have one.
    async fn write(&mut self, table: &Table, mut steps: Steps) -> Steps {
        let mut claimed: BTreeMap<ItemRef, BTreeSet<String>> = BTreeMap::new();
        let undecided = table.rows.iter().filter(|(key, _)| !steps.contains_key(&key.name));
        for (key, row) in Vec::from_iter(undecided) {
            let name = &key.name;
            let removal = match (table.verdict(key), row.claim()) {
                (Verdict::Orphaned, _) if self.open[name] < MAX_REPEATS => continue,
                (Verdict::Orphaned, _) => still_changing(),
                (Verdict::Withheld, _) => {
                    let pointers: Vec<String> =
                        table.protectors(key).into_iter().map(ToString::to_string).collect();
                    warn!(
                        key = name,
                        pointers = pointers.join(", "),
                        "a key that no item asks for stays: active aliases of these items point at it"
                    );
                    self.invocation.count(|stats| stats.deletes_withheld += 1);
                    Removal::Stays
                }
                (Verdict::Rejected, None) => {
                    let owner = row.held.owner();
                    error!(
                        key = name,
                        system_account_id = owner.map(|owner| &owner.account),
                        index_name = owner.map(|owner| &owner.name),
                        "a key that no item asks for stays: the item of its index can't be exported"
                    );
                    Removal::Stays
                }
                (Verdict::Conflicting, _) | (_, None) => Removal::Stays,
                (_, Some(claim)) => {
                    claimed.entry(claim.item()).or_default().insert(name.clone());
                    continue;
                }
            };
            steps.insert(name.clone(), Step::Done(removal));
        }
        let write = |(item, keys): (&ItemRef, &BTreeSet<String>)| {
            WriteItem::under(item.clone(), keys.clone())
        };
        let writes = claimed.iter().map(write).collect();
        let written =
            write_items(self.invocation, Namespace::Settings, writes, self.api_keys).await;
        for (item, keys) in claimed {
            for key in keys {
                let step = step_after_write(&written, &item, &key);
                steps.insert(key, step);
            }
        }
        steps
    }
}

/// Returns what follows for a key that was to be written for an item.
fn step_after_write(written: &Written, item: &ItemRef, key: &str) -> Step {
    Step::Done(match written.fate(item) {
        // A query config whose key another item has counts as written.
        Fate::Written if written.keys.contains_key(key) || item.query.is_some() => {
            Removal::Written(item.clone())
        }
        // The item no longer asks for the key.
        Fate::Written | Fate::Absent => return Step::BeginAgain,
        Fate::Rejected(rejection) => {
            log_rejected(Some(item), None, &rejection);
            Removal::Stays
        }
        Fate::Failed(error) => Removal::Failed(error),
    })
}

/// Makes a pass for the keys that a table knows, over the items that count. Returns the table.
pub async fn look<S: Services>(
    invocation: &Invocation<'_, S>,
    columns: ScanColumns,
    mut table: Table,
    mut counts: impl FnMut(&ItemKey) -> bool,
) -> Result<Table, ServiceError> {
    pass(invocation, columns, async |items| {
        for (key, item) in items.iter().filter(|(key, _)| counts(key)) {
            table.add(key, &item.attributes(), Wants::Unmade);
        }
    })
    .await?;
    // The pass has read only a part of each item.
    let unclaimed = table.rows.values().filter(|row| row.claims.is_empty());
    let owners: BTreeSet<ItemRef> = unclaimed
        .filter_map(|row| row.held.owner())
        .filter(|owner| table.owner_item(owner).is_some())
        .map(|owner| (**owner).clone().into())
        .collect();
    for owners in Vec::from_iter(owners).chunks(READ_ITEMS) {
        let keys = owners.iter().map(ItemRef::key);
        let items = read_items(invocation, invocation.budget.deadline, keys).await?;
        for owner in owners {
            let item = items.get(&owner.key());
            let decoded = item.map(|item| Exportable::decode(owner, item, invocation.config));
            let wants = decoded.map(|it| it.map_or(Wants::Rejected, |_| Wants::Unmade));
            table.resolve_owner(&owner.index, wants);
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
    let mut removed = BTreeMap::new();
    let items = items.into_iter().filter(|(item, _)| check_key(&item.kv_key()).is_ok());
    let all = Vec::from_iter(items);
    for (number, items) in all.chunks(READ_ITEMS).enumerate() {
        let read = async || {
            let keys = items.iter().map(|(item, _)| item.key());
            let items = read_items(invocation, invocation.budget.deadline, keys).await;
            items.map(|items| items.into_keys().collect::<BTreeSet<_>>())
        };
        let there = match read().await {
            Ok(there) => there,
            Err(error) => {
                // It is not waited for again.
                let failed = Removal::Failed(error.into());
                let unread = all[number * READ_ITEMS..].iter();
                removed.extend(unread.map(|(item, _)| (item.clone(), failed.clone())));
                break;
            }
        };
        let gone = items.iter().filter(|(item, _)| !there.contains(&item.key())).cloned();
        // Two of them may have one key.
        let deletes: BTreeMap<String, Delete> = gone
            .map(|(item, metadata)| (item.kv_key(), Delete { key: item.kv_key(), item, metadata }))
            .collect();
        let (namespace, deletes) = (Namespace::QueryConfigs, deletes.into_values().collect());
        let failures = bulk::delete(invocation, namespace, invocation.budget, deletes).await;
        let behind = read().await;
        let is_back = |item: &ItemRef| behind.as_ref().is_ok_and(|it| it.contains(&item.key()));
        let back = items.iter().map(|(item, _)| item).filter(|item| is_back(item));
        let write = |item: &ItemRef| WriteItem::under(item.clone(), [item.kv_key()].into());
        let writes = back.map(write).collect();
        let written = write_items(invocation, namespace, writes, api_keys).await;
        for (item, _) in items {
            let key = item.kv_key();
            let removal = match (failures.get(&key), &behind) {
                _ if is_back(item) => match step_after_write(&written, item, &key) {
                    Step::Done(removal) => removal,
                    Step::BeginAgain | Step::NextRound => still_changing(),
                },
                (Some(failure), _) => failed(&key, failure.error.clone()),
                (None, Err(error)) => Removal::Failed(error.clone().into()),
                // It was there before, so its key was not deleted.
                (None, Ok(_)) if there.contains(&item.key()) => still_changing(),
                (None, Ok(_)) => Removal::Removed,
            };
            removed.insert(item.clone(), removal);
        }
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::api_keys::Fallback;
    use crate::export::fakes::{
        Fakes, Keys, KvFault, TIME_LEFT, TableChange, down, entry, index_item, item, kv_error,
        query_config, shop,
    };
    use crate::item::{Item, ItemKey};
    use crate::kv::Source;
    use crate::ports::ErrorKind;
    use crate::telemetry::Stats;
    use serde_json::{Value, json};
    use std::cell::RefCell;

    /// Removes keys of a batch, for which there is time. Returns what became of each, in a word.
    async fn remove(fakes: &Fakes, keys: &[impl AsRef<str>]) -> (BTreeMap<String, String>, Stats) {
        remove_within(fakes, keys, TIME_LEFT, None).await
    }

    async fn remove_within(
        fakes: &Fakes,
        keys: &[impl AsRef<str>],
        time: Duration,
        brake: Option<Brake<'_>>,
    ) -> (BTreeMap<String, String>, Stats) {
        let mut invocation = fakes.invocation(Source::Stream);
        invocation.budget.deadline = Instant::now() + time;
        invocation.budget.writes_until = Instant::now() + time / 2;
        let mut api_keys = ApiKeys::new(Fallback::Kv, time);
        let keys = keys.iter().map(|key| key.as_ref().to_owned()).collect();
        let removed = remove_keys(&invocation, keys, &mut api_keys, brake).await;
        let words = removed.into_iter().map(|(key, removal)| (key, word(&removal))).collect();
        (words, invocation.stats())
    }

    /// Keys withheld, put back, and lost.
    fn counts(stats: &Stats) -> (u64, u64, u64) {
        (stats.deletes_withheld, stats.deletes_restored, stats.put_backs_failed)
    }

    async fn remove_configs(fakes: &Fakes, items: &[&ItemRef]) -> Vec<String> {
        let invocation = fakes.invocation(Source::Stream);
        let mut api_keys = ApiKeys::new(Fallback::Nothing, Duration::ZERO);
        let configs = items.iter().map(|item| ((*item).clone(), None));
        let removed = remove_query_configs(&invocation, configs, &mut api_keys).await;
        items.iter().map(|item| word(&removed[*item])).collect()
    }

    fn word(removal: &Removal) -> String {
        match removal {
            Removal::Removed => "removed".to_owned(),
            Removal::Stays => "stays".to_owned(),
            Removal::Written(item) => format!("written for {item}"),
            Removal::Postponed => "held".to_owned(),
            Removal::Failed(error) if error.is_own_fault() => {
                format!("its fault: {}", Chain(error))
            }
            Removal::Failed(error) if error.is_out_of_time() => format!("late: {}", Chain(error)),
            Removal::Failed(error) => format!("failed: {}", Chain(error)),
        }
    }

    /// Item `j`, which asks for key `s`.
    fn claimant() -> (ItemKey, Item) {
        index_item("j", &shop("s"))
    }

    /// Item `x`, whose `read_alias` is `target`.
    fn pointer(target: &str) -> (ItemKey, Item) {
        index_item("x", &json!({"read_alias": {"S": target}}))
    }

    /// Services in which KV holds index `gone` under key `s`.
    fn with_key() -> Fakes {
        let fakes = Fakes::new();
        fakes.kv.hold_entry("s", &entry("gone", &json!({"old": 1})));
        fakes
    }

    fn refused() -> KvFault {
        KvFault::Fails(kv_error(ErrorKind::Refused))
    }

    /// KV refuses this key alone.
    fn refused_alone() -> KvFault {
        KvFault::Fails(kv_error(ErrorKind::RefusedContent))
    }

    /// What the reads of the table meet where `item` is there each other time.
    fn comes_and_goes((key, item): (ItemKey, Item)) -> Vec<TableChange> {
        let change = |read| match read % 2 {
            0 => TableChange::Put((key.clone(), item.clone())),
            _ => TableChange::Remove(key.clone()),
        };
        (0..8).map(change).collect()
    }

    const WRITTEN: &str = "written for a/j";
    const CHANGING: &str = "failed: the table changes as fast as it is followed";
    const UNPASSED: &str = "failed: settings table: Scan: down";
    const REFUSED: &str = "failed: key \"s\": Cloudflare KV: scripted";
    const REFUSED_ALONE: &str = "its fault: key \"s\": Cloudflare KV: scripted";

    #[tokio::test(start_paused = true)]
    async fn each_row_of_the_removals() {
        let ours = || Some(entry("gone", &json!({})));
        let strangers = || Some(StoredValue { value: "7".to_owned(), metadata: None });
        let of_dev = || {
            let metadata = ours()?.metadata()?;
            Some(StoredValue::new("{}", Metadata { environment: Some("dev".into()), ..metadata }))
        };
        let broken = || index_item("gone", &json!({"index_endpoint": null}));
        let broken_claimant =
            || index_item("j", &json!({"shop_id": {"S": "s"}, "index_endpoint": null}));
        let moved = || index_item("gone", &shop("t"));
        let own_pointer = || index_item("gone", &json!({"read_alias": {"S": "s"}}));
        let owner_named = || vec![moved(), pointer("a-gone")];
        // What KV holds, and the table; what becomes of it, and how many deletes are withheld.
        for (name, held, items, expected, withheld) in [
            ("no item", ours(), vec![], "removed", 0),
            ("the owner has other keys", ours(), vec![moved()], "removed", 0),
            ("an item asks for it", ours(), vec![claimant()], WRITTEN, 0),
            ("a broken item asks for it", ours(), vec![broken_claimant()], "stays", 0),
            ("an alias names the key", ours(), vec![pointer("s")], "stays", 1),
            ("an alias names its owner", ours(), vec![pointer("a-gone")], "stays", 1),
            ("an alias of its owner's names it", ours(), vec![own_pointer()], "removed", 0),
            ("an alias names an owner with an item", ours(), owner_named(), "removed", 0),
            ("an alias names something else", ours(), vec![pointer("a-other")], "removed", 0),
            ("an item asks, and an alias", ours(), vec![claimant(), pointer("s")], WRITTEN, 0),
            ("the owner can't be exported", ours(), vec![broken()], "stays", 0),
            ("nothing", None, vec![], "stays", 0),
            ("nothing, asked for", None, vec![claimant()], WRITTEN, 0),
            ("a stranger's", strangers(), vec![], "stays", 0),
            ("a stranger's, asked for", strangers(), vec![claimant()], WRITTEN, 0),
            ("environment dev's", of_dev(), vec![], "stays", 0),
            ("environment dev's, asked for", of_dev(), vec![claimant()], "stays", 0),
        ] {
            let fakes = Fakes::new();
            held.iter().for_each(|held| fakes.kv.hold_entry("s", held));
            items.into_iter().for_each(|item| fakes.table.put(item));
            let before = fakes.kv.held.borrow().clone();
            let (words, stats) = remove(&fakes, &["s", "", "."]).await;
            assert_eq!(words, [("s".into(), expected.into())].into(), "{name}: KV has no others");
            assert_eq!(counts(&stats), (withheld, 0, 0), "{name}");
            match expected {
                "removed" => assert!(fakes.kv.keys().is_empty(), "{name}"),
                "stays" => assert_eq!(*fakes.kv.held.borrow(), before, "{name}"),
                _ => {
                    assert_eq!(fakes.kv.keys(), ["s"], "{name}: no other key is touched");
                    assert_eq!(fakes.kv.value("s")["index_name"], "j", "{name}");
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn where_something_fails_nothing_is_deleted() {
        let no_api_key = "its fault: no API key from cell \"cell\", and KV holds none of this index \
            to use again: API keys service: scripted";
        let no_time = "late: too little time is left for a delete and the pass after it";
        let (fails, claimed) = (vec![TableChange::Fails], vec![TableChange::Put(claimant())]);
        let comes_and_goes = comes_and_goes(claimant());
        for (name, kv_fault, changes, api_key_faults, seconds, expected) in [
            ("KV can't be read", Some(refused()), vec![], 0, 300, REFUSED),
            ("KV refuses this read", Some(refused_alone()), vec![], 0, 300, REFUSED_ALONE),
            ("the pass fails", None, fails, 0, 300, UNPASSED),
            ("no time for a pass after it", None, vec![], 0, 4, no_time),
            ("its claimant has no API key", None, claimed, 4, 300, no_api_key),
            ("its claimant is gone at each write", None, comes_and_goes, 0, 300, CHANGING),
        ] {
            let fakes = with_key();
            fakes.kv.faults.then(kv_fault);
            fakes.table.changes.then(changes);
            fakes.api_keys.faults.then((0..api_key_faults).map(|_| down()));
            let before = fakes.kv.held.borrow().clone();
            let time = Duration::from_secs(seconds);
            // A brake would hold it, but is not asked: what is not deleted counts in no flood.
            let brake: Brake<'_> = &|owners| owners.is_empty();
            let (words, stats) = remove_within(&fakes, &["s"], time, Some(brake)).await;
            assert_eq!(words["s"], expected, "{name}");
            assert_eq!(*fakes.kv.held.borrow(), before, "{name}");
            assert_eq!(counts(&stats), (0, 0, 0), "{name}: nor is anything put back");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_from_the_pass_behind_the_delete() {
        let lose = || KvFault::IsDoneAndFails(Keys::All, kv_error(ErrorKind::Transient));
        let four_lost = || vec![lose(), lose(), lose(), lose()];
        let done = || KvFault::ListsAsUnsuccessful(Keys::Named(&[]));
        let asked_wait = Some(TIME_LEFT * 3 / 4);
        let asks_to_wait = ServiceError { asked_wait, ..kv_error(ErrorKind::Transient) };
        let slow = vec![done(), KvFault::Fails(asks_to_wait)];
        let put = || vec![TableChange::Put(claimant())];
        let points = || vec![TableChange::Put(pointer("s"))];
        let fails = || vec![TableChange::Fails];
        let delete_hangs = vec![KvFault::IsDoneAndHangs];
        let unread_again = vec![done(), done(), refused_alone()];
        let alias_comes_and_goes = comes_and_goes(pointer("s"));
        let mut alias_stays_at_last = comes_and_goes(pointer("s"));
        alias_stays_at_last.truncate(5);
        let hung = "late: settings table: no response in time";
        let lost = "failed: key \"s\": Cloudflare KV: scripted";
        let hangs = vec![done(), KvFault::Hangs];
        let not_back = "failed: key \"s\" is not put back: Cloudflare KV: scripted";
        let not_in_time = "failed: key \"s\" is not put back: Cloudflare KV: no response in time";
        let (gone, held): (&[&str], &[&str]) = (&[], &["s"]);
        for (name, passes, faults, expected, keys, counted) in [
            ("asked for", put(), vec![], WRITTEN, held, (0, 1, 0)),
            ("withheld", points(), vec![], "stays", held, (1, 1, 0)),
            ("it fails", fails(), vec![], UNPASSED, held, (0, 1, 0)),
            ("it hangs", vec![TableChange::Hangs], vec![], hung, held, (0, 1, 0)),
            ("the delete hangs, withheld", points(), delete_hangs, "stays", held, (1, 1, 0)),
            ("a lost delete", vec![], four_lost(), lost, gone, (0, 0, 0)),
            ("a lost delete, asked for", put(), four_lost(), WRITTEN, held, (0, 1, 0)),
            ("a refused delete, asked for", put(), vec![refused()], REFUSED, held, (0, 0, 0)),
            ("a put-back after writes end", points(), slow.clone(), "stays", held, (1, 1, 0)),
            ("a write after writes end", put(), slow, WRITTEN, held, (0, 1, 0)),
            // It is no next run's to try again.
            ("a put-back that hangs", put(), hangs, not_in_time, gone, (0, 0, 1)),
            ("a refused put-back", put(), vec![done(), refused()], not_back, gone, (0, 0, 1)),
            ("it fails, refused", fails(), vec![done(), refused()], not_back, gone, (0, 0, 1)),
            // It is needed, so it is not parked either.
            ("refused alone", put(), vec![done(), refused_alone()], not_back, gone, (0, 0, 1)),
            // What was put back may be older than the table, so it is not parked.
            ("put back, and unreadable", points(), unread_again, REFUSED, held, (0, 1, 0)),
            ("an alias, each time", alias_comes_and_goes, vec![], CHANGING, held, (0, 3, 0)),
            ("an alias, at last", alias_stays_at_last, vec![], "stays", held, (1, 3, 0)),
        ] {
            let fakes = with_key();
            let before = fakes.kv.held.borrow().clone();
            fakes.table.changes.then_after(1, passes);
            fakes.kv.faults.then_after(1, faults);
            let (words, stats) = remove(&fakes, &["s"]).await;
            assert_eq!(words["s"], expected, "{name}");
            assert_eq!(fakes.kv.keys(), keys, "{name}");
            assert_eq!(counts(&stats), counted, "{name}");
            let is_as_read = *fakes.kv.held.borrow() == before;
            assert_eq!(is_as_read, keys == held && expected != WRITTEN, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_follows_from_a_slow_pass_and_from_a_claimant_that_moves() {
        let moves =
            vec![TableChange::Put(claimant()), TableChange::Put(index_item("j", &shop("t")))];
        let other = TableChange::Put(index_item("other", &json!({})));
        let slow = (0..3).map(|_| TableChange::Throttles);
        let slow = slow.chain([other, TableChange::Put(pointer("s"))]).collect();
        let hangs = Some(KvFault::IsDoneAndHangs);
        let (gone, held): (&[&str], &[&str]) = (&[], &["s"]);
        for (name, changes, delete, expected, keys, counted) in [
            ("the claimant moves", moves, None, "removed", gone, (0, 0, 0)),
            ("a slow pass, and a delete that hangs", slow, hangs, "stays", held, (1, 1, 0)),
        ] {
            let fakes = with_key();
            fakes.table.changes.then(changes);
            fakes.kv.faults.then_after(1, delete);
            let (words, stats) = remove(&fakes, &["s"]).await;
            assert_eq!(words["s"], expected, "{name}");
            assert_eq!(fakes.kv.keys(), keys, "{name}");
            assert_eq!(counts(&stats), counted, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_brake_holds_all_orphans_and_nothing_else() {
        let fakes = with_key();
        for (key, name) in [("s2", "gone2"), ("s3", "gone2"), ("kept", "gone3"), ("asked", "gone4")]
        {
            fakes.kv.hold_entry(key, &entry(name, &json!({})));
        }
        fakes.table.put(pointer("kept"));
        fakes.table.put(index_item("j", &shop("asked")));
        let asked = RefCell::new(Vec::new());
        let brake = |owners: &BTreeSet<Rc<IndexRef>>| {
            asked.borrow_mut().push(owners.iter().map(|it| it.name.clone()).collect::<Vec<_>>());
            false
        };
        let keys = ["s", "s2", "s3", "kept", "asked"];
        let (words, _) = remove_within(&fakes, &keys, TIME_LEFT, Some(&brake)).await;
        assert_eq!(keys.map(|key| &*words[key]), ["held", "held", "held", "stays", WRITTEN]);
        assert_eq!(*asked.borrow(), [["gone", "gone2"]]);
        assert_eq!(fakes.kv.keys().len(), 5);
    }

    #[tokio::test(start_paused = true)]
    async fn a_value_that_does_not_fit_memory_is_left_to_the_next_round() {
        let unread = "failed: key \"t\": Cloudflare KV: scripted";
        let points = vec![TableChange::Put(pointer("t"))];
        let comes_and_goes = comes_and_goes(pointer("s"));
        for (name, changes, faults, expected, counted) in [
            ("withheld", points, vec![], ["removed", "stays"], (1, 0, 0)),
            ("it can't be read", vec![], vec![refused()], ["removed", unread], (0, 0, 0)),
            ("the other changes", comes_and_goes, vec![], [CHANGING, "removed"], (0, 3, 0)),
        ] {
            let fakes = Fakes::new();
            let value = json!({"x": "x".repeat(9 * 1024 * 1024)});
            fakes.kv.hold_entry("s", &entry("gone", &value));
            fakes.kv.hold_entry("t", &entry("gone", &value));
            fakes.table.changes.then_nothing(1);
            fakes.table.changes.then(changes);
            fakes.kv.faults.then_nothing(2);
            fakes.kv.faults.then(faults);
            let (words, stats) = remove(&fakes, &["s", "t"]).await;
            assert_eq!(["s", "t"].map(|key| &*words[key]), expected, "{name}");
            assert_eq!(counts(&stats), counted, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn reading_ends_where_memory_is_full_unless_a_brake_has_to_know_all_owners() {
        let told = RefCell::new(Vec::new());
        let brake = |owners: &BTreeSet<Rc<IndexRef>>| {
            told.borrow_mut().push(owners.len());
            true
        };
        let large = json!({"x": "x".repeat(17 * 1024 * 1024)});
        let keys: Vec<String> = (0..102).map(|number| format!("s{number:03}")).collect();
        for (name, brake, failing_pass, requests, expected) in [
            ("no brake", None, None, &[100, 1, 100, 1, 101][..], "removed"),
            ("a brake", Some(&brake as Brake<'_>), None, &[100, 2, 1, 100, 1, 101], "removed"),
            ("the first pass fails", None, Some(1), &[100], UNPASSED),
            ("the second pass fails", None, Some(2), &[100, 1, 1], UNPASSED),
        ] {
            let fakes = Fakes::new();
            keys.iter().for_each(|key| fakes.kv.hold_entry(key, &entry(key, &json!({}))));
            fakes.kv.hold_entry(&keys[0], &entry("large", &large));
            if let Some(pass) = failing_pass {
                fakes.table.changes.then_nothing(pass - 1);
                fakes.table.changes.then([TableChange::Fails]);
            }
            let (words, _) = remove_within(&fakes, &keys, TIME_LEFT, brake).await;
            let sizes: Vec<usize> = fakes.kv.requests.borrow().iter().map(Vec::len).collect();
            assert_eq!(sizes, requests, "{name}");
            assert!(keys.iter().all(|key| words[key] == expected), "{name}: {words:?}");
        }
        assert_eq!(*told.borrow(), [102, 101]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_items_of_many_owners_are_read_in_hundreds() {
        let fakes = Fakes::new();
        for name in (0..150).map(|number| number.to_string()) {
            fakes.kv.hold_entry(&format!("s{name}"), &entry(&name, &json!({})));
            fakes.table.put(index_item(&name, &shop("t")));
        }
        let (words, stats) = remove(&fakes, &fakes.kv.keys()).await;
        assert!(words.values().all(|word| word == "removed"), "{words:?}");
        assert_eq!(stats.table_requests, 2 * (8 + 2), "two passes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_of_two_query_configs_is_once_in_a_request() {
        let fakes = Fakes::new();
        let [one, other] = [("a", "b-c"), ("a-b", "c")].map(|(account, name)| ItemRef {
            index: IndexRef::parse(account, name).unwrap(),
            query: Some("q".to_owned()),
        });
        assert_eq!(remove_configs(&fakes, &[&one, &other]).await, ["removed"; 2]);
        assert_eq!(*fakes.kv.requests.borrow(), [[one.kv_key()]]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_that_fails_for_a_hundred_query_configs_is_not_waited_for_again() {
        let fakes = Fakes::new();
        fakes.table.changes.then([TableChange::Fails]);
        let configs: Vec<ItemRef> =
            (0..=READ_ITEMS).map(|number| query_config("i", &number.to_string())).collect();
        let words = remove_configs(&fakes, &configs.iter().collect::<Vec<_>>()).await;
        assert_eq!(words, ["failed: settings table: BatchGetItem: down"; READ_ITEMS + 1]);
        assert!(fakes.kv.requests.borrow().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_becomes_of_query_configs() {
        let config = query_config("i", "q");
        let put = || TableChange::Put(item(&config, &json!({"x": {"N": "2"}})));
        let broken = || TableChange::Put(item(&config, &json!({"x": {"Q": "2"}})));
        let gone = || TableChange::Remove(config.key());
        let fails = || TableChange::Fails;
        let key = config.kv_key();
        let unread = "failed: settings table: BatchGetItem: down";
        let written = "written for a/i \"q\"";
        let refusal = format!("failed: key {key:?}: Cloudflare KV: scripted");
        // What happens to the table with each read, and to KV; what becomes of it, and what KV holds.
        for (name, changes, fault, expected, held) in [
            ("gone", vec![], None, "removed", None),
            ("there, and then the read fails", vec![put(), fails()], None, unread, Some(1)),
            ("there, and then gone", vec![put(), gone()], None, CHANGING, Some(1)),
            ("there", vec![put()], None, written, Some(2)),
            ("back after the delete", vec![gone(), put()], None, written, Some(2)),
            ("back, and can't be exported", vec![gone(), broken()], None, "stays", None),
            ("back, and gone again", vec![gone(), put(), gone()], None, CHANGING, None),
            ("the first read fails", vec![fails()], None, unread, Some(1)),
            ("the second read fails", vec![gone(), fails()], None, unread, None),
            ("the delete fails", vec![], Some(refused()), &refusal, Some(1)),
        ] {
            let fakes = Fakes::new();
            fakes.kv.hold_entry(&key, &entry("i", &json!({"x": 1})));
            fakes.table.changes.then(changes);
            fakes.kv.faults.then(fault);
            assert_eq!(remove_configs(&fakes, &[&config]).await, [expected], "{name}");
            let is_held = fakes.kv.keys() == [key.clone()];
            let value = is_held.then(|| fakes.kv.value(&key)["x"].clone());
            assert_eq!(value, held.map(Value::from), "{name}");
        }
    }
}
