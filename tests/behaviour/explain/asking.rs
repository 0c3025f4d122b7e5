//! What the tests ask, and how they read the answer.

use serde_json::{Value, json};

use crate::helpers::*;

pub fn of_index(account: &str, name: &str) -> Value {
    json!({"explain": {"system_account_id": account, "index_name": name}})
}

pub fn of_key(key: &str) -> Value {
    json!({"explain": {"key": key}})
}

/// The answer to a question, which has to leave KV as it was.
pub async fn asked(world: &World, payload: &Value) -> Value {
    let before = [0, 1].map(|namespace| world.stack.kv.snapshot(NAMESPACES[namespace]));
    let report = world.handle(payload).await.ok().clone();
    let after = [0, 1].map(|namespace| world.stack.kv.snapshot(NAMESPACES[namespace]));
    assert_eq!(before, after, "{payload}");
    assert!(world.stack.kv.log().iter().all(|request| !request.verb.writes()), "{payload}");
    report
}

const NAMESPACES: [&str; 2] = [testbed::stack::SETTINGS, testbed::stack::QUERY_CONFIGS];

/// Each key with its verdict, in the report's order.
#[track_caller]
pub fn verdicts(report: &Value) -> Vec<(&str, &str)> {
    let keys = report["keys"].as_array().expect("a report has keys").iter();
    keys.map(|key| (key["key"].as_str().unwrap(), key["verdict"].as_str().unwrap())).collect()
}

/// What the report says of one key.
#[track_caller]
pub fn key<'r>(report: &'r Value, name: &str) -> &'r Value {
    let keys = report["keys"].as_array().expect("a report has keys");
    keys.iter().find(|key| key["key"] == name).unwrap_or_else(|| panic!("{name} in {report}"))
}

#[track_caller]
pub fn advice(report: &Value) -> &str {
    report["advice"].as_str().expect("a report has advice")
}

pub fn named(account: &str, name: &str) -> Value {
    json!({"system_account_id": account, "index_name": name})
}
