//! Tables and namespaces that have drifted apart, and what a reconcile did about it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testbed::kv::KvVerb;
use testbed::table::to_item;

use crate::helpers::*;

/// The verb, the namespace and the sorted keys of a request that changes KV.
pub type Write = (KvVerb, String, Vec<String>);

pub fn audit() -> Value {
    json!({"reconcile": {}})
}

pub fn repair() -> Value {
    json!({"reconcile": {"apply": true}})
}

pub fn repair_with(more: Value) -> Value {
    let mut payload = repair();
    let fields = payload["reconcile"].as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    payload
}

pub fn of_account(account: &str, apply: bool) -> Value {
    json!({"reconcile": {"apply": apply, "system_account_id": account}})
}

/// The counts of a namespace that are not zero.
#[track_caller]
pub fn counts(report: &Value, namespace: &str) -> Value {
    let counts = report[namespace].as_object().expect("a report has both namespaces");
    counts
        .iter()
        .filter(|(_, count)| **count != 0)
        .map(|(name, n)| (name.clone(), n.clone()))
        .collect()
}

/// Names of a report, in order.
#[track_caller]
pub fn sorted(names: &Value) -> Vec<&str> {
    let names = names.as_array().expect("a list of names").iter();
    let mut names: Vec<&str> = names.map(|name| name.as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

pub fn writes(world: &World) -> Vec<Write> {
    let log = world.stack.kv.log().into_iter().filter(|request| request.verb.writes());
    let mut writes: Vec<Write> = log
        .map(|mut request| {
            request.keys.sort();
            (request.verb, request.namespace, request.keys)
        })
        .collect();
    writes.sort();
    writes
}

pub fn write(verb: KvVerb, namespace: &str, keys: &[&str]) -> Write {
    (verb, namespace.to_owned(), keys.iter().map(|key| (*key).to_owned()).collect())
}

/// The values of a namespace, without their metadata.
pub fn values(world: &World, namespace: &str) -> BTreeMap<String, String> {
    let pairs = world.stack.kv.snapshot(namespace).into_iter();
    pairs.map(|(key, stored)| (key, stored.value)).collect()
}

/// Changes the table past the stream.
pub fn load(world: &World, items: impl IntoIterator<Item = Value>) {
    world.stack.table.load(items.into_iter().map(|item| to_item(&item)));
}

/// Changes the value of a key by hand. `keep` says whether its metadata stays.
pub fn edit(world: &World, namespace: &str, key: &str, keep: bool) {
    let stored = world.stack.kv.get(namespace, key).unwrap();
    let mut metadata = stored.metadata.filter(|_| keep);
    if let Some(metadata) = &mut metadata {
        metadata["digest"] = json!("0".repeat(64));
    }
    let mut value: Value = serde_json::from_str(&stored.value).unwrap();
    value["edited"] = json!(true);
    world.stack.kv.put(namespace, key, &value.to_string(), metadata);
}
