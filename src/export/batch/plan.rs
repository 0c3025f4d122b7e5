//! A batch, item by item: which record decides, what the others name. Pure.

use std::collections::HashMap;

use crate::export::error::KeyError;
use crate::index::IndexRef;
use crate::item::{
    Change, Content, IndexSettings, QueryConfig, QueryConfigRef, Rejection, StreamRecord,
};

/// What a batch asks for.
#[derive(Debug, Default)]
pub struct BatchPlan {
    /// Index items with a deciding record, in the order of those records.
    pub settings: Vec<SettingsItem>,
    /// Query-config items with a deciding record, in the order of those records.
    pub query_configs: Vec<QueryConfigItem>,
    /// What is already certain of each record; the deciding ones are [`RecordOutcome::Exported`]
    /// until something goes wrong.
    pub outcomes: Vec<RecordOutcome>,
}

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordOutcome {
    /// Not ours.
    Skipped,
    /// A later record of the same item decides.
    Superseded,
    /// Done.
    Exported,
    /// Trying again can't help.
    Rejected(RejectedRecord),
    /// Trying again may help.
    Failed {
        /// The item's index.
        index: IndexRef,
        /// What happened.
        error: KeyError,
    },
}

/// A rejected record, for the log.
#[derive(Debug, Clone, PartialEq)]
pub struct RejectedRecord {
    /// The item's index, where it is known.
    pub index: Option<IndexRef>,
    /// What is wrong.
    pub rejection: Rejection,
}

/// An index item of the batch.
#[derive(Debug)]
pub struct SettingsItem {
    /// The index.
    pub index: IndexRef,
    /// The position of the deciding record in the batch.
    pub record: usize,
    /// What it asks for.
    pub change: Change<IndexSettings>,
    /// Whether the deciding record says what was there before.
    pub has_old_image: bool,
    /// The shop ids that the item's records name, with the positions of those records.
    pub named: Vec<(String, usize)>,
}

/// A query-config item of the batch.
#[derive(Debug)]
pub struct QueryConfigItem {
    /// The query config.
    pub query_config: QueryConfigRef,
    /// The position of the deciding record in the batch.
    pub record: usize,
    /// What it asks for.
    pub change: Change<QueryConfig>,
}

impl SettingsItem {
    /// The named shop ids that the deciding image doesn't ask for, and so may have to go.
    pub fn shop_ids_left_behind(&self) -> impl Iterator<Item = &str> {
        let asks_for = |key: &str| match &self.change {
            Change::Upsert(settings) => settings.asks_for(key),
            Change::Remove => false,
        };
        let named = self.named.iter().map(|(shop_id, _)| shop_id.as_str());
        named.filter(move |shop_id| !asks_for(shop_id))
    }

    /// The records without which a retry would not know all that has to be settled: the deciding
    /// one, and those that name a shop id which may have to go.
    pub fn records_to_retry(&self) -> Vec<usize> {
        let left_behind: Vec<&str> = self.shop_ids_left_behind().collect();
        let mut records: Vec<usize> = self
            .named
            .iter()
            .filter(|(shop_id, _)| left_behind.contains(&shop_id.as_str()))
            .map(|(_, record)| *record)
            .chain([self.record])
            .collect();
        records.sort_unstable();
        records.dedup();
        records
    }
}

/// Groups the records by item and lets the last good one of each decide.
pub fn plan(records: Vec<StreamRecord>) -> BatchPlan {
    let places = places(&records);
    let mut outcomes = Vec::with_capacity(records.len());
    let mut settings: Vec<Pending<SettingsItem>> = Vec::new();
    let mut query_configs: Vec<Pending<QueryConfigItem>> = Vec::new();
    for (position, (record, place)) in records.into_iter().zip(places).enumerate() {
        let rejected =
            |index, rejection| RecordOutcome::Rejected(RejectedRecord { index, rejection });
        outcomes.push(match record.content {
            Content::Skipped => RecordOutcome::Skipped,
            Content::Unknown { rejection } => rejected(None, rejection),
            Content::Settings(record) => {
                let item = pending(&mut settings, place);
                item.named.extend(record.shop_ids.into_iter().map(|shop_id| (shop_id, position)));
                match record.change {
                    Err(rejection) => rejected(Some(record.index), rejection),
                    Ok(change) => item.decide(
                        position,
                        SettingsItem {
                            index: record.index,
                            record: position,
                            change,
                            has_old_image: record.has_old_image,
                            named: Vec::new(),
                        },
                    ),
                }
            }
            Content::QueryConfig(record) => match record.change {
                Err(rejection) => rejected(Some(record.query_config.index), rejection),
                Ok(change) => pending(&mut query_configs, place).decide(
                    position,
                    QueryConfigItem { query_config: record.query_config, record: position, change },
                ),
            },
        });
    }

    let mut plan = BatchPlan { outcomes, ..BatchPlan::default() };
    for item in settings {
        plan.outcomes_superseded(&item.superseded);
        if let Some((_, decided)) = item.decision {
            plan.settings.push(SettingsItem { named: item.named, ..decided });
        }
    }
    for item in query_configs {
        plan.outcomes_superseded(&item.superseded);
        plan.query_configs.extend(item.decision.map(|(_, decided)| decided));
    }
    plan.settings.sort_by_key(|item| item.record);
    plan.query_configs.sort_by_key(|item| item.record);
    plan
}

/// For each record the place of its item among the items of its kind, by first appearance.
fn places(records: &[StreamRecord]) -> Vec<usize> {
    let mut settings: HashMap<&IndexRef, usize> = HashMap::with_capacity(records.len());
    let mut query_configs: HashMap<&QueryConfigRef, usize> = HashMap::new();
    records
        .iter()
        .map(|record| match &record.content {
            Content::Skipped | Content::Unknown { .. } => 0,
            Content::Settings(record) => {
                let next = settings.len();
                *settings.entry(&record.index).or_insert(next)
            }
            Content::QueryConfig(record) => {
                let next = query_configs.len();
                *query_configs.entry(&record.query_config).or_insert(next)
            }
        })
        .collect()
}

fn pending<T>(items: &mut Vec<Pending<T>>, place: usize) -> &mut Pending<T> {
    if place >= items.len() {
        items.resize_with(place + 1, Pending::default);
    }
    &mut items[place]
}

impl BatchPlan {
    fn outcomes_superseded(&mut self, records: &[usize]) {
        for record in records {
            self.outcomes[*record] = RecordOutcome::Superseded;
        }
    }
}

/// An item whose records are still being read.
struct Pending<T> {
    /// The deciding record and what it asks for.
    decision: Option<(usize, T)>,
    superseded: Vec<usize>,
    named: Vec<(String, usize)>,
}

impl<T> Default for Pending<T> {
    fn default() -> Self {
        Self { decision: None, superseded: Vec::new(), named: Vec::new() }
    }
}

impl<T> Pending<T> {
    fn decide(&mut self, record: usize, item: T) -> RecordOutcome {
        if let Some((earlier, _)) = self.decision.replace((record, item)) {
            self.superseded.push(earlier);
        }
        RecordOutcome::Exported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let plan = plan(vec![
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
                RecordOutcome::Rejected(_),
                RecordOutcome::Skipped
            ]
        ));
        let [item] = plan.settings.as_slice() else { panic!("{plan:?}") };
        assert_eq!(item.record, 2);
        let left_behind: Vec<&str> = item.shop_ids_left_behind().collect();
        assert_eq!(left_behind, ["s1", "s1", "s2", "s2", "named-by-broken"]);
        assert_eq!(item.records_to_retry(), [0, 1, 2, 3]);
    }

    #[test]
    fn a_broken_record_counts_for_what_it_names_also_before_any_that_decides() {
        let plan = plan(vec![
            record("INSERT", "INDEX#i", None, Some(".")),
            record("MODIFY", "INDEX#i", None, Some("s1")),
        ]);
        let [item] = &plan.settings[..] else { panic!("{plan:?}") };
        assert_eq!(item.shop_ids_left_behind().collect::<Vec<_>>(), ["named-by-broken"]);
        assert_eq!(item.records_to_retry(), [0, 1]);
    }

    #[test]
    fn a_removed_and_recreated_item_is_decided_by_the_re_creation() {
        let plan = plan(vec![
            record("REMOVE", "INDEX#i", Some("s1"), None),
            record("INSERT", "INDEX#i", None, Some("s2")),
        ]);
        let [item] = plan.settings.as_slice() else { panic!("{plan:?}") };
        assert!(matches!(item.change, Change::Upsert(_)));
        assert_eq!(item.shop_ids_left_behind().collect::<Vec<_>>(), ["s1"]);
        assert_eq!(item.records_to_retry(), [0, 1]);
    }

    #[test]
    fn items_come_in_the_order_of_their_deciding_records() {
        let plan = plan(vec![
            record("INSERT", "INDEX#b", None, Some("s")),
            record("INSERT", "INDEX#a", None, Some("s")),
            record("MODIFY", "INDEX#b", None, Some("s")),
        ]);
        let order: Vec<&str> = plan.settings.iter().map(|item| item.index.name.as_str()).collect();
        assert_eq!(order, ["a", "b"]);
        assert_eq!(plan.outcomes[0], RecordOutcome::Superseded);
    }
}
