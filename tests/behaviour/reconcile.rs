//! Reconcile: what it finds, what it repairs, and what it leaves alone.

mod accounts;
mod brakes;
mod chains;
mod differences;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use testbed::kv::KvVerb;

use crate::helpers::*;

/// The counts of a namespace that are not zero.
#[track_caller]
fn counts(report: &Value, namespace: &str) -> Value {
    let counts = report[namespace].as_object().expect("a report has both namespaces").iter();
    counts.filter(|(_, count)| **count != 0).map(|(name, n)| (name.clone(), n.clone())).collect()
}

/// Requests that change KV, as [`World::changes`] has them.
fn changes<const N: usize>(
    changes: [(KvVerb, &str, &[&str]); N],
) -> BTreeSet<(KvVerb, String, Vec<String>)> {
    let owned = |keys: &[&str]| {
        let mut keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        keys.sort();
        keys
    };
    changes.into_iter().map(|(verb, space, keys)| (verb, space.to_owned(), owned(keys))).collect()
}

/// Changes the value of a key by hand. `keep` says whether its metadata stays.
fn edit(world: &World, namespace: &str, key: &str, keep: bool) {
    let stored = world.stack.kv.get(namespace, key).unwrap();
    let mut metadata = stored.metadata.clone().filter(|_| keep);
    if let Some(metadata) = &mut metadata {
        metadata["digest"] = json!("0".repeat(64));
    }
    let value = with(stored.json(), json!({"edited": true}));
    world.stack.kv.put(namespace, key, &value.to_string(), metadata);
}
