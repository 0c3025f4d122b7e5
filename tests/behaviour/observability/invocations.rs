//! The lines and the metrics of an invocation.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use testbed::faults::Fault;
use testbed::lambda::Function;
use testbed::stack::{DEFAULT_CELL, SETTINGS};
use testbed::stream::event;
use testbed::table::to_item;

use crate::helpers::*;
use crate::printed::{DURATIONS, Printed};
use crate::process;

async fn batch(function: &Function, records: impl IntoIterator<Item = Value>) -> Printed {
    Printed::by(&process::invoke(function, &event(records)).await)
}

fn fields<const N: usize>(line: &Value, names: [&str; N]) -> [Value; N] {
    names.map(|name| line[name].clone())
}

#[tokio::test]
async fn a_good_batch_is_one_line_and_its_metrics() {
    let (_stack, function) = process::start().await;
    let records = [
        written(1, &index_with("a", "i", json!({"pixel_id": "old"}))),
        written(2, &shop("a", "i", "s.example")),
        written(3, &query_config("a", "i", "q", 1)),
        written(4, &json!({"pk": "a", "sk": "INDEX#DEFAULT_CONFIG"})),
    ];

    let invocation = process::invoke(&function, &event(records)).await;
    let second = batch(&function, [written(5, &index("a", "i"))]).await;

    let printed = Printed::by(&invocation);
    assert_eq!(printed.lines.len(), 1, "{:?}", printed.lines);
    let line = printed.invocation();
    assert_eq!(fields(line, ["level", "source", "outcome"]), ["INFO", "stream", "ok"]);
    assert_eq!(line["span"]["requestId"], invocation.request_id.as_str(), "{line}");
    let counted = ["records", "exported", "skipped", "settings_written", "query_configs_written"];
    assert_eq!(fields(line, counted), [4, 3, 1, 2, 1]);
    for duration in [
        "settings_lag_ms",
        "query_config_lag_ms",
        "duration_ms",
        "kv_ms",
        "api_keys_ms",
        "table_ms",
    ] {
        assert!(line[duration].is_u64(), "{duration} in {line}");
    }
    let counts = [
        ("CloudflareKvRequests", 2.0),
        ("ColdStarts", 1.0),
        ("QueryConfigKeysWritten", 1.0),
        ("RecordsExported", 3.0),
        ("RecordsSkipped", 1.0),
        ("SettingsKeysWritten", 2.0),
    ];
    assert_eq!(printed.counts(), BTreeMap::from(counts));
    assert!(
        DURATIONS.iter().all(|name| printed.metrics.contains_key(*name)),
        "{:?}",
        printed.metrics
    );
    assert!(!second.metrics.contains_key("ColdStarts"), "once a process");
    assert!(!second.metrics.contains_key("QueryConfigLag"));
}

#[tokio::test]
async fn each_record_that_failed_or_was_rejected_has_a_line_that_names_it() {
    let stack = process::stack().await;
    stack.api_keys.break_cell("down", Fault::status(503));
    let function = process::function(&stack, &[]).await;
    let mut config = written(4, &query_config("a", "i", "red shoes", 1));
    config["dynamodb"]["NewImage"]["limit"] = json!({"N": "no number"});
    let records = [
        written(1, &shop("a", "good", "s.example")),
        written(2, &broken("a", "broken")),
        written(3, &in_cell("b", "i", "down")),
        config,
        json!({"eventSource": "aws:dynamodb", "dynamodb": {"SequenceNumber": "5"}}),
    ];

    let printed = batch(&function, records).await;

    let names = ["sequence_number", "system_account_id", "index_name", "normalized_query", "path"];
    let rejected: Vec<[Value; 5]> =
        printed.with("record rejected").iter().map(|line| fields(line, names)).collect();
    let nothing = Value::Null;
    assert_eq!(rejected.len(), 3, "{:?}", printed.lines);
    assert_eq!(
        rejected[0],
        [json!("2"), json!("a"), json!("broken"), nothing, json!("index_endpoint")]
    );
    assert_eq!(rejected[1], ["4", "a", "i", "red shoes", "limit"]);
    assert_eq!(rejected[2][0], "5");
    let [failed] = printed.with("record failed")[..] else { panic!("{:?}", printed.lines) };
    let told = fields(failed, ["sequence_number", "system_account_id", "index_name", "cell"]);
    assert_eq!(told, ["3", "b", "i", "down"]);
    let error = failed["error"].as_str().unwrap();
    assert!(error.contains("API keys service") && error.contains("503"), "{error}");
    assert_eq!(printed.lines.len(), 1 + 4, "{:?}", printed.lines);
    let counts = printed.counts();
    assert_eq!((counts["RecordsFailed"], counts["RecordsRejected"]), (1.0, 3.0));
    assert_eq!(counts["ApiKeysRetries"], 3.0);
}

#[tokio::test]
async fn an_invocation_that_fails_has_an_error_line_with_the_whole_message() {
    let (_stack, function) = process::start().await;
    for (payload, kind, source) in [
        (re_export("a", "missing"), "IndexNotFound", "re-export"),
        (json!({"anything": "else"}), "InvalidPayload", "invalid"),
    ] {
        let invocation = process::invoke(&function, &payload).await;
        let failure = invocation.result.as_ref().unwrap_err();
        let printed = Printed::by(&invocation);
        assert_eq!(fields(printed.invocation(), ["source", "outcome"]), [source, kind]);
        let [failed] = printed.at("ERROR")[..] else { panic!("once: {:?}", printed.lines) };
        let told = fields(failed, ["message", "error_type", "error"]);
        assert_eq!(told, ["invocation failed", kind, &failure.error_message]);
        assert_eq!(printed.lines.len(), 2, "{:?}", printed.lines);
    }
}

#[tokio::test]
async fn a_reconcile_reports_its_findings_also_where_there_are_none_and_a_failed_one_reports_none()
{
    let stack = process::stack().await;
    let item = index_with("a", "i", json!({"shop_id": "s.example", "read_alias": "z-gone"}));
    stack.table.load([to_item(&item), to_item(&query_config("a", "i", "q", 1))]);
    let function = process::function(&stack, &[]).await;
    let run = async |payload: Value| Printed::by(&process::invoke(&function, &payload).await);

    for (payload, missing) in [(audit(), 3), (repair(), 3), (audit(), 0)] {
        let printed = run(payload.clone()).await;
        let counts = printed.counts();
        let names =
            ["DriftedKeys", "KeysMissing", "KeysDesired", "DanglingAliases", "ItemsRejected"];
        let expected = [f64::from(missing), f64::from(missing), 3.0, 1.0, 0.0];
        assert_eq!(names.map(|name| counts[name]), expected, "{payload}");
        let line = printed.invocation();
        let told = fields(line, ["source", "complete", "missing", "stale", "orphaned"]);
        assert_eq!(told, [json!("reconcile"), json!(true), json!(missing), json!(0), json!(0)]);
        let [warning] = printed.at("WARN")[..] else { panic!("{:?}", printed.lines) };
        assert!(warning["examples"].to_string().contains("z-gone"), "{warning}");
        assert_eq!(printed.lines.len(), 2, "{:?}", printed.lines);
    }

    stack.api_keys.break_cell(DEFAULT_CELL, Fault::status(403));
    stack.kv.delete(SETTINGS, "a-i");
    let unjudged = run(audit()).await;
    assert_eq!(unjudged.counts()["ReconcileKeysFailed"], 2.0);
    assert_eq!(unjudged.invocation()["keys_failed"], 2);

    stack.kv.faults().add(listings(Fault::status(500)).forever());
    let failed = run(audit()).await;
    for name in ["DriftedKeys", "ReconcileKeysFailed"] {
        assert!(!failed.metrics.contains_key(name), "{name} is not known");
    }
    assert_eq!(failed.invocation()["outcome"], "ReconcileIncomplete");
    assert_eq!(failed.at("ERROR").len(), 1, "{:?}", failed.lines);
}
