//! Payloads: what is accepted, what is refused, and the answer to every sample event.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::helpers::*;

/// The answer to a sample event, if the table and KV have acct1/main, acct1's query configs and
/// acct2/outlet.
enum Expected {
    /// A batch, with these counts: exported, superseded, skipped, rejected.
    Batch([u64; 4]),
    /// A report with these fields.
    Report(Value),
    Error(&'static str),
    /// A reconcile's answer, which has tests of its own.
    Reconcile,
    /// An explanation of acct1/main, which KV holds as the table has it.
    Explained,
}

fn expectations() -> BTreeMap<&'static str, Expected> {
    use Expected::{Batch, Error, Explained, Reconcile, Report};
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
        ("explain-index.json", Explained),
        ("explain-key.json", Explained),
        ("re-export-with-query-configs.json", report(2)),
        ("re-export.json", report(0)),
        ("reconcile-account.json", Reconcile),
        ("reconcile-audit.json", Reconcile),
        ("reconcile-repair.json", Reconcile),
        ("stream-alias-off.json", Batch([1, 0, 0, 0])),
        ("stream-insert.json", Batch([1, 0, 0, 0])),
        ("stream-legacy-alias.json", Batch([1, 0, 0, 0])),
        ("stream-malformed-record.json", Batch([1, 0, 0, 1])),
        ("stream-mixed-batch.json", Batch([3, 1, 1, 1])),
        ("stream-modify.json", Batch([1, 0, 0, 0])),
        ("stream-query-config-remove.json", Batch([1, 0, 0, 0])),
        ("stream-query-config.json", Batch([2, 0, 0, 0])),
        ("stream-remove-with-old-image.json", Batch([1, 0, 0, 0])),
        ("stream-remove.json", Batch([1, 0, 0, 0])),
        ("stream-ttl-remove.json", Batch([1, 0, 0, 0])),
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
            Expected::Batch([exported, superseded, skipped, rejected]) => {
                assert_eq!(answered.failures(), NOTHING, "{file}");
                let counts = answered.stats.clone();
                let found = [counts.exported, counts.superseded, counts.skipped, counts.rejected];
                assert_eq!(found, [exported, superseded, skipped, rejected], "{file}");
                assert_eq!(counts.records, found.iter().sum::<u64>(), "{file}");
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

/// The times of the records that `make invoke` sends of a sample event, with a cargo that prints them.
fn times_sent(file: &str, late: &str) -> Vec<Value> {
    let programs = Path::new(env!("CARGO_TARGET_TMPDIR")).join("make-invoke");
    std::fs::create_dir_all(&programs).unwrap();
    for program in ["cargo", "cargo-lambda"].map(|name| programs.join(name)) {
        std::fs::write(&program, "#!/bin/sh\nwhile [ $# -gt 1 ]; do shift; done; cat \"$1\"\n")
            .unwrap();
        std::fs::set_permissions(&program, Permissions::from_mode(0o755)).unwrap();
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "make finds its other programs where the test does"
    )]
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let made = Command::new("make")
        .args(["-s", "invoke", &format!("EVENT=events/{file}"), &format!("LATE={late}")])
        .env("PATH", path)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let mut event: Value = serde_json::from_slice(&made.stdout).unwrap();
    let records = event["Records"].as_array_mut().unwrap().iter_mut();
    records.map(|record| record["dynamodb"]["ApproximateCreationDateTime"].take()).collect()
}

#[test]
fn make_invoke_sends_records_of_just_now_or_late_ones() {
    for file in expectations().into_keys().filter(|file| file.starts_with("stream-")) {
        for (late, age) in [("", 0), ("true", 120)] {
            let sent = now() as i64 - age;
            let times = times_sent(file, late);
            assert!(!times.is_empty());
            for time in times {
                let time = time.as_i64().unwrap();
                assert!((sent..sent + 20).contains(&time), "{file}: {time}");
            }
        }
    }
}

#[tokio::test]
async fn a_payload_that_is_not_taken_reads_and_writes_nothing_and_says_what_is_wrong() {
    let world = sample_world().await;
    let refused = [
        // The unit tests have a row for each rule.
        (json!({"Records": {}}), "Records must be a list"),
        (json!({"system_account_id": "acct1", "index_name": 1}), "index_name must be a string"),
        (json!({"reconcile": {"preview": 1}}), "preview must be true or false"),
        (repair_with(json!({"preview": true})), "preview"),
        (json!({"explain": {"key": "a-i", "apply": true}}), "unknown field \"apply\" in explain"),
        (sample_event("unknown-payload.json"), "unknown field \"include_queries\""),
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
    assert_eq!(world.stack.kv.log().len(), 0);
    assert_eq!(world.stack.table.log().len(), 0);
    assert_eq!(world.stack.api_keys.log().len(), 0);
}

#[tokio::test]
async fn records_of_another_event_source_are_refused_whole() {
    let world = World::start().await;
    let mut stranger = written(2, &index("a", "i"));
    stranger["eventSource"] = json!("aws:sqs");

    let answered = world.batch([written(1, &index("a", "j")), stranger]).await;

    assert_eq!(answered.error().kind, "InvalidPayload");
    assert_eq!(world.stack.kv.log().len(), 0);
}
