//! `make reconcile`, `make follow` and `make stop-reconciles`.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use testbed::http::{Reply, Server};

use crate::desk::{Desk, outputs};

/// A stack whose execution has this history.
fn desk(events: &[Value]) -> Desk {
    outputs("prod")
        .answers("aws stepfunctions start-execution *", r#"{"executionArn": "arn:execution"}"#)
        .answers(
            "aws stepfunctions get-execution-history --execution-arn arn:execution *",
            json!({"events": events}).to_string(),
        )
        .answers(
            "aws stepfunctions list-executions --state-machine-arn arn:machine *",
            r#"{"executions": [{"executionArn": "arn:execution"}, {"executionArn": "arn:2"}]}"#,
        )
        .answers("aws stepfunctions stop-execution *", "")
}

fn report(listed: u64, more: Value) -> Value {
    let counts = |listed| json!({"listed": listed, "missing": 0, "written": 2, "deleted": 1});
    let mut report = json!({
        "apply": true, "complete": true, "settings": counts(listed), "query_configs": counts(0),
        "examples": {},
    });
    report.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    report
}

fn ran(report: &Value) -> Value {
    let output = json!({"ExecutedVersion": "1", "Payload": report}).to_string();
    json!({"type": "TaskSucceeded", "taskSucceededEventDetails": {"output": output}})
}

fn goes_on(listed: u64) -> Value {
    ran(&report(listed, json!({"complete": false, "stopped": "time", "continue": "there"})))
}

fn failed(kind: &str, details: &str) -> Value {
    let cause = json!({"errorType": "CloudflareAuthRejected", "errorMessage": "why it failed"});
    let error = json!({"error": "CloudflareAuthRejected", "cause": cause.to_string()});
    json!({"type": kind, details: error})
}

fn succeeded(report: &Value) -> Value {
    let output = json!({"output": report.to_string()});
    json!({"type": "ExecutionSucceeded", "executionSucceededEventDetails": output})
}

#[test]
fn a_reconcile_is_followed_to_its_end_and_its_runs_are_added_up() {
    let last = report(30, json!({}));
    let desk = desk(&[
        goes_on(1000),
        failed("TaskFailed", "taskFailedEventDetails"),
        goes_on(200),
        ran(&last),
        succeeded(&last),
    ]);

    let made =
        desk.make(&["reconcile", "APPLY=true", "DELETE_UP_TO=7", "REWRITE_UP_TO=9", "RAW=true"]);

    assert!(made.succeeded, "{made:?}");
    let input = r#"{"reconcile":{"apply":true,"delete_up_to":7,"rewrite_up_to":9}}"#;
    assert!(desk.calls().contains(input), "{}", desk.calls());
    let answer: Value = serde_json::from_str(&made.stdout).unwrap();
    assert_eq!((&answer["runs"], &answer["settings"]["listed"]), (&json!(3), &json!(1230)));
    for line in [
        "1 run done: 1000 keys compared, 6 written or deleted, 0 refused",
        "run 2 failed: CloudflareAuthRejected: why it failed",
        "3 runs done: 1230 keys compared, 18 written or deleted, 0 refused",
    ] {
        assert!(made.stderr.contains(line), "{made:?}");
    }
}

#[test]
fn a_reconcile_that_fails_shows_what_its_runs_did_and_the_error() {
    let desk = desk(&[goes_on(1000), failed("ExecutionFailed", "executionFailedEventDetails")]);

    let made = desk.make(&["reconcile", "ACCOUNT=a", "RAW=true"]);

    assert!(!made.succeeded);
    let report: Value = serde_json::from_str(&made.stdout).unwrap();
    assert_eq!(report["settings"]["listed"], 1000, "{made:?}");
    assert!(made.stderr.contains("\nCloudflareAuthRejected: why it failed\n"), "{made:?}");
    assert!(desk.calls().contains(r#"{"reconcile":{"apply":false,"system_account_id":"a"}}"#));
}

#[test]
fn a_repair_that_is_refused_anything_ends_with_3_and_an_audit_with_0() {
    let refused = json!({"complete": false, "refused": {"delete": 120, "rewrite": 0}});
    for (apply, code) in [(true, Some(3)), (false, Some(0))] {
        let mut report = report(1000, refused.clone());
        report["apply"] = json!(apply);
        let desk = desk(&[ran(&report), succeeded(&report)]);

        let ended = desk.operator(&["reconcile", &format!("APPLY={apply}")]);

        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.stdout.contains("refused  delete: 120"), "{ended:?}");
        assert!(ended.stdout.contains("Do not repair before you know"), "{ended:?}");
    }
}

#[test]
fn the_newest_execution_is_followed_unless_another_one_is_named() {
    let history = [ran(&report(5, json!({}))), succeeded(&report(5, json!({})))];
    for args in [&["follow"][..], &["follow", "EXECUTION=arn:execution"]] {
        let desk = desk(&history);
        let made = desk.make(args);
        assert!(made.succeeded && made.stdout.contains("repair, complete"), "{made:?}");
        assert_eq!(desk.calls().contains("list-executions"), args.len() == 1);
    }
    let desk = outputs("prod").answers("*list-executions*", r#"{"executions": []}"#);
    assert!(desk.make(&["follow"]).stderr.contains("no reconcile has begun yet"));
}

#[test]
fn stopping_stops_all_executions_and_fails_if_it_cannot_find_them() {
    let desk = desk(&[]);
    let made = desk.make(&["stop-reconciles"]);
    assert!(made.succeeded, "{made:?}");
    for execution in ["arn:execution", "arn:2"] {
        assert!(desk.calls().contains(&format!("stop-execution --execution-arn {execution} ")));
    }

    let unknown = Desk::new().with("ENVIRONMENT", "prod");
    assert!(!unknown.make(&["stop-reconciles"]).succeeded, "the stack can't be asked");
    let idle = outputs("prod").answers("*list-executions*", r#"{"executions": []}"#);
    let made = idle.make(&["stop-reconciles"]);
    assert!(made.succeeded && made.stdout.contains("no reconcile is running"), "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_local_stack_the_program_itself_runs_until_nothing_is_left() {
    let place = |number: usize| json!({"complete": false, "continue": format!("place {number}")});
    let seen = Arc::new(Mutex::new(Vec::new()));
    let payloads = seen.clone();
    let function = Server::start(0, move |request| {
        let mut payloads = payloads.lock().unwrap();
        payloads.push(request.json::<Value>().unwrap()["reconcile"].take());
        let more = if payloads.len() < 3 { place(payloads.len()) } else { json!({}) };
        let reply = Reply::json(200, &report(10, more));
        async move { reply.into() }
    });
    let function = function.await.unwrap();
    let desk =
        Desk::new().with("ENVIRONMENT", "local").with("AWS_ENDPOINT_URL_LAMBDA", function.url());

    let made = desk.make(&["reconcile", "APPLY=true", "DELETE_UP_TO=7"]);

    assert!(made.succeeded && made.stdout.starts_with("repair, complete\n"), "{made:?}");
    assert!(made.stdout.contains("listed         30") && made.stdout.contains("runs  3"));
    let asked = |place: &str| {
        let mut fields = json!({"apply": true, "delete_up_to": 7});
        if !place.is_empty() {
            fields["continue"] = json!(place);
        }
        fields
    };
    assert_eq!(*seen.lock().unwrap(), ["", "place 1", "place 2"].map(asked));
    assert_eq!(desk.calls(), "", "without the AWS CLI");
    assert!(!desk.make(&["follow"]).succeeded);
}
