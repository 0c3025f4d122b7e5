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
use std::time::{Duration, SystemTime};

use humantime::format_rfc3339_seconds;
use tracing::{error, warn};

use super::api_keys::{ApiKeys, Fallback};
use super::bulk;
use super::error::ExportError;
use super::invocation::Invocation;
use super::remove::{Removal, remove_keys, remove_query_configs};
use super::write::{Fate, WriteItem, Written, write_items};
use crate::index::{IndexRef, ItemRef};
use crate::item::{Change, RecordedChange, Rejection, StreamRecord};
use crate::kv::{Namespace, check_key};
use crate::ports::Services;
use crate::telemetry::Stats;
use crate::telemetry::stats::at_most_100;

/// How long a batch writes. What it writes later could undo what a re-export or a repair wrote meanwhile.
pub const TIME_TO_WRITE: Duration = Duration::from_secs(60);

/// How long a batch waits for the table before images stand in. A rollback must get through.
pub const TIME_FOR_FIRST_READ: Duration = Duration::from_secs(5);

/// A record is old if the table took its change more than this before the invocation began.
const OLD_AFTER: Duration = Duration::from_secs(60);

/// What became of an item, and so of each of its records.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Not ours.
    Skipped,
    /// KV holds, or no longer holds, what the table says.
    Exported,
    /// A removal of a flood, which was not begun.
    Postponed,
    /// Trying again can't help.
    Rejected(Rejection),
    /// Trying again may help.
    Failed(ExportError),
    /// It would fail through its own fault, and is old. It is left to reconcile, so that it does not hold up the
    /// shard.
    Parked(ExportError),
}

/// The item of a record, unless the record does not even say which item it is about, and what became of it.
pub type RecordOutcome = (Option<ItemRef>, Outcome);

/// Groups records by item. Returns the outcome of each record, undecided if it names an item, and the last change of
/// each item, in batch order, with the shop ids of all its records.
fn group(records: Vec<StreamRecord>) -> (Vec<RecordOutcome>, Vec<RecordedChange>) {
    let mut items: BTreeMap<ItemRef, (usize, RecordedChange)> = BTreeMap::new();
    let mut group = |(position, record): (usize, StreamRecord)| match record.change {
        Ok(None) => (None, Outcome::Skipped),
        Err(rejection) => (None, Outcome::Rejected(rejection)),
        Ok(Some(mut last)) => {
            let item = last.item.clone();
            if let Some((_, earlier)) = items.remove(&item) {
                last.shop_ids.extend(earlier.shop_ids);
                last.has_old_image |= earlier.has_old_image;
            }
            items.insert(item.clone(), (position, last));
            (Some(item), Outcome::Failed(ExportError::Undecided))
        }
    };
    let outcomes = records.into_iter().enumerate().map(&mut group).collect();
    let mut changes = Vec::from_iter(items.into_values());
    changes.sort_by_key(|(position, _)| *position);
    (outcomes, changes.into_iter().map(|(_, last)| last).collect())
}

/// Returns how long before `time` the table took a change.
fn age(change: &RecordedChange, time: SystemTime) -> Option<Duration> {
    change.created_at.map(|at| time.duration_since(at).unwrap_or_default())
}

/// Exports a batch. Returns what became of each record, in batch order.
pub async fn export_batch<S: Services>(
    invocation: &Invocation<'_, S>,
    records: Vec<StreamRecord>,
    flood: &Flood,
) -> Vec<RecordOutcome> {
    let (mut of_records, changes) = group(records);
    let (settings, query_configs): (Vec<_>, Vec<_>) =
        changes.into_iter().partition(|change| change.item.query.is_none());
    let (mut outcomes, of_query_configs) = tokio::join!(
        export_items(invocation, Namespace::Settings, &settings, flood),
        export_items(invocation, Namespace::QueryConfigs, &query_configs, flood),
    );
    outcomes.extend(of_query_configs);
    for change in settings.iter().chain(&query_configs) {
        if let Some(outcome) = outcomes.get_mut(&change.item)
            && let Outcome::Failed(error) = outcome
            && error.is_own_fault()
            && age(change, invocation.began).is_some_and(|age| age > OLD_AFTER)
        {
            *outcome = Outcome::Parked(error.clone());
        }
    }
    for (item, outcome) in &mut of_records {
        if let Some(decided) = item.as_ref().and_then(|item| outcomes.get(item)) {
            *outcome = decided.clone();
        }
    }
    invocation.count(|stats| count_outcomes(stats, &of_records));
    of_records
}

/// What became of each item.
type Outcomes = BTreeMap<ItemRef, Outcome>;

/// Writes the items of a namespace, and removes what they leave behind.
async fn export_items<S: Services>(
    invocation: &Invocation<'_, S>,
    namespace: Namespace,
    changes: &[RecordedChange],
    flood: &Flood,
) -> Outcomes {
    let mut api_keys = ApiKeys::new(Fallback::Kv, invocation.budget.api_keys);
    let writes = changes.iter().map(write_item).collect();
    let written = write_items(invocation, namespace, writes, &mut api_keys).await;
    let of_write = |last: &RecordedChange| (last.item.clone(), outcome_of_write(last, &written));
    let mut outcomes: Outcomes = changes.iter().map(of_write).collect();
    let exported = changes.iter().filter(|last| outcomes[&last.item] == Outcome::Exported);
    let exported = Vec::from_iter(exported);
    let removals = match namespace {
        Namespace::Settings => {
            remove_settings(invocation, &exported, &written, flood, &mut api_keys).await
        }
        Namespace::QueryConfigs => {
            let gone = exported.iter().map(|last| &last.item).filter(|item| {
                let is_taken = written.winners.contains_key(&item.kv_key());
                written.fate(item) != Fate::Written && !is_taken
            });
            let gone: BTreeMap<ItemRef, _> = gone.map(|item| (item.clone(), None)).collect();
            remove_query_configs(invocation, gone, &mut api_keys).await.into_iter().collect()
        }
    };
    for (item, removal) in removals {
        let outcome = match removal {
            Removal::Removed | Removal::Stays | Removal::Written(_) => continue,
            Removal::Postponed => Outcome::Postponed,
            Removal::Failed(error) => Outcome::Failed(error),
        };
        // Of what became of an item's keys, a failure wins, and of failures one that another try may help.
        let rank = |outcome: &Outcome| match outcome {
            Outcome::Failed(error) => 1 + u8::from(!error.is_own_fault()),
            _ => 0,
        };
        if outcomes.get(&item).is_none_or(|had| rank(had) <= rank(&outcome)) {
            outcomes.insert(item, outcome);
        }
    }
    report_held(&outcomes, invocation.config.removals_up_to);
    // From each change in the table, which its record tells to the second, to the end of its export.
    let end = invocation.services.now();
    let exported = changes.iter().filter(|last| outcomes[&last.item] == Outcome::Exported);
    let lags = at_most_100(exported.filter_map(|last| age(last, end)));
    invocation.count(|stats| match namespace {
        Namespace::Settings => stats.settings_lag_ms = lags,
        Namespace::QueryConfigs => stats.query_config_lag_ms = lags,
    });
    outcomes
}

fn write_item(RecordedChange { item, change, created_at, .. }: &RecordedChange) -> WriteItem {
    let image = match change {
        Change::Upsert(image) => Some(image.clone()),
        Change::Remove | Change::Malformed(_) => None,
    };
    let changed_at = created_at.map(|at| format_rfc3339_seconds(at).to_string());
    WriteItem { image, changed_at, ..WriteItem::new(item.clone()) }
}

/// Returns what the write made of an item. Where that is exported, keys may be left to remove.
fn outcome_of_write(
    RecordedChange { item, change, .. }: &RecordedChange,
    written: &Written,
) -> Outcome {
    let was_written = written.left_behind.get(&item.kv_key()) == Some(item);
    match (written.fate(item), change) {
        (Fate::Absent, Change::Malformed(rejection)) if !was_written => {
            Outcome::Rejected(rejection.clone())
        }
        // The removal finds out whether the item of a REMOVE is there. An item that went while it was written has
        // a REMOVE of its own.
        (Fate::Written | Fate::Absent, _)
        | (Fate::Failed(ExportError::Table(_)), Change::Remove) => Outcome::Exported,
        (Fate::Rejected(rejection), _) => Outcome::Rejected(rejection),
        (Fate::Failed(error), _) => Outcome::Failed(error),
    }
}

/// Removes the settings keys that exported items leave behind. Returns what became of them, for each item that
/// had them.
async fn remove_settings<S: Services>(
    invocation: &Invocation<'_, S>,
    exported: &[&RecordedChange],
    written: &Written,
    flood: &Flood,
    api_keys: &mut ApiKeys,
) -> Vec<(ItemRef, Removal)> {
    let gone = exported
        .iter()
        .filter(|last| last.change == Change::Remove && written.fate(&last.item) != Fate::Written);
    let mut seen = BTreeSet::new();
    let leads = gone.clone().filter(|last| !last.has_old_image).map(|last| last.item.kv_key());
    let leads = leads.filter(|key| check_key(key).is_ok() && seen.insert(key.clone()));
    let held = bulk::read_settings(invocation, invocation.budget, leads).await;
    let gone: BTreeSet<&ItemRef> = gone.map(|last| &last.item).collect();
    let left_behind = written.left_behind.iter().map(|(key, item)| (key.clone(), item));
    let mut keys: Vec<(String, &ItemRef)> = left_behind.collect();
    for last in exported {
        keys.extend(last.shop_ids.iter().map(|shop_id| (shop_id.clone(), &last.item)));
    }
    let mut removals = Vec::new();
    for &item in &gone {
        let key = item.kv_key();
        match held.get(&key) {
            // The key stays: it leads to the shop id.
            Some(Err(error)) => {
                let error = ExportError::kv(&key, error.clone());
                removals.push((item.clone(), Removal::Failed(error)));
                continue;
            }
            Some(Ok(Some(held))) if held.index == item.index => {
                keys.extend(held.shop_id.iter().map(|shop_id| (shop_id.clone(), item)));
            }
            Some(Ok(_)) | None => {}
        }
        keys.push((key, item));
    }
    let mut waiting: BTreeMap<String, BTreeSet<&ItemRef>> = BTreeMap::new();
    // A key still belongs to its item where the write failed.
    for (key, item) in keys.into_iter().filter(|(key, _)| !written.winners.contains_key(key)) {
        waiting.entry(key).or_default().insert(item);
    }
    let up_to = invocation.config.removals_up_to;
    let brake = |owners: &BTreeSet<Rc<IndexRef>>| {
        flood.lets_through(owners, up_to, invocation.services.now())
    };
    let keys = waiting.keys().cloned().collect();
    let mut left = 0;
    for (key, removal) in remove_keys(invocation, keys, api_keys, Some(&brake)).await {
        for &item in &waiting[&key] {
            // An item that stays is exported; the shop id that it gave up is a repair's.
            if removal == Removal::Postponed && !gone.contains(item) {
                left += 1;
            } else {
                removals.push((item.clone(), removal.clone()));
            }
        }
    }
    if left > 0 {
        warn!(
            keys = left,
            "shop ids that were given up in a flood of removals stay until a repair"
        );
    }
    removals
}

fn count_outcomes(stats: &mut Stats, outcomes: &[RecordOutcome]) {
    for (_, outcome) in outcomes {
        stats.records += 1;
        match outcome {
            Outcome::Skipped => stats.skipped += 1,
            Outcome::Exported => stats.exported += 1,
            Outcome::Postponed => stats.removals_held += 1,
            Outcome::Rejected(_) => stats.rejected += 1,
            Outcome::Failed(_) => stats.failed += 1,
            Outcome::Parked(_) => stats.parked += 1,
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
        .filter(|(_, outcome)| **outcome == Outcome::Postponed)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::api_keys::TIME_FOR_API_KEYS;
    use crate::export::fakes::{
        Fakes, Keys, KvFault, NOW, TableChange, down, entry, index, index_item, item, kv_error,
        pixel, query_config, settings_of, shop,
    };
    use crate::kv::Source;
    use crate::ports::ErrorKind;
    use serde_json::value::to_raw_value;
    use serde_json::{Value, json};

    /// A record of an item: its event, and what `dynamodb` has beside the keys.
    fn record(item: &ItemRef, event: &str, fields: Value) -> StreamRecord {
        let key = item.key();
        let mut change = json!({"Keys": {"pk": {"S": key.pk}, "sk": {"S": key.sk}}});
        let Value::Object(fields) = fields else { panic!("{fields}") };
        change.as_object_mut().unwrap().extend(fields);
        StreamRecord::read(&to_raw_value(&json!({"eventName": event, "dynamodb": change})).unwrap())
    }

    /// An image with an endpoint and these attributes.
    fn image(attributes: &Value) -> Value {
        let mut all = json!({"index_endpoint": {"S": "https://h"}});
        all.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
        all
    }

    /// What KV holds of index `i`, whose shop id is `s`.
    fn held() -> Value {
        json!({"system_account_id": "a", "index_name": "i", "shop_id": "s", "pixel_id": "kv"})
    }

    fn word(outcome: &Outcome) -> String {
        match outcome {
            Outcome::Skipped => "skipped".to_owned(),
            Outcome::Exported => "exported".to_owned(),
            Outcome::Postponed => "held".to_owned(),
            Outcome::Rejected(rejection) => format!("rejected: {}", rejection.path),
            Outcome::Failed(_) => "failed".to_owned(),
            Outcome::Parked(_) => "parked".to_owned(),
        }
    }

    async fn export(fakes: &Fakes, records: Vec<StreamRecord>) -> (Vec<String>, Stats) {
        let mut invocation = fakes.invocation(Source::Stream);
        invocation.budget.api_keys = TIME_FOR_API_KEYS;
        let outcomes = export_batch(&invocation, records, &Flood::default()).await;
        (outcomes.iter().map(|(_, outcome)| word(outcome)).collect(), invocation.stats())
    }

    #[tokio::test(start_paused = true)]
    async fn each_row_of_the_records() {
        let (table, none, invalid) =
            (Some(pixel("table")), None, json!({"pixel_id": {"Q": "invalid"}}));
        let (broken, new, refused) = (Some(invalid.clone()), pixel("image"), "rejected: pixel_id");
        let kept = Some("kv");
        // What the table has, how its reads go (`f` fails, `g` finds the item gone), the record; its fate, and KV.
        let rows = [
            ("there, an image", &table, "", "MODIFY", &new, "exported", Some("table")),
            ("there, removed", &table, "", "REMOVE", &new, "exported", Some("table")),
            ("there, malformed", &table, "", "UPSERT", &new, "exported", Some("table")),
            ("there, malformed, then gone", &table, ".g", "UPSERT", &new, "exported", None),
            ("there, and invalid", &broken, "", "MODIFY", &new, refused, kept),
            ("absent, an image", &none, "", "MODIFY", &new, "exported", Some("image")),
            ("absent, an invalid image", &none, "", "MODIFY", &invalid, refused, kept),
            ("absent, removed", &none, "", "REMOVE", &new, "exported", None),
            ("absent, malformed", &none, "", "UPSERT", &new, "rejected: eventName", kept),
            ("unread, an image", &table, "ff", "MODIFY", &new, "exported", Some("image")),
            ("unread, removed", &none, "f", "REMOVE", &new, "exported", None),
            ("unread, then there, removed", &table, "f", "REMOVE", &new, "exported", Some("table")),
            ("unread for good, removed", &none, "ff", "REMOVE", &new, "failed", kept),
            ("unread, malformed", &table, "f", "UPSERT", &new, "failed", kept),
        ];
        for of in [settings_of("i"), query_config("i", "q")] {
            let key = of.kv_key();
            for (name, there, reads, event, new, expected, kv) in rows {
                let fakes = Fakes::new();
                fakes.kv.hold_entry(&key, &entry("i", &held()));
                there.iter().for_each(|it| fakes.table.put(item(&of, &image(it))));
                reads.chars().for_each(|read| match read {
                    'f' => fakes.table.changes.then([TableChange::Fails]),
                    'g' => fakes.table.changes.then([TableChange::Remove(of.key())]),
                    _ => fakes.table.changes.then_nothing(1),
                });
                // It is old, but none of these faults is its own.
                let old = NOW.as_secs() - 61;
                let fields = json!({"NewImage": image(new), "ApproximateCreationDateTime": old});
                let (outcomes, _) = export(&fakes, vec![record(&of, event, fields)]).await;
                assert_eq!(outcomes, [expected], "{name}: {of}");
                let is_held = !fakes.kv.keys().is_empty();
                let pixel_id = is_held.then(|| fakes.kv.value(&key)["pixel_id"].clone());
                assert_eq!(pixel_id, kv.map(Value::from), "{name}: {of}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_records_of_an_item_share_the_fate_of_the_last_one() {
        let fakes = Fakes::new();
        let (i, j, config) = (settings_of("i"), settings_of("j"), query_config("i", "q"));
        let upsert = |item: &ItemRef, id: &str, at: u64| {
            let new = image(&pixel(id));
            record(item, "MODIFY", json!({"NewImage": new, "ApproximateCreationDateTime": at}))
        };
        let unknown = StreamRecord::read(&to_raw_value(&json!({"eventName": "REMOVE"})).unwrap());
        let mut foreign = record(&i, "REMOVE", json!({}));
        foreign.change = Ok(None);
        let records = vec![
            upsert(&i, "1", 999_999_990),
            foreign,
            unknown,
            record(&j, "REMOVE", json!({})),
            upsert(&config, "c", 999_999_997),
            upsert(&j, "3", 999_999_998),
            upsert(&i, "2", 999_999_999),
        ];
        let (outcomes, stats) = export(&fakes, records).await;
        let expected =
            "exported skipped rejected:dynamodb.Keys exported exported exported exported";
        assert_eq!(outcomes.join(" ").replace(": ", ":"), expected);
        assert_eq!((stats.records, stats.exported, stats.skipped, stats.rejected), (7, 5, 1, 1));
        let mut requests = fakes.kv.requests.borrow().clone();
        requests.sort();
        // The later record's item comes last, and so has the keys for which both ask.
        assert_eq!(requests, [vec!["a-j".to_owned(), "a-i".to_owned()], vec![config.kv_key()]]);
        for (key, id, time) in
            [("a-i", "2", "2001-09-09T01:46:39Z"), ("a-j", "3", "2001-09-09T01:46:38Z")]
        {
            assert_eq!(fakes.kv.value(key)["pixel_id"], id);
            let metadata = fakes.kv.held.borrow()[key].metadata().unwrap();
            assert_eq!(metadata.changed_at.as_deref(), Some(time));
        }
        assert_eq!(stats.settings_lag_ms, [1, 2].map(Duration::from_secs));
        assert_eq!(stats.query_config_lag_ms, [Duration::from_secs(3)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_that_could_not_be_written_for_its_item_is_not_another_items() {
        let fakes = Fakes::new();
        let names = ["i", "j"];
        names.iter().for_each(|name| fakes.table.put(index_item(name, &shop("s"))));
        let unsuccessful = || KvFault::ListsAsUnsuccessful(Keys::Named(&["s"]));
        fakes.kv.faults.then((0..4).map(|_| unsuccessful()));
        let new = json!({"NewImage": image(&shop("s"))});
        let records = names.map(|name| record(&settings_of(name), "INSERT", new.clone()));
        let (outcomes, _) = export(&fakes, records.into()).await;
        assert_eq!(outcomes, ["exported", "failed"]);
        assert_eq!(fakes.kv.keys(), ["a-i", "a-j"]);

        let fakes = Fakes::new();
        let [gone, there] = [("a", "b-c"), ("a-b", "c")].map(|(account, name)| ItemRef {
            index: IndexRef::parse(account, name).unwrap(),
            query: Some("q".to_owned()),
        });
        assert_eq!(gone.kv_key(), there.kv_key());
        fakes.kv.hold_entry(&gone.kv_key(), &entry("b-c", &json!({"x": 1})));
        fakes.table.put(item(&there, &json!({"x": {"N": "2"}})));
        fakes.kv.faults.then([KvFault::Fails(kv_error(ErrorKind::Refused))]);
        let records = vec![record(&gone, "REMOVE", json!({})), record(&there, "MODIFY", json!({}))];
        let (outcomes, _) = export(&fakes, records).await;
        assert_eq!(outcomes, ["exported", "failed"]);
        assert_eq!(fakes.kv.keys(), [gone.kv_key()]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_would_fail_is_parked_where_it_is_old_and_the_fault_is_its_own() {
        let fault = |error: ErrorKind| KvFault::Fails(kv_error(error));
        let refused: Option<ErrorKind> = Some(ErrorKind::RefusedContent);
        let broken: Option<ErrorKind> = Some(ErrorKind::Transient);
        let now = NOW.as_secs();
        let (young, old): (&[u64], &[u64]) = (&[now - 60], &[now - 61]);
        for (name, times, kv_error, is_without_api_key, expected) in [
            ("refused, young", young, refused, false, "failed"),
            ("refused, old", old, refused, false, "parked"),
            ("refused, one young", &[1, now], refused, false, "failed"),
            ("refused, in milliseconds", &[(now - 61) * 1_000], refused, false, "failed"),
            ("KV is broken, old", old, broken, false, "failed"),
            ("no API key, young", young, None, true, "failed"),
            ("no API key, old", old, None, true, "parked"),
            ("no API key, KV unread, old", old, broken, true, "failed"),
            ("no API key, refused, old", old, refused, true, "parked"),
        ] {
            let fakes = Fakes::new();
            fakes.table.put(index_item("i", &json!({})));
            fakes.kv.faults.then(kv_error.into_iter().flat_map(|error| [error; 4]).map(fault));
            if is_without_api_key {
                fakes.api_keys.faults.then((0..4).map(|_| down()));
            }
            let of = |at| json!({"NewImage": {}, "ApproximateCreationDateTime": at});
            let records = times.iter().map(|at| record(&settings_of("i"), "MODIFY", of(at)));
            let (outcomes, stats) = export(&fakes, records.collect()).await;
            assert!(outcomes.iter().all(|outcome| outcome == expected), "{name}: {outcomes:?}");
            assert_eq!(stats.parked > 0, expected == "parked", "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_record_whose_gateway_was_never_asked_is_not_parked() {
        let fakes = Fakes::new();
        fakes.table.put(index_item("i", &json!({})));
        fakes.table.put(index_item("j", &json!({"cell": {"S": "other"}})));
        // The cell of `i` hangs. That of `j`, which its record does not name, is known when the time is used up.
        fakes.api_keys.delays.borrow_mut().insert("a".to_owned(), 2 * TIME_FOR_API_KEYS);
        let old = NOW.as_secs() - 61;
        let old = json!({"NewImage": image(&json!({})), "ApproximateCreationDateTime": old});
        let records = [("i", "MODIFY"), ("j", "REMOVE")];
        let records = records.map(|(name, event)| record(&settings_of(name), event, old.clone()));
        let (outcomes, _) = export(&fakes, records.into()).await;
        assert_eq!(outcomes, ["parked", "failed"]);
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_keys_one_that_fails_decides_and_first_one_that_another_try_may_help() {
        let refused = || KvFault::Fails(kv_error(ErrorKind::RefusedContent));
        let broken = || KvFault::Fails(kv_error(ErrorKind::Transient));
        let old = json!({"OldImage": shop("s"), "ApproximateCreationDateTime": NOW.as_secs() - 61});
        let removed = || record(&settings_of("i"), "REMOVE", old.clone());
        // The delete of both, four tries of the first one, and one of the second.
        let deletes = vec![refused(), broken(), broken(), broken(), broken(), refused()];
        for (name, up_to, read, then, expected) in [
            ("refused and broken", 100, vec![], deletes, "failed"),
            ("the first can't be read, the other is held", 0, vec![refused(); 2], vec![], "parked"),
            ("the second", 0, vec![refused()], vec![refused()], "parked"),
        ] {
            let mut fakes = Fakes::new();
            fakes.0.config.removals_up_to = up_to;
            ["a-i", "s"].iter().for_each(|key| fakes.kv.hold_entry(key, &entry("i", &held())));
            fakes.kv.faults.then(read);
            fakes.kv.faults.then_after(1, then);
            let (outcomes, _) = export(&fakes, vec![removed()]).await;
            assert_eq!(outcomes, [expected], "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn in_a_flood_an_item_that_stays_is_exported_and_keeps_the_shop_id_that_it_gave_up() {
        // It was changed, or removed and is back.
        for event in ["MODIFY", "REMOVE"] {
            let mut fakes = Fakes::new();
            fakes.0.config.removals_up_to = 0;
            for (key, name) in [("a-i", "i"), ("s", "j")] {
                fakes.kv.hold_entry(key, &entry(name, &json!({})));
            }
            fakes.table.put(index_item("j", &json!({})));
            let records = vec![
                record(&settings_of("i"), "REMOVE", json!({})),
                record(&settings_of("j"), event, json!({"OldImage": shop("s")})),
            ];
            let (outcomes, stats) = export(&fakes, records).await;
            assert_eq!(outcomes, ["held", "exported"], "{event}");
            assert_eq!(fakes.kv.keys(), ["a-i", "a-j", "s"], "{event}");
            assert_eq!(stats.removals_held, 1, "{event}");
        }
    }

    #[test]
    fn a_process_removes_so_many_indexes_in_any_ten_minutes() {
        let flood = Flood::default();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        for (owners, seconds, is_let_through) in [
            (&["a", "b"][..], 1_000, true),
            (&["c"], 1_000, false),
            (&["a"], 1_100, true),
            (&[], 1_100, true),
            (&["c"], 1_599, false),
            (&["c"], 1_600, true),
            (&["d"], 1_699, false),
            (&["d"], 1_700, true),
            (&["e"], 0, false),
        ] {
            let owners = owners.iter().map(|name| Rc::new(index(name))).collect();
            let passed = flood.lets_through(&owners, 2, at(seconds));
            assert_eq!(passed, is_let_through, "{owners:?} at {seconds}");
        }
        assert!(!Flood::default().lets_through(&[Rc::new(index("a"))].into(), 0, at(0)));
    }

    #[tokio::test(start_paused = true)]
    async fn which_shop_ids_go_with_a_record() {
        let removed = |fields| ("REMOVE", fields);
        let old = |attributes| json!({"OldImage": attributes});
        let now = |id: &str| ("MODIFY", json!({"NewImage": image(&shop(id))}));
        let moved =
            |old, new| ("MODIFY", json!({"OldImage": shop(old), "NewImage": image(&shop(new))}));
        let none = || json!({});
        let s: &[&str] = &["s"];
        for (name, shop_id, owner, events, keys) in [
            ("removed, KV's value names it", None, "i", vec![removed(none())], &[][..]),
            ("removed, the old image names it", None, "i", vec![removed(old(shop("s")))], &[]),
            ("removed, the old image names none", None, "i", vec![removed(old(none()))], s),
            (
                "removed, an earlier record has an old image",
                None,
                "i",
                vec![moved("t", "t"), removed(none())],
                s,
            ),
            ("removed, KV's value is another's", None, "x", vec![removed(none())], s),
            ("moved, the old image names it", Some("t"), "i", vec![moved("s", "t")], &["a-i", "t"]),
            ("moved, no image names it", Some("t"), "i", vec![now("t")], &["a-i", "s", "t"]),
            ("moved, named before", Some("t"), "i", vec![now("s"), now("t")], &["a-i", "t"]),
            ("stays", Some("s"), "i", vec![moved("s", "s")], &["a-i", "s"]),
        ] {
            let fakes = Fakes::new();
            fakes.kv.hold_entry("a-i", &entry(owner, &held()));
            fakes.kv.hold_entry("s", &entry("i", &held()));
            shop_id.iter().for_each(|id| fakes.table.put(index_item("i", &shop(id))));
            let events = events.into_iter();
            let records = events.map(|(event, fields)| record(&settings_of("i"), event, fields));
            let (outcomes, _) = export(&fakes, records.collect()).await;
            assert!(outcomes.iter().all(|outcome| outcome == "exported"), "{name}: {outcomes:?}");
            assert_eq!(fakes.kv.keys(), keys, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_key_that_leads_to_a_shop_id_stays_until_its_value_is_read() {
        let fakes = Fakes::new();
        fakes.kv.hold_entry("a-i", &entry("i", &held()));
        fakes.kv.faults.then([KvFault::Fails(kv_error(ErrorKind::Refused))]);
        let (outcomes, _) =
            export(&fakes, vec![record(&settings_of("i"), "REMOVE", json!({}))]).await;
        assert_eq!((outcomes, fakes.kv.keys()), (vec!["failed".into()], vec!["a-i".into()]));
    }

    #[tokio::test(start_paused = true)]
    async fn a_removal_with_an_odd_name_takes_no_other_down() {
        let unholdable = settings_of(&"l".repeat(511));
        let same_index_id = IndexRef::parse("a-b", "c").unwrap().into();
        let i = settings_of("b-c");
        for (first, second) in
            [(&i, &unholdable), (&unholdable, &i), (&i, &same_index_id), (&same_index_id, &i)]
        {
            let fakes = Fakes::new();
            let held = json!({"system_account_id": "a", "index_name": "b-c", "shop_id": "s"});
            for key in ["a-b-c", "s"] {
                fakes.kv.hold_entry(key, &entry("b-c", &held));
            }
            let records = [first, second].map(|item| record(item, "REMOVE", json!({})));
            let (outcomes, _) = export(&fakes, records.into()).await;
            assert_eq!(outcomes, ["exported"; 2], "{first}, {second}");
            assert!(fakes.kv.keys().is_empty(), "{first}, {second}");
            let requests = fakes.kv.requests.borrow();
            assert!(requests.iter().flatten().all(|key| key.len() <= 512), "{first}, {second}");
        }
    }
}
