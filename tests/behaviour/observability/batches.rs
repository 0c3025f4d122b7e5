//! Batches of the stream.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::lambda::{Function, Invocation};
use testbed::stack::DEFAULT_CELL;
use testbed::stream::event;

use super::lines::{fields, story};
use crate::helpers::*;
use crate::printed::{DURATIONS, Printed};
use crate::process;

async fn batch(function: &Function, records: impl IntoIterator<Item = Value>) -> Invocation {
    process::invoke(function, &event(records)).await
}

#[tokio::test]
async fn a_good_batch_is_one_line_and_its_metrics() {
    let (_stack, function) = process::start().await;

    let first = batch(
        &function,
        [
            written(1, &index_with("a", "i", json!({"pixel_id": "old"}))),
            written(2, &shop("a", "i", "s.example")),
            written(3, &query_config("a", "i", "q", 1)),
            written(4, &json!({"pk": "a", "sk": "INDEX#DEFAULT_CONFIG"})),
        ],
    )
    .await;
    let second = batch(&function, [written(5, &index("a", "i"))]).await;

    let printed = Printed::by(&first);
    assert_eq!(printed.lines.len(), 1, "{:?}", printed.lines);
    let line = printed.invocation();
    assert_eq!(
        fields(line, &["level", "source", "outcome"]),
        json!({"level": "INFO", "source": "stream", "outcome": "ok"})
    );
    assert_eq!(line["span"]["requestId"], first.request_id.as_str(), "{line}");
    assert_eq!(
        story(&printed),
        json!({
            "records": 4, "exported": 2, "superseded": 1, "skipped": 1, "settings_written": 2,
            "query_configs_written": 1, "kv_requests": 2, "kv_requests_unpaced": 2, "api_keys_requests": 1,
            "secrets_requests": 1,
        })
    );
    for duration in [
        "settings_lag_ms",
        "query_config_lag_ms",
        "duration_ms",
        "kv_ms",
        "api_keys_ms",
        "table_ms",
        "secrets_ms",
    ] {
        assert!(line[duration].is_u64(), "{duration} in {line}");
    }
    let counts = [
        ("CloudflareKvRequests", 2.0),
        ("CloudflareKvRequestsUnpaced", 2.0),
        ("ColdStarts", 1.0),
        ("QueryConfigKeysWritten", 1.0),
        ("RecordsExported", 2.0),
        ("RecordsSkipped", 1.0),
        ("RecordsSuperseded", 1.0),
        ("SettingsKeysWritten", 2.0),
    ];
    assert_eq!(printed.counts(), BTreeMap::from(counts));
    let timed = |printed: &Printed| -> BTreeSet<String> {
        let names = printed.metrics.keys().filter(|name| DURATIONS.contains(&name.as_str()));
        names.cloned().collect()
    };
    let names = |names: &[&str]| -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    };
    let services = ["ApiKeysDuration", "CloudflareKvDuration", "SettingsLag"];
    let more = names(&["QueryConfigLag", "SecretsManagerDuration"]);
    assert_eq!(timed(&printed), &names(&services) | &more);

    let printed = Printed::by(&second);
    assert!(!printed.metrics.contains_key("ColdStarts"), "once a process");
    assert_eq!(timed(&printed), names(&services));
    function.stop().await;
    let third = batch(&function, [written(6, &index("a", "i"))]).await;
    assert_eq!(Printed::by(&third).counts()["ColdStarts"], 1.0, "and again in the next one");
}

#[tokio::test]
async fn a_mixed_batch_has_a_line_for_each_record_that_failed_or_was_rejected() {
    let stack = process::stack().await;
    stack.api_keys.remove("keyless");
    stack.api_keys.break_cell("down", Fault::status(503));
    let function = process::function(&stack, &[]).await;
    let records = [
        written(1, &shop("a", "good", "s.example")),
        written(2, &broken("a", "broken")),
        written(3, &index("keyless", "i")),
        written(4, &in_cell("b", "i", "down")),
        json!({"eventSource": "aws:dynamodb", "dynamodb": {"SequenceNumber": "5"}}),
        written(6, &query_config("a", "good", "q", 1)),
    ];

    let invocation = batch(&function, records).await;

    assert_eq!(
        *invocation.result.as_ref().unwrap(),
        json!({"batchItemFailures": [{"itemIdentifier": "4"}]})
    );
    let printed = Printed::by(&invocation);
    let names = ["sequence_number", "system_account_id", "index_name", "path"];
    let rejected: Vec<Value> =
        printed.with("record rejected").iter().map(|line| fields(line, &names)).collect();
    assert_eq!(
        rejected,
        [
            json!({"sequence_number": "2", "system_account_id": "a", "index_name": "broken", "path": "index_endpoint"}),
            json!({"sequence_number": "3", "system_account_id": "keyless", "index_name": "i", "path": "system_account_id"}),
            json!({"sequence_number": "5", "system_account_id": null, "index_name": null, "path": rejected[2]["path"]}),
        ]
    );
    let [failed] = printed.with("record failed")[..] else { panic!("{:?}", printed.lines) };
    assert_eq!(
        fields(failed, &["sequence_number", "system_account_id", "index_name", "cell"]),
        json!({"sequence_number": "4", "system_account_id": "b", "index_name": "i", "cell": "down"})
    );
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("API keys service") && error.contains("503"), "{error}");
    assert!(printed.with("record rejected").iter().all(|line| line["error"].is_string()));
    assert_eq!(printed.at("ERROR").len(), 4, "{:?}", printed.lines);
    assert_eq!(printed.lines.len(), 1 + 4, "{:?}", printed.lines);
    assert_eq!(
        story(&printed),
        json!({
            "records": 6, "exported": 2, "failed": 1, "rejected": 3, "settings_written": 2,
            "query_configs_written": 1, "kv_requests": 3, "kv_requests_unpaced": 3, "api_keys_requests": 6,
            "api_keys_retries": 3, "secrets_requests": 1,
        })
    );
    let counts = printed.counts();
    assert_eq!((counts["RecordsFailed"], counts["RecordsRejected"]), (1.0, 3.0));
    assert_eq!(counts["ApiKeysRetries"], 3.0);
}

#[tokio::test]
async fn every_record_has_its_own_lag_and_settings_are_apart_from_query_configs() {
    let (_stack, function) = process::start().await;
    let aged = |mut record: Value, seconds: u64| {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        record["dynamodb"]["ApproximateCreationDateTime"] = json!(now - seconds);
        record
    };
    let settings = [(1, 40), (2, 2), (3, 2)]
        .map(|(number, age)| aged(written(number, &index("a", &format!("i{number}"))), age));
    let config = aged(written(4, &query_config("a", "i1", "q", 1)), 20);

    let printed = Printed::by(&batch(&function, settings.into_iter().chain([config])).await);

    let seconds = |name: &str| -> Vec<u64> {
        let values = match &printed.metrics[name] {
            Value::Array(values) => values.clone(),
            value => vec![value.clone()],
        };
        values.iter().map(|millis| (millis.as_f64().unwrap() / 10_000.0) as u64).collect()
    };
    assert_eq!(seconds("SettingsLag"), [0, 0, 4], "tens of seconds");
    assert_eq!(seconds("QueryConfigLag"), [2]);
    assert!(printed.invocation()["settings_lag_ms"].as_u64().unwrap() >= 40_000, "the longest");
}

#[tokio::test]
async fn a_broken_query_config_is_named_by_its_query() {
    let (_stack, function) = process::start().await;
    let mut record = written(1, &query_config("a", "i", "red shoes", 1));
    record["dynamodb"]["NewImage"]["limit"] = json!({"N": "no number"});

    let printed = Printed::by(&batch(&function, [record]).await);

    let [line] = printed.with("record rejected")[..] else { panic!("{:?}", printed.lines) };
    assert_eq!(
        fields(line, &["system_account_id", "index_name", "normalized_query", "path"]),
        json!({
            "system_account_id": "a", "index_name": "i", "normalized_query": "red shoes",
            "path": "limit",
        })
    );
}

#[tokio::test]
async fn an_outage_of_kv_names_each_record_once_with_the_whole_chain() {
    let stack = process::stack().await;
    stack.kv.faults().add(Rule::any(Fault::status(503)).forever());
    let function = process::function(&stack, &[]).await;

    let records = [
        written(1, &index("a", "i")),
        written(2, &index("b", "i")),
        written(3, &query_config("a", "i", "q", 1)),
    ];
    let invocation = batch(&function, records).await;

    let printed = Printed::by(&invocation);
    let failed = printed.with("record failed");
    let numbers: Vec<&str> =
        failed.iter().map(|line| line["sequence_number"].as_str().unwrap()).collect();
    assert_eq!(numbers, ["1", "2", "3"]);
    for line in &failed {
        let error = line["error"].as_str().unwrap();
        assert!(error.contains("Cloudflare KV") && error.contains("503"), "{error}");
    }
    assert_eq!(printed.lines.len(), 1 + 3, "{:?}", printed.lines);
    let counts = [
        ("CloudflareKvRequests", 8.0),
        ("CloudflareKvRequestsUnpaced", 8.0),
        ("CloudflareKvRetries", 6.0),
        ("ColdStarts", 1.0),
        ("RecordsFailed", 3.0),
    ];
    assert_eq!(printed.counts(), BTreeMap::from(counts));
    assert_eq!(printed.invocation()["kv_requests"], 8);
}

#[tokio::test]
async fn a_gateway_that_hangs_shows_as_reused_keys_and_failed_records() {
    let stack = process::stack().await;
    let function = process::function(&stack, &[("HTTP_TIMEOUT_MS", "600")]).await;
    batch(&function, [written(1, &index("a", "known"))]).await;
    stack.api_keys.faults().add(Rule::any(Fault::Hang).forever());

    let changed = index_with("a", "known", json!({"pixel_id": "new"}));
    let invocation = batch(&function, [written(2, &changed), written(3, &index("a", "new"))]).await;

    let printed = Printed::by(&invocation);
    let counts = printed.counts();
    assert_eq!((counts["ApiKeysReused"], counts["RecordsFailed"]), (1.0, 1.0));
    let [warning] = printed.at("WARN")[..] else { panic!("{:?}", printed.lines) };
    assert_eq!(
        fields(warning, &["system_account_id", "index_name", "cell"]),
        json!({"system_account_id": "a", "index_name": "known", "cell": DEFAULT_CELL})
    );
    assert_eq!(printed.with("record failed").len(), 1);
    assert_eq!(printed.lines.len(), 3, "{:?}", printed.lines);
    assert_eq!(printed.invocation()["api_keys_reused"], 1);
}

#[tokio::test]
async fn removals_that_are_withheld_or_done_are_counted() {
    let (stack, function) = process::start().await;
    let records = [
        written(1, &index("a", "kept")),
        written(2, &shop("a", "gone", "gone.example")),
        written(3, &query_config("a", "gone", "q", 1)),
    ];
    batch(&function, records).await;
    stack.table.put(&pointing("a", "live", "a-kept"));

    let invocation = batch(
        &function,
        [
            removed(4, "a", "INDEX#kept"),
            removed(5, "a", "INDEX#gone"),
            removed(6, "a", "INDEX#gone#QUERY#q"),
        ],
    )
    .await;

    let printed = Printed::by(&invocation);
    let requests = printed.invocation()["kv_requests"].as_f64().unwrap();
    let counts = [
        ("CloudflareKvRequests", requests),
        ("CloudflareKvRequestsUnpaced", requests),
        ("DeletesWithheld", 1.0),
        ("QueryConfigKeysDeleted", 1.0),
        ("RecordsExported", 3.0),
        ("SettingsKeysDeleted", 2.0),
    ];
    assert_eq!(printed.counts(), BTreeMap::from(counts));
    assert!(printed.metrics.contains_key("SettingsTableDuration"));
    let [warning] = printed.at("WARN")[..] else { panic!("{:?}", printed.lines) };
    assert_eq!(
        fields(warning, &["key", "pointers"]),
        json!({"key": "a-kept", "pointers": "a/live"})
    );
}
