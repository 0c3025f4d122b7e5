//! A stream batch: a record says which item changed, and the table says what it is now.
//!
//! Group the records by item → write the items ([`write_items`]) → remove what they leave behind
//! ([`remove_keys`], [`remove_query_configs`]) → the fate of each item is that of its records. Both
//! namespaces go side by side.
//!
//! | the table | the item's last record | then |
//! | --- | --- | --- |
//! | has the item | any whose keys can be read | written from the table |
//! | has none, or can't be read | has an image | the image stands in |
//! | has none, or can't be read | REMOVE | its keys are removed |
//! | has none | malformed | rejected |

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tracing::error;

use super::api_keys::{ApiKeys, Fallback};
use super::bulk;
use super::error::ExportError;
use super::invocation::Invocation;
use super::judge::Held;
use super::remove::{Removal, remove_keys, remove_query_configs};
use super::write::{Fate, WriteItem, Written, write_items};
use crate::index::{IndexRef, ItemRef};
use crate::item::{Change, Content, Item, RecordedChange, Rejection, StreamRecord};
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::kv::{Namespace, rfc3339};
use crate::ports::{Clock, Services};
use crate::telemetry::Stats;
use crate::telemetry::stats::at_most_100;

/// How long a batch writes. What it writes later could undo what a re-export or a repair wrote meanwhile.
pub const TIME_TO_WRITE: Duration = Duration::from_secs(60);

/// How long a batch waits for the table before images stand in. A rollback must get through.
pub const TIME_FOR_FIRST_READ: Duration = Duration::from_secs(5);

/// A record is old if the table took its change more than this before the invocation began.
const OLD_AFTER: Duration = Duration::from_secs(60);

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Not ours.
    Skipped,
    /// KV holds, or no longer holds, what the table says.
    Exported,
    /// A removal of a flood, which was not begun.
    Held,
    /// Trying again can't help. The item is `None` where the record does not even say which item it is about.
    Rejected(Option<ItemRef>, Rejection),
    /// Trying again may help.
    Failed(ItemRef, ExportError),
    /// It would fail through its own fault, and is old. It is left to reconcile, so that it does not hold up the
    /// shard.
    Parked(ItemRef, ExportError),
}

/// An item of the batch.
struct BatchItem {
    item: ItemRef,
    /// The position of its last record, which decides.
    position: usize,
    /// When the table took the change of that record, in seconds since the epoch.
    created_at: Option<f64>,
    last: LastRecord,
    /// The shop ids that its records name.
    shop_ids: BTreeSet<String>,
    has_old_image: bool,
}

enum LastRecord {
    Upsert(Item),
    Remove,
    Malformed(Rejection),
}

impl BatchItem {
    fn is_removed(&self) -> bool {
        matches!(self.last, LastRecord::Remove)
    }

    fn write(&self) -> WriteItem {
        let image = match &self.last {
            LastRecord::Upsert(image) => Some(image.clone()),
            LastRecord::Remove | LastRecord::Malformed(_) => None,
        };
        let changed_at = self.created_at.and_then(rfc3339);
        WriteItem { image, changed_at, ..WriteItem::new(self.item.clone()) }
    }

    fn is_old(&self, began: SystemTime) -> bool {
        let began = began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        self.created_at.is_some_and(|at| began - at > OLD_AFTER.as_secs_f64())
    }
}

/// Groups records by item. Returns the outcomes of those that have no item, the item of each other, and the
/// items in the order of their last records.
fn group(records: Vec<StreamRecord>) -> (Vec<Result<ItemRef, Outcome>>, Vec<BatchItem>) {
    let mut items: BTreeMap<ItemRef, BatchItem> = BTreeMap::new();
    let mut of_records = Vec::with_capacity(records.len());
    for (position, StreamRecord { created_at, content, .. }) in records.into_iter().enumerate() {
        let RecordedChange { item, change, shop_ids, has_old_image } = match content {
            Content::Change(change) => change,
            Content::Skipped => {
                of_records.push(Err(Outcome::Skipped));
                continue;
            }
            Content::Unknown(rejection) => {
                of_records.push(Err(Outcome::Rejected(None, rejection)));
                continue;
            }
        };
        of_records.push(Ok(item.clone()));
        let last = match change {
            Ok(Change::Upsert(image)) => LastRecord::Upsert(image),
            Ok(Change::Remove) => LastRecord::Remove,
            Err(rejection) => LastRecord::Malformed(rejection),
        };
        let shop_ids = shop_ids.into_iter().collect();
        let mut new = BatchItem { item, position, created_at, last, shop_ids, has_old_image };
        if let Some(earlier) = items.remove(&new.item) {
            new.shop_ids.extend(earlier.shop_ids);
            new.has_old_image |= earlier.has_old_image;
        }
        items.insert(new.item.clone(), new);
    }
    let mut items: Vec<BatchItem> = items.into_values().collect();
    items.sort_by_key(|item| item.position);
    (of_records, items)
}

/// Exports a batch. Returns what became of each record, in batch order.
pub async fn export_batch<S: Services>(
    invocation: &Invocation<'_, S>,
    records: Vec<StreamRecord>,
    flood: &Flood,
) -> Vec<Outcome> {
    let (records, items) = group(records);
    let (settings, query_configs): (Vec<_>, Vec<_>) =
        items.into_iter().partition(|item| item.item.query.is_none());
    let now = || invocation.services.clock().now();
    let ((mut outcomes, settings_end), (of_query_configs, query_configs_end)) = tokio::join!(
        async { (export_settings(invocation, &settings, flood).await, now()) },
        async { (export_query_configs(invocation, &query_configs).await, now()) },
    );
    outcomes.extend(of_query_configs);
    for item in settings.iter().chain(&query_configs).filter(|it| it.is_old(invocation.began)) {
        if let Some(outcome) = outcomes.get_mut(&item.item)
            && let Outcome::Failed(item, error) = outcome
            && error.is_own_fault()
        {
            *outcome = Outcome::Parked(item.clone(), error.clone());
        }
    }
    let undecided = |item: ItemRef| Outcome::Failed(item, ExportError::Undecided);
    let of_record = |item: ItemRef| outcomes.get(&item).cloned().unwrap_or_else(|| undecided(item));
    let of_records: Vec<Outcome> =
        records.into_iter().map(|record| record.map_or_else(|known| known, of_record)).collect();
    invocation.count(|stats| {
        stats.settings_lag_ms = lags(&settings, &outcomes, settings_end);
        stats.query_config_lag_ms = lags(&query_configs, &outcomes, query_configs_end);
        count_outcomes(stats, &of_records);
    });
    of_records
}

/// What became of each item.
type Outcomes = BTreeMap<ItemRef, Outcome>;

async fn export_settings<S: Services>(
    invocation: &Invocation<'_, S>,
    items: &[BatchItem],
    flood: &Flood,
) -> Outcomes {
    let mut api_keys = ApiKeys::new(Fallback::Kv, invocation.budget.api_keys);
    let writes = items.iter().map(BatchItem::write).collect();
    let written = write_items(invocation, Namespace::Settings, writes, &mut api_keys).await;
    let mut outcomes = outcomes_of_write(items, &written);
    let mut waiting: BTreeMap<String, BTreeSet<&ItemRef>> = BTreeMap::new();
    let done = items.iter().filter(|item| outcomes[&item.item] == Outcome::Exported);
    let mut leads = Vec::new();
    for item in done {
        let is_gone = written.fate(&item.item) != Fate::Written;
        let index_id = (is_gone && item.is_removed()).then(|| item.item.kv_key());
        if index_id.is_some() && !item.has_old_image {
            leads.push(&item.item);
        }
        for key in item.shop_ids.iter().cloned().chain(index_id) {
            waiting.entry(key).or_default().insert(&item.item);
        }
    }
    for (key, item) in &written.left_behind {
        waiting.entry(key.clone()).or_default().insert(item);
    }
    for (item, shop_id) in shop_ids_in_values(invocation, leads).await {
        match shop_id {
            Ok(shop_id) => drop(waiting.entry(shop_id).or_default().insert(item)),
            // Its index id's key has to stay: it leads to the shop id.
            Err(error) => {
                waiting.remove(&item.kv_key());
                outcomes.insert(item.clone(), Outcome::Failed(item.clone(), error));
            }
        }
    }
    waiting.retain(|key, _| !written.keys.contains_key(key));
    let keys = waiting.keys().cloned().collect();
    let (up_to, now) = (invocation.config.removals_up_to, invocation.services.clock().now());
    let brake = |owners: &BTreeSet<Rc<IndexRef>>| flood.lets_through(owners, up_to, now);
    for (key, removal) in remove_keys(invocation, keys, &mut api_keys, &brake).await {
        for item in waiting.get(&key).into_iter().flatten().copied() {
            let outcome = match &removal {
                Removal::Removed | Removal::Stays | Removal::Written(_) => continue,
                Removal::Held => Outcome::Held,
                Removal::Failed(error) => Outcome::Failed(item.clone(), error.clone()),
            };
            // A failure that another try may help wins over the others.
            let had = outcomes.get(item);
            if !matches!(had, Some(Outcome::Failed(_, error)) if !error.is_own_fault()) {
                outcomes.insert(item.clone(), outcome);
            }
        }
    }
    report_held(&outcomes, up_to);
    outcomes
}

/// Returns what the write made of the items. Exported ones may have left keys to remove.
fn outcomes_of_write(items: &[BatchItem], written: &Written) -> Outcomes {
    let outcome = |BatchItem { item, last, .. }: &BatchItem| match (written.fate(item), last) {
        (Fate::Absent, LastRecord::Malformed(rejection)) => {
            Outcome::Rejected(Some(item.clone()), rejection.clone())
        }
        // Whether the item of a REMOVE is there is the removal's to find out. One that went when it was
        // written has a REMOVE of its own.
        (Fate::Written | Fate::Absent, _)
        | (Fate::Failed(ExportError::Table(_)), LastRecord::Remove) => Outcome::Exported,
        (Fate::Rejected(rejection), _) => Outcome::Rejected(Some(item.clone()), rejection),
        (Fate::Failed(error), _) => Outcome::Failed(item.clone(), error),
    };
    items.iter().map(|item| (item.item.clone(), outcome(item))).collect()
}

/// Returns the shop ids that KV's values under the index ids of these items name, or why a value can't be
/// read.
async fn shop_ids_in_values<'a, S: Services>(
    invocation: &Invocation<'_, S>,
    items: Vec<&'a ItemRef>,
) -> Vec<(&'a ItemRef, Result<String, ExportError>)> {
    let mut shop_ids = Vec::new();
    let environment = &invocation.config.environment;
    for items in items.chunks(MAX_BULK_GET_KEYS) {
        let keys = items.iter().map(|item| item.kv_key());
        let (found, failures) = bulk::read(invocation, Namespace::Settings, keys).await;
        for item in items {
            let key = item.kv_key();
            if let Some(failure) = failures.get(&key) {
                shop_ids.push((*item, Err(ExportError::kv(&key, failure.error.clone()))));
            }
            let settings = found.get(&key).and_then(|stored| {
                let held = Held::read(Some(stored), environment);
                stored.settings().filter(|_| held.is_owned_by(&item.index))
            });
            let shop_id = settings.and_then(|settings| settings.shop_id);
            shop_ids.extend(shop_id.map(|shop_id| (*item, Ok(shop_id))));
        }
    }
    shop_ids
}

async fn export_query_configs<S: Services>(
    invocation: &Invocation<'_, S>,
    items: &[BatchItem],
) -> Outcomes {
    let mut api_keys = ApiKeys::new(Fallback::Nothing, Duration::ZERO);
    let writes = items.iter().map(BatchItem::write).collect();
    let written = write_items(invocation, Namespace::QueryConfigs, writes, &mut api_keys).await;
    let mut outcomes = outcomes_of_write(items, &written);
    let gone = outcomes.iter().filter(|(item, outcome)| {
        let is_done = **outcome == Outcome::Exported && written.fate(item) != Fate::Written;
        is_done && !written.keys.contains_key(&item.kv_key())
    });
    let gone = gone.map(|(item, _)| item.clone()).collect();
    for (item, removal) in remove_query_configs(invocation, gone, &mut api_keys).await {
        if let Removal::Failed(error) = removal {
            outcomes.insert(item.clone(), Outcome::Failed(item, error));
        }
    }
    outcomes
}

/// Returns the time from each change in the table to the end of its export. The record tells the former to the
/// second.
fn lags(items: &[BatchItem], outcomes: &Outcomes, end: SystemTime) -> Vec<Duration> {
    let end = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let is_exported = |item: &&BatchItem| outcomes.get(&item.item) == Some(&Outcome::Exported);
    let exported = items.iter().filter(is_exported);
    let lag = |created_at: f64| Duration::try_from_secs_f64((end - created_at).max(0.0)).ok();
    at_most_100(exported.filter_map(|item| lag(item.created_at?)))
}

fn count_outcomes(stats: &mut Stats, outcomes: &[Outcome]) {
    for outcome in outcomes {
        stats.records += 1;
        match outcome {
            Outcome::Skipped => stats.skipped += 1,
            Outcome::Exported => stats.exported += 1,
            Outcome::Held => stats.removals_held += 1,
            Outcome::Rejected(..) => stats.rejected += 1,
            Outcome::Failed(..) => stats.failed += 1,
            Outcome::Parked(..) => stats.parked += 1,
        }
    }
}

const FLOOD_WINDOW: Duration = Duration::from_secs(600);

/// How many of the held items a log line names.
const NAMED: usize = 20;

/// Holds a flood of removals. A removal is somebody's decision on one item; a script that empties the table
/// is not, and its orphans are reconcile's, whose brakes ask a person.
#[derive(Debug, Default)]
pub struct Flood {
    /// The indexes whose keys this process has removed in the last ten minutes.
    removed: RefCell<BTreeMap<IndexRef, SystemTime>>,
}

impl Flood {
    /// Counts the owners of keys about to go. Returns false where they would be more than `up_to`.
    fn lets_through(&self, owners: &BTreeSet<Rc<IndexRef>>, up_to: usize, now: SystemTime) -> bool {
        let mut removed = self.removed.borrow_mut();
        // A clock that was set back makes a removal count for longer.
        removed.retain(|_, at| now.duration_since(*at).unwrap_or_default() < FLOOD_WINDOW);
        let new = owners.iter().filter(|owner| !removed.contains_key(&***owner));
        if removed.len() + new.count() > up_to {
            return false;
        }
        removed.extend(owners.iter().map(|owner| ((**owner).clone(), now)));
        true
    }
}

fn report_held(outcomes: &Outcomes, up_to: usize) {
    let held: Vec<String> = outcomes
        .iter()
        .filter(|(_, outcome)| **outcome == Outcome::Held)
        .map(|(item, _)| item.to_string())
        .collect();
    if !held.is_empty() {
        error!(
            removals = held.len(),
            up_to,
            items = serde_json::to_string(&held[..held.len().min(NAMED)]).unwrap_or_default(),
            "removals held: more indexes were removed within ten minutes than a process carries out"
        );
    }
}
