//! The query-config part of a batch.

use std::collections::BTreeMap;

use super::ItemVerdict;
use super::plan::{QueryConfigItem, Task};
use crate::export::bulk;
use crate::export::desired::Desired;
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::other_environments::OtherEnvironments;
use crate::export::query_config_removal::remove;
use crate::kv::Pair;
use crate::ports::{Namespace, Services};

/// Exports the query configs of a batch; a verdict for each item.
pub async fn export<S: Services>(
    invocation: &Invocation<'_, S>,
    items: &[QueryConfigItem],
) -> Vec<ItemVerdict> {
    let mut verdicts =
        Verdicts { positions: BTreeMap::new(), items: vec![ItemVerdict::Done; items.len()] };
    // By key, because names that hold a dash can give two items one key: the later item has it.
    let mut pairs = BTreeMap::new();
    let mut removed = Vec::new();
    let stamp = invocation.stamp();
    for (position, item) in items.iter().enumerate() {
        let key = item.query_config.kv_key();
        verdicts.positions.entry(key.clone()).or_default().push(position);
        match &item.task {
            Task::Nothing => {}
            Task::Remove => removed.push(item.query_config.clone()),
            Task::Export(config) => {
                let desired = Desired::of_decoded_query_config(&item.query_config, config.clone());
                match desired.entry(&stamp.clone().changed_at(item.deciding.changed_at)) {
                    Ok(entry) => {
                        pairs.insert(key.clone(), Pair { key, entry });
                    }
                    Err(rejection) => verdicts.items[position] = ItemVerdict::Rejected(rejection),
                }
            }
        }
    }
    removed.retain(|config| !pairs.contains_key(&config.kv_key()));
    let pairs: Vec<Pair> = pairs.into_values().collect();
    let bounds = bulk::Bounds::patient(invocation.writes_until);
    for (key, error) in bulk::put(invocation, Namespace::QueryConfigs, pairs, bounds).await {
        verdicts.fail(items, &key, &error.into());
    }
    if !removed.is_empty() {
        let removal = remove(invocation, &removed, OtherEnvironments::Unknown).await;
        for (key, error) in removal.failed {
            verdicts.fail(items, &key, &error);
        }
        for (key, rejection) in removal.rejected {
            for position in verdicts.positions.get(&key).into_iter().flatten() {
                verdicts.items[*position] = ItemVerdict::Rejected(rejection.clone());
            }
        }
    }
    verdicts.items
}

/// The verdicts of the batch's items, by KV key.
struct Verdicts {
    positions: BTreeMap<String, Vec<usize>>,
    items: Vec<ItemVerdict>,
}

impl Verdicts {
    fn fail(&mut self, items: &[QueryConfigItem], key: &str, error: &KeyError) {
        for position in self.positions.get(key).into_iter().flatten() {
            let deciding = &items[*position].deciding;
            self.items[*position] = ItemVerdict::of_error(error.clone(), deciding);
        }
    }
}
