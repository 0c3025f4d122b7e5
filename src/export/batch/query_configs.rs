//! The query-config part of a batch.

use std::collections::BTreeMap;

use super::outcome::RecordOutcome;
use super::plan::{QueryConfigItem, Task};
use crate::export::bulk;
use crate::export::desired::Desired;
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::other_environments::OtherEnvironments;
use crate::export::query_config_removal::{Removal, remove};
use crate::kv::Pair;
use crate::ports::{Namespace, Services};

/// Exports the query configs of a batch; an outcome for each.
pub async fn export<S: Services>(
    invocation: &Invocation<'_, S>,
    items: &[QueryConfigItem],
) -> Vec<RecordOutcome> {
    let keys: Vec<String> = items.iter().map(|item| item.query_config.kv_key()).collect();
    let mut outcomes = vec![RecordOutcome::Exported; items.len()];
    // By key, because names that hold a dash can give two items one key: the later item has it.
    let mut pairs = BTreeMap::new();
    let mut removed = Vec::new();
    let stamp = invocation.stamp();
    for ((item, key), outcome) in items.iter().zip(&keys).zip(&mut outcomes) {
        match &item.task {
            Task::Nothing => {}
            Task::Remove => removed.push(item.query_config.clone()),
            Task::Export(config) => {
                let desired = Desired::of_decoded_query_config(&item.query_config, config.clone());
                match desired.entry(&stamp.clone().changed_at(item.deciding.changed_at)) {
                    Ok(entry) => {
                        pairs.insert(key.clone(), Pair { key: key.clone(), entry });
                    }
                    Err(rejection) => {
                        *outcome = RecordOutcome::rejected(item.query_config.clone(), rejection);
                    }
                }
            }
        }
    }
    removed.retain(|config| !pairs.contains_key(&config.kv_key()));
    let pairs = pairs.into_values().collect();
    let bounds = bulk::Bounds::patient(invocation.writes_until);
    let failures = bulk::put(invocation, Namespace::QueryConfigs, pairs, bounds).await;
    let mut removal = Removal::default();
    if !removed.is_empty() {
        removal = remove(invocation, &removed, OtherEnvironments::Unknown).await;
    }
    let Removal { mut failed, rejected, .. } = removal;
    failed.extend(failures.into_iter().map(|(key, error)| (key, KeyError::from(error))));
    for ((item, key), outcome) in items.iter().zip(&keys).zip(&mut outcomes) {
        let name = item.query_config.clone();
        if let Some(error) = failed.get(key) {
            *outcome = RecordOutcome::of_error(name, error.clone(), item.deciding.late);
        } else if let Some(rejection) = rejected.get(key) {
            *outcome = RecordOutcome::rejected(name, rejection.clone());
        }
    }
    outcomes
}
