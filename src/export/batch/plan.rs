//! A batch, item by item: which record decides, what the others name. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::outcome::RecordOutcome;
use crate::config::ExporterConfig;
use crate::export::api_keys::Exportable;
use crate::export::receipt::Record;
use crate::index::{IndexRef, ItemName};
use crate::item::stream_record::{QueryConfigRecord, SettingsRecord};
use crate::item::{Change, Content, QueryConfig, QueryConfigRef, Rejection, StreamRecord};
use crate::kv::rfc3339;

/// A record is late when the table took its change more than this before the invocation began: a
/// re-export, a repair or another consumer may have written what came after it.
const LATE_AFTER: Duration = Duration::from_secs(60);

#[derive(Debug)]
pub struct BatchPlan {
    pub settings: Vec<SettingsItem>,
    pub query_configs: Vec<QueryConfigItem>,
    /// What is already certain of each record; the deciding ones are [`RecordOutcome::Exported`]
    /// until something goes wrong.
    pub outcomes: Vec<RecordOutcome>,
}

/// What the batch makes of an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Task<T> {
    Export(T),
    Remove,
    /// A late record's item that the table no longer has: its removal has a record of its own.
    Nothing,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Deciding {
    pub position: usize,
    /// When the table took the change, in seconds since the epoch.
    pub created_at: Option<f64>,
    /// Whether it is late: then the table decides, if it can.
    pub late: bool,
    /// What receipts and metadata say of it; without a time where the table decided.
    pub record: Record,
}

/// An item with a deciding record; a plan has them in the order of those records.
#[derive(Debug)]
pub struct PlannedItem<N, T> {
    pub name: N,
    pub deciding: Deciding,
    pub task: Task<T>,
    /// Whether the deciding record says what was there before.
    pub has_old_image: bool,
    /// The shop ids that the item's records name, with the positions of those records.
    pub named: Vec<(String, usize)>,
}

pub type SettingsItem = PlannedItem<IndexRef, Exportable>;
pub type QueryConfigItem = PlannedItem<QueryConfigRef, QueryConfig>;

impl<T> Task<T> {
    pub fn export(&self) -> Option<&T> {
        match self {
            Self::Export(item) => Some(item),
            Self::Remove | Self::Nothing => None,
        }
    }
}

impl Deciding {
    fn new(
        position: usize,
        sequence_number: Option<String>,
        created_at: Option<f64>,
        began: SystemTime,
    ) -> Self {
        let began = began.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let late = created_at.is_some_and(|at| began - at > LATE_AFTER.as_secs_f64());
        let record = Record { changed_at: created_at.and_then(rfc3339), sequence_number };
        Self { position, created_at, late, record }
    }
}

impl SettingsItem {
    fn leaves_behind(&self, shop_id: &str) -> bool {
        !self.task.export().is_some_and(|index| index.settings.asks_for(shop_id))
    }

    /// The named shop ids that the deciding image doesn't ask for, and so may have to go.
    pub fn shop_ids_left_behind(&self) -> impl Iterator<Item = &str> {
        let named = self.named.iter().map(|(shop_id, _)| shop_id.as_str());
        named.filter(|shop_id| self.leaves_behind(shop_id))
    }

    /// The records without which a retry would not know all that has to be settled: the deciding
    /// one, and those that name a shop id which may have to go.
    pub fn records_to_retry(&self) -> impl Iterator<Item = usize> {
        let naming = self.named.iter().filter(|(shop_id, _)| self.leaves_behind(shop_id));
        naming.map(|(_, record)| *record).chain([self.deciding.position])
    }
}

/// Groups the records by item and lets the last one that is not rejected by itself decide.
pub fn plan(records: Vec<StreamRecord>, config: &ExporterConfig, began: SystemTime) -> BatchPlan {
    let mut outcomes = Vec::with_capacity(records.len());
    let mut settings = HashMap::with_capacity(records.len());
    let mut query_configs = HashMap::new();
    let mut named: HashMap<IndexRef, Vec<(String, usize)>> = HashMap::new();
    for (position, record) in records.into_iter().enumerate() {
        let deciding = Deciding::new(position, record.sequence_number, record.created_at, began);
        let outcome = match record.content {
            Content::Skipped => RecordOutcome::Skipped,
            Content::Unknown { rejection } => RecordOutcome::Rejected(None, rejection),
            Content::Settings(SettingsRecord { index, change, shop_ids, has_old_image }) => {
                let shop_ids = shop_ids.into_iter().map(|shop_id| (shop_id, position));
                named.entry(index.clone()).or_default().extend(shop_ids);
                // A record whose API key can't be asked for is broken by itself too.
                let exportable = |settings| Exportable::new(settings, config);
                let task = change.and_then(|change| task(change, exportable));
                decide(&mut settings, index, deciding, task, has_old_image, &mut outcomes)
            }
            Content::QueryConfig(QueryConfigRecord { query_config, change }) => {
                let task = change.and_then(|change| task(change, Ok));
                decide(&mut query_configs, query_config, deciding, task, false, &mut outcomes)
            }
        };
        outcomes.push(outcome);
    }
    let mut settings = in_order(settings);
    for item in &mut settings {
        item.named = named.remove(&item.name).unwrap_or_default();
    }
    BatchPlan { settings, query_configs: in_order(query_configs), outcomes }
}

fn task<T, E>(
    change: Change<T>,
    export: impl FnOnce(T) -> Result<E, Rejection>,
) -> Result<Task<E>, Rejection> {
    match change {
        Change::Upsert(item) => export(item).map(Task::Export),
        Change::Remove => Ok(Task::Remove),
    }
}

/// Lets a record decide instead of the one before it, unless it is rejected by itself.
fn decide<N: Clone + Eq + Hash + Into<ItemName>, T>(
    items: &mut HashMap<N, PlannedItem<N, T>>,
    name: N,
    deciding: Deciding,
    task: Result<Task<T>, Rejection>,
    has_old_image: bool,
    outcomes: &mut [RecordOutcome],
) -> RecordOutcome {
    let task = match task {
        Ok(task) => task,
        Err(rejection) => return RecordOutcome::rejected(name, rejection),
    };
    let named = Vec::new();
    let item = PlannedItem { name: name.clone(), deciding, task, has_old_image, named };
    if let Some(earlier) = items.insert(name, item) {
        outcomes[earlier.deciding.position] = RecordOutcome::Superseded;
    }
    RecordOutcome::Exported
}

fn in_order<N, T>(items: HashMap<N, PlannedItem<N, T>>) -> Vec<PlannedItem<N, T>> {
    let mut items: Vec<_> = items.into_values().collect();
    items.sort_by_key(|item| item.deciding.position);
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn config(default_cell: Option<&str>) -> ExporterConfig {
        ExporterConfig {
            environment: "prod".into(),
            default_cell: default_cell.map(str::to_owned),
            bulk_max_pairs: 1,
            removals_up_to: 100,
            http_timeout: Duration::ZERO,
            retry_base: Duration::ZERO,
            dry_run: false,
        }
    }

    fn planned(records: Vec<StreamRecord>) -> BatchPlan {
        plan(records, &config(Some("cell-1")), UNIX_EPOCH)
    }

    fn record(event: &str, sk: &str, old: Option<&str>, new: Option<&str>) -> StreamRecord {
        let image = |shop_id: &str| serde_json::json!({"index_endpoint": {"S": "https://h"}, "shop_id": {"S": shop_id}});
        let mut dynamodb =
            serde_json::json!({"Keys": {"pk": {"S": "a"}, "sk": {"S": sk}}, "SequenceNumber": "1"});
        if let Some(old) = old {
            dynamodb["OldImage"] = image(old);
        }
        if let Some(new) = new {
            dynamodb["NewImage"] = image(new);
            if new == "." {
                dynamodb["NewImage"] = serde_json::json!({"shop_id": {"S": "named-by-broken"}});
            }
        }
        let json = serde_json::json!({"eventName": event, "dynamodb": dynamodb}).to_string();
        StreamRecord::read(&serde_json::value::RawValue::from_string(json).unwrap())
    }

    #[test]
    fn the_last_record_that_is_not_broken_decides_and_all_count_for_what_they_name() {
        let plan = planned(vec![
            record("INSERT", "INDEX#i", None, Some("s1")),
            record("MODIFY", "INDEX#i", Some("s1"), Some("s2")),
            record("MODIFY", "INDEX#i", Some("s2"), Some("s3")),
            record("MODIFY", "INDEX#i", Some("s3"), Some(".")),
            record("INSERT", "INDEX#DEFAULT_CONFIG", None, None),
        ]);
        assert!(matches!(
            plan.outcomes.as_slice(),
            [
                RecordOutcome::Superseded,
                RecordOutcome::Superseded,
                RecordOutcome::Exported,
                RecordOutcome::Rejected(..),
                RecordOutcome::Skipped
            ]
        ));
        let [item] = plan.settings.as_slice() else { panic!("{plan:?}") };
        assert_eq!(item.deciding.position, 2);
        let left_behind: Vec<&str> = item.shop_ids_left_behind().collect();
        assert_eq!(left_behind, ["s1", "s1", "s2", "s2", "named-by-broken"]);
        assert_eq!(BTreeSet::from_iter(item.records_to_retry()), BTreeSet::from([0, 1, 2, 3]));
    }

    #[test]
    fn a_broken_record_counts_for_what_it_names_also_before_any_that_decides() {
        let plan = planned(vec![
            record("INSERT", "INDEX#i", None, Some(".")),
            record("MODIFY", "INDEX#i", None, Some("s1")),
        ]);
        let [item] = &plan.settings[..] else { panic!("{plan:?}") };
        assert_eq!(item.shop_ids_left_behind().collect::<Vec<_>>(), ["named-by-broken"]);
        assert_eq!(BTreeSet::from_iter(item.records_to_retry()), BTreeSet::from([0, 1]));
    }

    #[test]
    fn a_removed_and_recreated_item_is_decided_by_the_re_creation() {
        let plan = planned(vec![
            record("REMOVE", "INDEX#i", Some("s1"), None),
            record("INSERT", "INDEX#i", None, Some("s2")),
        ]);
        let [item] = plan.settings.as_slice() else { panic!("{plan:?}") };
        assert!(matches!(item.task, Task::Export(_)));
        assert_eq!(item.shop_ids_left_behind().collect::<Vec<_>>(), ["s1"]);
        assert_eq!(BTreeSet::from_iter(item.records_to_retry()), BTreeSet::from([0, 1]));
    }

    #[test]
    fn items_come_in_the_order_of_their_deciding_records() {
        let plan = planned(vec![
            record("INSERT", "INDEX#b", None, Some("s")),
            record("INSERT", "INDEX#a", None, Some("s")),
            record("MODIFY", "INDEX#b", None, Some("s")),
        ]);
        let order: Vec<&str> = plan.settings.iter().map(|item| item.name.name.as_str()).collect();
        assert_eq!(order, ["a", "b"]);
        assert_eq!(plan.outcomes[0], RecordOutcome::Superseded);
    }

    #[test]
    fn a_record_without_a_cell_where_one_is_needed_does_not_hide_the_one_before_it() {
        let with_cell = |cell: &str| {
            let json = serde_json::json!({"eventName": "MODIFY", "dynamodb": {
                "Keys": {"pk": {"S": "a"}, "sk": {"S": "INDEX#i"}},
                "NewImage": {"index_endpoint": {"S": "https://h"}, "cell": {"S": cell}}}});
            StreamRecord::read(&serde_json::value::to_raw_value(&json).unwrap())
        };
        for broken in ["", ".", ".."] {
            let records = vec![with_cell("cell-1"), with_cell(broken)];
            let plan = plan(records, &config(None), UNIX_EPOCH);
            assert!(matches!(
                plan.outcomes.as_slice(),
                [RecordOutcome::Exported, RecordOutcome::Rejected(..)]
            ));
        }
    }

    #[test]
    fn a_record_is_late_when_it_is_more_than_a_minute_old() {
        let began = UNIX_EPOCH + Duration::from_secs(1_000);
        let late = |created_at| Deciding::new(0, None, created_at, began).late;
        assert!(!late(Some(1_000.0)) && !late(Some(940.0)) && late(Some(939.0)));
        for in_time in [None, Some(f64::NAN), Some(f64::INFINITY), Some(9e300)] {
            assert!(!late(in_time), "{in_time:?}");
        }
    }
}
