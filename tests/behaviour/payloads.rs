//! Payloads: what is accepted, what is refused, and the answer to every sample event.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::helpers::*;

/// The answer to a sample event, if the table and KV have acct1/main, acct1's query configs and
/// acct2/outlet.
enum Expected {
    /// A batch, with these counts: exported, skipped, rejected.
    Batch([u64; 3]),
    /// A report with these fields.
    Report(Value),
    Error(&'static str),
    /// A reconcile's answer, which has tests of its own.
    Reconcile,
    /// An explanation of acct1/main, which KV holds as the table has it.
    Explained,
    /// What a report says in a place.
    Says(&'static str, Value),
}

fn expectations() -> BTreeMap<&'static str, Expected> {
    use Expected::{Batch, Error, Explained, Reconcile, Report, Says};
    let report = |query_configs: u64| {
        Report(json!({
            "system_account_id": "acct1",
            "index_name": "main",
            "outcome": "exported",
            "settings_keys": ["acme-outdoor.myshopify.com", "acct1-main"],
            "query_configs": {"exported": query_configs, "rejected": 0},
        }))
    };
    BTreeMap::from([
        ("explain-account.json", Says("/indexes/0/item", json!("exportable"))),
        ("explain-index.json", Explained),
        (
            "explain-item.json",
            Says(
                "/breaks",
                json!(["the alias target acct1-v2 has neither an item nor a key in KV"]),
            ),
        ),
        ("explain-key.json", Explained),
        ("explain-removed-item.json", Says("/item", json!("absent"))),
        ("explain-values.json", Explained),
        ("re-export-with-query-configs.json", report(2)),
        ("re-export.json", report(0)),
        ("reconcile-account.json", Reconcile),
        ("reconcile-audit.json", Reconcile),
        ("reconcile-repair.json", Reconcile),
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
            Expected::Says(place, said) => {
                assert_eq!(answered.ok().pointer(place), Some(&said), "{file}");
            }
            Expected::Report(report) => assert_eq!(*answered.ok(), report, "{file}"),
            Expected::Error(kind) => assert_eq!(answered.error().kind, kind, "{file}"),
            Expected::Explained => {
                let report = answered.ok();
                assert_eq!(report["index_name"], "main", "{file}");
                assert_eq!(report["item"], "exportable", "{file}");
                let keys = report["keys"].as_array().unwrap();
                assert!(keys.iter().all(|key| key["verdict"] == "right"), "{file}: {report}");
                assert_eq!(keys.len(), 2, "{file}");
            }
            Expected::Reconcile => {
                let kind = answered.result.as_ref().err().map(|error| error.kind.as_str());
                assert_ne!(kind, Some("InvalidPayload"), "{file}");
            }
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
