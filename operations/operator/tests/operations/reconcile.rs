//! Reconciles, followed to their end.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::desk::{Desk, serve};

const HISTORY: &str = "aws stepfunctions get-execution-history --reverse-order --no-paginate \
                       --max-results 40 --execution-arn arn:1 --output json";

/// A stack whose execution has this history, the oldest event first.
fn desk(events: &[Value]) -> Desk {
    let newest_first: Vec<&Value> = events.iter().rev().collect();
    Desk::of("prod")
        .answers("aws stepfunctions start-execution *", r#"{"executionArn": "arn:1"}"#)
        .answers(HISTORY, json!({"events": newest_first}).to_string())
}

fn report(listed: u64, more: &Value) -> Value {
    let counts = |listed| json!({"desired": listed, "listed": listed, "missing": 0, "written": 2});
    let mut report = json!({
        "apply": true, "complete": true, "settings": counts(listed), "query_configs": {"listed": 0},
        "examples": {"missing": ["a", "b"]},
    });
    report.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    report
}

fn ran(report: &Value) -> Value {
    let output = json!({"ExecutedVersion": "1", "Payload": report}).to_string();
    json!({"type": "TaskSucceeded", "taskSucceededEventDetails": {"output": output}})
}

fn succeeded(output: &Value) -> Value {
    let output = json!({"output": output.to_string()});
    json!({"type": "ExecutionSucceeded", "executionSucceededEventDetails": output})
}

#[test]
fn a_reconcile_is_started_by_its_kind_and_its_last_report_is_shown() {
    let first = json!({"complete": false, "continue": "there"});
    let last = report(1230, &json!({"complete": true}));
    for (words, kind, fields) in [
        (&[][..], "by-hand", json!({"apply": false})),
        (&["PREVIEW=true"], "preview", json!({"apply": false, "preview": true})),
        (
            &["ACCOUNT=a", "APPLY=true", "DELETE_UP_TO=7", "REWRITE_UP_TO=9"],
            "account",
            json!({"apply": true, "system_account_id": "a", "delete_up_to": 7, "rewrite_up_to": 9}),
        ),
    ] {
        let desk = desk(&[ran(&report(1000, &first)), ran(&last), succeeded(&last)]);
        let ended = desk.make(&[&["reconcile"], words].concat());
        assert_eq!(ended.code, Some(0), "{ended:?}");
        for shown in
            ["complete: true\n", "  missing\n    a\n    b\n", "settings\n", "  listed: 1230\n"]
        {
            assert!(ended.stdout.contains(shown), "{shown}: {ended:?}");
        }
        for nothing in ["continue", "query_configs"] {
            assert!(!ended.stdout.contains(nothing), "{nothing}: {ended:?}");
        }
        assert!(!ended.stderr.contains('\r'), "{ended:?}");
        assert!(ended.stderr.contains("Ctrl-C ends only this command. The reconcile goes on"));
        let [start, history] = &desk.calls()[..] else { panic!("{:?}", desk.calls()) };
        let begin = "aws stepfunctions start-execution --state-machine-arn arn:machine --name ";
        let name = start.strip_prefix(begin).unwrap();
        assert!(name.starts_with(&format!("{kind}-1")), "{name}");
        let input = json!({"reconcile": fields}).to_string();
        assert!(start.ends_with(&format!(" --input {input} --output json")), "{start}");
        assert_eq!(history, HISTORY);
    }
}

#[test]
fn exit_codes_reach_the_shell_and_make_names_them() {
    let refused = json!({"delete": 120, "rewrite": 0});
    let of = |class: &str| json!({"listed": 9, class: 2});
    for (fields, code, next) in [
        (json!({}), 0, "No difference was found."),
        (json!({"settings": of("stale")}), 0, "Repaired."),
        (json!({"settings": of("stale"), "apply": false}), 0, "To repair what is"),
        (json!({"settings": of("rejected")}), 0, "KV has all that it can have."),
        (json!({"refused": refused, "complete": false}), 3, "Do not repair before you know"),
        (json!({"refused": refused, "apply": false}), 0, "Do not repair before you know"),
        (json!({"complete": false}), 1, "It ended before all was done"),
        (json!({"complete": false, "settings": of("failed")}), 1, "Not all could be"),
        (json!({"complete": false, "dry_run": true}), 0, "Nothing was sent"),
        (
            json!({"settings": {}, "query_configs": {}}),
            1,
            "Neither the table nor KV knows account a.",
        ),
    ] {
        let report = report(9, &fields);
        let desk = desk(&[ran(&report), succeeded(&report)]);
        let ended = desk.operator(&["reconcile", "ACCOUNT=a"]);
        assert_eq!(ended.code, Some(code), "{ended:?}");
        assert!(ended.stderr.contains(&format!("\n{next}")), "{ended:?}");
        let made = desk.make(&["reconcile", "ACCOUNT=a"]);
        assert_eq!(made.code, Some(if code == 0 { 0 } else { 2 }), "{made:?}");
        assert_eq!(made.stderr.contains(&format!("] Error {code}\n")), code > 0, "{made:?}");
        let called = desk.shell("\"$(make -s operator)\" reconcile ACCOUNT=a");
        assert_eq!(called.code, Some(code), "{called:?}");
    }
}

#[test]
fn an_execution_that_fails_shows_what_its_runs_did_and_why() {
    let cause = json!({"errorType": "CloudflareAuthRejected", "errorMessage": "why\u{1b}[31m"});
    let why = json!({"error": "CloudflareAuthRejected", "cause": cause.to_string()});
    for (end, said) in [
        (
            json!({"type": "ExecutionFailed", "executionFailedEventDetails": why}),
            "\nCloudflareAuthRejected: why\\u001b[31m\n",
        ),
        (json!({"type": "ExecutionAborted"}), "\nSomebody stopped it.\n"),
        (json!({"type": "ExecutionTimedOut"}), "\nIt took longer than a day.\n"),
        (succeeded(&json!({})), "\nIt ended without a report.\n"),
        (succeeded(&json!({"left_to": "arn:other"})), "`make follow EXECUTION=arn:other`"),
    ] {
        let desk = desk(&[ran(&report(1000, &json!({"complete": false}))), end]);
        let ended = desk.operator(&["follow", "EXECUTION=arn:1", "RAW=true"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        let shown: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(shown["settings"]["listed"], 1000);
        assert!(ended.stderr.contains(said), "{ended:?}");
    }
}

#[test]
fn the_newest_execution_is_followed_and_those_that_run_are_stopped() {
    let last = report(5, &json!({}));
    let list = "aws stepfunctions list-executions --state-machine-arn arn:machine";
    let newest = format!("{list} --no-paginate --max-results 1 --output json");
    let running = format!("{list} --status-filter RUNNING --output json");
    let stop =
        |arn: &str| format!("aws stepfunctions stop-execution --execution-arn {arn} --output json");
    let desk = desk(&[ran(&last), succeeded(&last)])
        .answers(&newest, r#"{"executions": [{"executionArn": "arn:1"}]}"#)
        .answers(
            &running,
            r#"{"executions": [{"executionArn": "arn:1"}, {"executionArn": "arn:2"}]}"#,
        )
        .answers("aws stepfunctions stop-execution *", "");
    assert_eq!(desk.make(&["follow"]).code, Some(0));
    assert_eq!(desk.make(&["stop-reconciles"]).stdout, "stopped arn:1\nstopped arn:2\n");
    let calls = [newest.clone(), HISTORY.to_owned(), running, stop("arn:1"), stop("arn:2")];
    assert_eq!(desk.calls(), calls);

    let none = Desk::of("prod").answers(&format!("{list} *"), r#"{"executions": []}"#);
    assert!(none.operator(&["follow"]).stderr.contains("no reconcile has begun yet"));
    assert!(none.operator(&["stop-reconciles"]).stderr.contains("No reconcile is running"));
    assert_eq!(Desk::new().with("ENVIRONMENT", "x").operator(&["follow"]).code, Some(1));
}

#[test]
fn on_the_local_stack_the_program_itself_runs_until_nothing_is_left() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let payloads = seen.clone();
    let function = serve(move |_, body| {
        let mut payloads = payloads.lock().unwrap();
        payloads.push(serde_json::from_str::<Value>(body).unwrap()["reconcile"].take());
        let more = json!({"complete": false, "continue": format!("place {}", payloads.len())});
        let more = if payloads.len() < 3 { more } else { json!({}) };
        report(10 * payloads.len() as u64, &more).to_string()
    });
    let desk = Desk::of("local").with("AWS_ENDPOINT_URL_LAMBDA", function);

    let ended = desk.make(&["reconcile", "APPLY=true", "DELETE_UP_TO=7"]);

    assert!(ended.code == Some(0) && ended.stdout.contains("listed: 30\n"), "{ended:?}");
    assert!(ended.stderr.contains("and no other follows"), "{ended:?}");
    let first = json!({"apply": true, "delete_up_to": 7});
    let [mut second, mut third] = [first.clone(), first.clone()];
    second["continue"] = json!("place 1");
    third["continue"] = json!("place 2");
    assert_eq!(*seen.lock().unwrap(), [first, second, third]);
    assert!(desk.calls().is_empty(), "without the AWS CLI");
}
