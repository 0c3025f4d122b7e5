//! What a reconcile did about a KV that has drifted from its table.

use serde_json::{Value, json};
use testbed::kv::KvVerb;

use crate::helpers::*;

/// The verb, the namespace and the sorted keys of a request that changes KV.
pub type Write = (KvVerb, String, Vec<String>);

/// The counts of a namespace that are not zero.
#[track_caller]
pub fn counts(report: &Value, namespace: &str) -> Value {
    let counts = report[namespace].as_object().expect("a report has both namespaces").iter();
    counts.filter(|(_, count)| **count != 0).map(|(name, n)| (name.clone(), n.clone())).collect()
}

/// Names of a report, in order.
#[track_caller]
pub fn sorted(names: &Value) -> Vec<&str> {
    let names = names.as_array().expect("a list of names").iter();
    let mut names: Vec<&str> = names.map(|name| name.as_str().unwrap()).collect();
    names.sort_unstable();
    names
}

pub fn writes_of(world: &World) -> Vec<Write> {
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

/// Changes the value of a key by hand. `keep` says whether its metadata stays.
pub fn edit(world: &World, namespace: &str, key: &str, keep: bool) {
    let stored = world.stack.kv.get(namespace, key).unwrap();
    let mut metadata = stored.metadata.clone().filter(|_| keep);
    if let Some(metadata) = &mut metadata {
        metadata["digest"] = json!("0".repeat(64));
    }
    let value = with(stored.json(), json!({"edited": true}));
    world.stack.kv.put(namespace, key, &value.to_string(), metadata);
}
