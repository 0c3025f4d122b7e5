//! Payloads: what is accepted, what is refused, and the answer to every sample event.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::helpers::*;

/// The answer to a sample event, if the table and KV have acct1/main and acct1's query configs.
enum Expected {
    /// A batch, with these counts: exported, skipped, rejected.
    Batch([u64; 3]),
    /// What a report says in these places.
    Says(Vec<(&'static str, Value)>),
    Error(&'static str),
}

fn expectations() -> BTreeMap<&'static str, Expected> {
    use Expected::{Batch, Error, Says};
    let exported = |query_configs: u64| {
        let report = json!({
            "system_account_id": "acct1",
            "index_name": "main",
            "outcome": "exported",
            "settings_keys": ["acme-outdoor.myshopify.com", "acct1-main"],
            "query_configs": {"exported": query_configs, "rejected": 0},
        });
        Says(vec![("", report)])
    };
    let explained = || {
        let keys = ["/keys/0/verdict", "/keys/1/verdict"].map(|place| (place, json!("right")));
        let index = [("/index_name", json!("main")), ("/item", json!("exportable"))];
        Says(index.into_iter().chain(keys).collect())
    };
    let reconciled = |applies: bool, desired: u32, written: u32| {
        Says(vec![
            ("/apply", json!(applies)),
            ("/complete", json!(true)),
            ("/settings/desired", json!(desired)),
            ("/settings/written", json!(written)),
        ])
    };
    let breaks = json!(["the alias target acct1-v2 has neither an item nor a key in KV"]);
    BTreeMap::from([
        ("explain-account.json", Says(vec![("/indexes/0/item", json!("exportable"))])),
        ("explain-index.json", explained()),
        ("explain-item.json", Says(vec![("/breaks", breaks)])),
        ("explain-key.json", explained()),
        ("explain-removed-item.json", Says(vec![("/item", json!("absent"))])),
        ("explain-values.json", explained()),
        ("re-export-with-query-configs.json", exported(2)),
        ("re-export.json", exported(0)),
        ("reconcile-account.json", reconciled(false, 2, 0)),
        ("reconcile-audit.json", reconciled(false, 2, 0)),
        ("reconcile-repair.json", reconciled(true, 2, 0)),
        ("stream-alias-off.json", Batch([1, 0, 0])),
        ("stream-insert.json", Batch([1, 0, 0])),
        ("stream-legacy-alias.json", Batch([1, 0, 0])),
        ("stream-malformed-record.json", Batch([1, 0, 1])),
        ("stream-mixed-batch.json", Batch([4, 1, 1])),
        ("stream-modify.json", Batch([1, 0, 0])),
        ("stream-query-config-remove.json", Batch([1, 0, 0])),
        ("stream-query-config.json", Batch([2, 0, 0])),
        ("stream-remove-with-old-image.json", Batch([1, 0, 0])),
        ("stream-remove.json", Batch([1, 0, 0])),
        ("stream-ttl-remove.json", Batch([1, 0, 0])),
        ("unknown-payload.json", Error("InvalidPayload")),
    ])
}

/// Puts what the sample events assume into the table and KV.
async fn sample_world() -> World {
    let world = World::start().await;
    for file in ["stream-insert.json", "stream-query-config.json"] {
        for record in sample_event(file)["Records"].as_array().unwrap() {
            world.stack.table.put_item(&record["dynamodb"]["NewImage"]);
        }
    }
    world.settled_with([]).await;
    world
}

#[tokio::test]
async fn every_sample_event_gets_its_answer() {
    let world = sample_world().await;
    for (file, expected) in expectations() {
        let answered = world.handle(&sample_event(file)).await;
        match expected {
            Expected::Batch(counts) => {
                assert_eq!(answered.failures(), NOTHING, "{file}");
                let names = ["RecordsExported", "RecordsSkipped", "RecordsRejected"];
                assert_eq!(names.map(|name| answered.counted(name)), counts, "{file}");
            }
            Expected::Says(said) => {
                for (place, said) in said {
                    assert_eq!(answered.ok().pointer(place), Some(&said), "{file} at {place}");
                }
            }
            Expected::Error(kind) => assert_eq!(answered.error().kind, kind, "{file}"),
        }
    }
}

#[test]
fn every_file_among_the_sample_events_is_tested() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/events");
    let entries = std::fs::read_dir(directory).unwrap();
    let mut files: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    files.sort();

    assert_eq!(files, expectations().into_keys().collect::<Vec<_>>());
}

#[tokio::test]
async fn a_payload_that_is_not_taken_reads_and_writes_nothing_and_says_what_is_wrong() {
    let world = sample_world().await;
    let refused = [
        // The unit tests have a row for each rule.
        (json!({"Records": {}}), "Records"),
        (json!({"system_account_id": "acct1", "index_name": 1}), "index_name"),
        (repair_with(json!({"preview": true})), "preview"),
        (json!({"explain": {"key": "a-i", "apply": true}}), "apply"),
        (sample_event("unknown-payload.json"), "include_queries"),
    ];
    for (payload, says) in refused {
        let answered = world.handle(&payload).await;

        let LambdaError { kind, message } = answered.error();
        assert_eq!(kind, "InvalidPayload", "{payload}");
        assert!(message.contains(says), "{payload}: {message}");
        for taken in ["Records", "include_query_configs", "reconcile", "explain"] {
            assert!(message.contains(taken), "{message}");
        }
    }
    assert!(world.stack.kv.log().is_empty() && world.stack.table.log().is_empty());
}
