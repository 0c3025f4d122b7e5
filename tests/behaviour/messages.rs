//! What an error says: the cause, what KV may hold, and nothing that is not known.

use serde_json::json;
use testbed::faults::{Fault, Rule};
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use crate::helpers::*;

const OLDER_VERSION: &str = "KV may hold an older version";

#[tokio::test]
async fn a_refusal_after_the_first_write_says_what_kv_may_hold() {
    let world = World::start().await;
    world.stack.table.put(&index("a", "i"));
    world.stack.table.put(&query_config("a", "i", "q", 1));
    let query_configs = format!("/{QUERY_CONFIGS}/bulk");
    world.stack.kv.faults().add(Rule::on("PUT", query_configs, Fault::status(403)).forever());

    let payload =
        json!({"system_account_id": "a", "index_name": "i", "include_query_configs": true});
    let answered = world.handle(&payload).await;

    assert!(world.setting("a-i").is_some(), "the settings were written before");
    assert_eq!(answered.error().kind, "CloudflareAuthRejected");
    let message = &answered.error().message;
    assert!(message.contains(OLDER_VERSION), "{message}");
}

#[tokio::test]
async fn a_refusal_of_the_first_write_says_nothing_of_an_older_version() {
    let world = World::start().await;
    world.stack.table.put(&index("a", "i"));
    world.stack.kv.faults().add(Rule::any(Fault::status(403)).forever());

    let answered = world.handle(&json!({"system_account_id": "a", "index_name": "i"})).await;

    assert_eq!(answered.error().kind, "CloudflareAuthRejected");
    let message = &answered.error().message;
    assert!(!message.contains(OLDER_VERSION), "{message}");
}

#[tokio::test]
async fn a_refusal_within_settling_is_a_refusal() {
    let world = World::start().await;
    world.stack.table.put(&shop("a", "i", "old.example"));
    let table = world.stack.table.clone();
    let moves = Fault::before(move || table.put(&shop("a", "i", "new.example")));
    let kv = world.stack.kv.faults();
    kv.add(Rule::on("PUT", format!("/{SETTINGS}/bulk"), moves));
    kv.add(Rule::on("POST", "/bulk/get", Fault::status(403)).forever());

    let answered = world.handle(&json!({"system_account_id": "a", "index_name": "i"})).await;

    assert_eq!(answered.error().kind, "CloudflareAuthRejected");
    let message = &answered.error().message;
    assert!(message.contains(OLDER_VERSION), "{message}");
}

#[tokio::test]
async fn kv_that_cannot_be_read_is_not_said_to_hold_no_api_key() {
    let world = World::start().await;
    world.stack.api_keys.break_cell(testbed::stack::DEFAULT_CELL, Fault::status(503));
    world.stack.kv.faults().add(Rule::on("POST", "/bulk/get", Fault::status(500)).forever());

    let answered = world.batch([written(1, &index("a", "i"))]).await;

    assert_eq!(answered.failures(), ["1"]);
    let lines = world.logs.of("record failed");
    let error = lines[0]["error"].as_str().unwrap();
    assert!(!error.contains("holds no settings"), "{error}");
    assert!(error.contains("status 503") && error.contains("status 500"), "{error}");
    assert!(!world.stack.kv.log_of(KvVerb::GetBulk).is_empty());
}

#[tokio::test]
async fn an_alias_whose_target_could_not_be_looked_up_does_not_dangle() {
    let world = World::start().await;
    let pointing = index_with("a", "i", json!({"read_alias": "b-elsewhere"}));
    world.settled_with([pointing]).await;
    let down = Rule::on("POST", "/settings/bulk/get", Fault::status(503));
    world.stack.kv.faults().add(down.forever());

    let answered = world.handle(&json!({"reconcile": {"system_account_id": "a"}})).await;

    let report = answered.ok();
    assert_eq!(report["settings"]["dangling"], 0, "{report}");
    let stopped = report["stopped"].as_str().unwrap();
    assert!(stopped.contains("dangling aliases could not be looked up"), "{stopped}");
}
