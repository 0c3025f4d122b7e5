//! What the tests ask, and how they read the answer.

use serde_json::{Value, json};

use crate::helpers::*;

/// The report of an explain, which has to leave KV as it was.
pub async fn asked(world: &World, payload: &Value) -> Value {
    let before = world.snapshots();
    let report = world.report(payload).await;
    assert_eq!(world.snapshots(), before, "{payload}");
    assert!(world.stack.kv.log().iter().all(|request| !request.verb.writes()), "{payload}");
    report
}

/// The payload that tries an item, with values.
pub fn trying(item: &Value) -> Value {
    json!({"explain": {"item": testbed::table::to_item(item), "values": true}})
}

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

pub fn named(account: &str, name: &str) -> Value {
    json!({"system_account_id": account, "index_name": name})
}
