//! Plants the drift.

use serde_json::{Value, json};
use testbed::faults::Fault;
use testbed::stack::{QUERY_CONFIGS, SETTINGS, Stack};

use super::parts::*;
use crate::report::Outcome;
use crate::workload::query_config;

impl Drift {
    /// Plants the drift in the table, in KV and in the API keys service.
    pub fn plant(&self, stack: &Stack) -> Outcome {
        self.plant_settings(stack)?;
        self.plant_query_configs(stack)?;
        stack.api_keys.break_cell(BROKEN_CELL, Fault::status(403));
        Ok(())
    }

    fn plant_settings(&self, stack: &Stack) -> Outcome {
        let kv = &stack.kv;
        for number in 0..self.indexes {
            match part(number) {
                Part::Missing => settings_keys(number).iter().for_each(|key| {
                    kv.delete(SETTINGS, key);
                }),
                Part::Stale => {
                    for key in settings_keys(number) {
                        make_stale(stack, SETTINGS, &key)?;
                    }
                }
                Part::SharesSecond => {
                    let second = kv.get(SETTINGS, &index_id(number)).ok_or("a key is missing")?;
                    kv.put(SETTINGS, &shop_id(number - 1), &second.value, second.metadata);
                }
                Part::Withholds => put_ours(stack, SETTINGS, &held_id(number), &held_name(number)),
                _ => {}
            }
        }
        let rejected = (0..self.indexes).filter(|number| part(*number) == Part::Rejected);
        stack.table.load(rejected.map(|number| {
            let mut item = index(number);
            item["index_endpoint"] = json!({"N": "7"});
            item
        }));
        for number in 0..self.indexes / EVERY {
            put_ours(stack, SETTINGS, &orphan(number), "orphan");
            put_foreign(stack, SETTINGS, number);
        }
        Ok(())
    }

    fn plant_query_configs(&self, stack: &Stack) -> Outcome {
        for number in (0..self.configs).step_by(EVERY) {
            stack.kv.delete(QUERY_CONFIGS, &config_key(number));
            make_stale(stack, QUERY_CONFIGS, &config_key(number + 1))?;
        }
        for number in 0..self.configs / EVERY {
            let query = format!("gone {number}");
            let value = json!({
                "system_account_id": "gone", "index_name": "gone", "normalized_query": query,
            });
            let key = orphaned_config(number);
            stack.kv.put(QUERY_CONFIGS, &key, &value.to_string(), Some(metadata("gone")));
            // Its value names no owner.
            put_ours(stack, QUERY_CONFIGS, &format!("nameless-{number}"), "gone");
            put_foreign(stack, QUERY_CONFIGS, number);
        }
        // The key of such a long name does not fit into KV.
        let long = "x".repeat(500);
        stack.table.load((0..self.configs).step_by(EVERY).flat_map(|number| {
            [query_config(TWIN.0, TWIN.1, number + 2), query_config("rejected", &long, number)]
        }));
        Ok(())
    }
}

/// Puts every key of the indexes and query configs into KV, each with a wrong digest.
pub fn hold_all_stale(stack: &Stack, indexes: usize, configs: usize) {
    for number in 0..indexes {
        put_ours(stack, SETTINGS, &index_id(number), "stale");
        put_ours(stack, SETTINGS, &format!("shop-{number:06}.myshopify.com"), "stale");
    }
    for number in 0..configs {
        put_ours(stack, QUERY_CONFIGS, &config_key(number), "stale");
    }
}

/// The exporter's metadata for an index of the account `gone`.
fn metadata(index: &str) -> Value {
    json!({
        "digest": "0".repeat(64), "exported_at": "2026-01-01T00:00:00.000Z", "source": "stream",
        "system_account_id": "gone", "index_name": index,
    })
}

/// Puts a pair of an index of the account `gone`.
fn put_ours(stack: &Stack, namespace: &str, key: &str, index: &str) {
    let value = json!({"system_account_id": "gone", "index_name": index}).to_string();
    stack.kv.put(namespace, key, &value, Some(metadata(index)));
}

/// Puts a foreign pair. Every second one has metadata, but not the exporter's.
fn put_foreign(stack: &Stack, namespace: &str, number: usize) {
    let metadata = (number % 2 == 1).then(|| json!({"by": "another tool"}));
    stack.kv.put(namespace, &format!("foreign-{number}"), "theirs", metadata);
}

fn make_stale(stack: &Stack, namespace: &str, key: &str) -> Outcome {
    let stored = stack.kv.get(namespace, key).ok_or("a key is missing")?;
    let mut metadata = stored.metadata.ok_or("a key has no metadata")?;
    metadata["digest"] = json!("0".repeat(64));
    stack.kv.put(namespace, key, &stored.value, Some(metadata));
    Ok(())
}
