//! The query-config part of a batch.

use std::collections::BTreeMap;

use super::outcome::RecordOutcome;
use super::plan::{QueryConfigItem, Task};
use crate::export::bulk;
use crate::export::desired::Desired;
use crate::export::invocation::Invocation;
use crate::export::other_environments::OtherEnvironments;
use crate::export::query_config_removal::{RemovalOutcome, remove};
use crate::kv::{Pair, Stamp};
use crate::ports::{Namespace, Services};

/// Exports the query configs of a batch; an outcome for each.
pub async fn export<S: Services>(
    invocation: &Invocation<'_, S>,
    items: &[QueryConfigItem],
) -> Vec<RecordOutcome> {
    let keys: Vec<String> = items.iter().map(|item| item.name.kv_key()).collect();
    // By key, because names that hold a dash can give two items one key: the later item has it.
    let mut pairs = BTreeMap::new();
    let mut removed = Vec::new();
    let stamp = invocation.stamp();
    for (item, key) in items.iter().zip(&keys) {
        match &item.task {
            Task::Nothing => {}
            Task::Remove => removed.push(item.name.clone()),
            Task::Export(config) => {
                let changed_at = item.deciding.record.changed_at.clone();
                let desired = Desired::of_decoded_query_config(&item.name, config.clone());
                let entry = desired.entry(&Stamp { changed_at, ..stamp.clone() });
                pairs.insert(key, Pair { key: key.clone(), entry });
            }
        }
    }
    removed.retain(|config| !pairs.contains_key(&config.kv_key()));
    let pairs = pairs.into_values().collect();
    let bounds = bulk::Bounds::patient(invocation.writes_until);
    let failures = bulk::put(invocation, Namespace::QueryConfigs, pairs, bounds).await;
    let mut by_key = remove(invocation, &removed, OtherEnvironments::Unknown).await;
    let failures = failures.into_iter();
    by_key.extend(failures.map(|(key, error)| (key, RemovalOutcome::Failed(error.into()))));
    let outcomes = items.iter().zip(&keys).map(|(item, key)| match by_key.get(key) {
        Some(RemovalOutcome::Failed(error)) => {
            RecordOutcome::of_error(item.name.clone(), error.clone(), item.deciding.late)
        }
        Some(RemovalOutcome::Rejected(rejection)) => {
            RecordOutcome::rejected(item.name.clone(), rejection.clone())
        }
        _ => RecordOutcome::Exported,
    });
    outcomes.collect()
}
