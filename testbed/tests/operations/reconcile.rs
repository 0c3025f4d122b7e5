//! `make reconcile` and `make follow`.

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::lambda::Failure;
use testbed::stack::reconcile;
use testbed::step_functions::{StateMachine, StateMachineOptions, arn};
use tokio::task::spawn_blocking;

use crate::desk::{Desk, Made};

/// A state machine whose function answers by a script.
async fn machine(script: Vec<Result<Value, Failure>>) -> StateMachine {
    let script = Mutex::new(VecDeque::from(script));
    let invoke = move |_: Value| {
        let answer = script.lock().unwrap().pop_front().unwrap();
        async move { answer }
    };
    let options = StateMachineOptions { second: Duration::ZERO, ..StateMachineOptions::default() };
    StateMachine::start(reconcile().unwrap(), options, invoke).await.unwrap()
}

fn desk(machine: &StateMachine) -> Desk {
    Desk::new()
        .with("ENVIRONMENT", "local")
        .with("AWS_ENDPOINT_URL_SFN", machine.url())
        .with("STATE_MACHINE", arn())
}

async fn make(desk: Desk, args: &'static [&'static str]) -> (Made, Desk) {
    spawn_blocking(move || (desk.make(args), desk)).await.unwrap()
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

fn goes_on(listed: u64) -> Value {
    report(listed, json!({"complete": false, "stopped": "time", "continue": "there"}))
}

fn failure(kind: &str) -> Failure {
    Failure { error_type: kind.to_owned(), error_message: "why it failed".to_owned() }
}

#[tokio::test]
async fn a_reconcile_is_followed_to_its_end_and_its_runs_are_added_up() {
    let incomplete = Err(failure("ReconcileIncomplete"));
    let last = report(30, json!({"refused": {"delete": 0, "rewrite": 4}}));
    let machine = machine(vec![Ok(goes_on(1000)), incomplete, Ok(goes_on(200)), Ok(last)]).await;

    let args = &["reconcile", "APPLY=true", "DELETE_UP_TO=7", "REWRITE_UP_TO=9", "RAW=true"];
    let (made, _desk) = make(desk(&machine), args).await;

    assert!(made.succeeded, "{made:?}");
    let [execution] = machine.executions().try_into().unwrap();
    let input: Value = serde_json::from_str(&execution.input).unwrap();
    let fields = json!({"apply": true, "delete_up_to": 7, "rewrite_up_to": 9});
    assert_eq!(input, json!({"reconcile": fields}));
    let answer: Value = serde_json::from_str(made.stdout.lines().last().unwrap()).unwrap();
    assert_eq!((&answer["runs"], &answer["settings"]["listed"]), (&json!(3), &json!(1230)));
    assert_eq!(answer["refused"]["rewrite"], 4);
    let progress = |line| made.stderr.contains(line);
    assert!(progress("1 run done: 1000 keys compared, 6 mended, 0 refused"), "{made:?}");
    assert!(progress("run 2 failed: ReconcileIncomplete: why it failed"), "{made:?}");
    assert!(progress("3 runs done: 1230 keys compared, 18 mended, 4 refused"), "{made:?}");
}

#[tokio::test]
async fn a_reconcile_that_fails_shows_what_its_runs_did_and_the_error() {
    let machine = machine(vec![Ok(goes_on(1000)), Err(failure("CloudflareAuthRejected"))]).await;

    let (made, _desk) = make(desk(&machine), &["reconcile", "ACCOUNT=a", "RAW=true"]).await;

    assert!(!made.succeeded);
    let report: Value = serde_json::from_str(&made.stdout).unwrap();
    assert_eq!(report["settings"]["listed"], 1000, "{made:?}");
    assert!(made.stderr.contains("\nCloudflareAuthRejected: why it failed\n"), "{made:?}");
    let [execution] = machine.executions().try_into().unwrap();
    assert!(execution.input.contains(r#""system_account_id":"a""#), "{}", execution.input);
}

#[tokio::test]
async fn make_follow_follows_the_newest_execution() {
    let machine = machine(vec![Ok(report(5, json!({})))]).await;
    machine.run(&json!({"reconcile": {"apply": true}})).await;

    let (made, _desk) = make(desk(&machine), &["follow", "RAW=true"]).await;

    assert!(made.succeeded, "{made:?}");
    assert!(made.stdout.contains(r#""listed":5"#), "{made:?}");
}

#[tokio::test]
async fn in_aws_the_stack_says_which_state_machine_it_is() {
    let history = json!({"events": [
        {"type": "ExecutionFailed",
         "executionFailedEventDetails": {"error": "States.Runtime", "cause": "why"}},
    ]});
    let desk = Desk::new()
        .with("ENVIRONMENT", "prod")
        .answers(
            "aws cloudformation describe-stacks --stack-name prod-* *StateMachineArn*",
            "arn:machine",
        )
        .answers(
            "aws stepfunctions start-execution --state-machine-arn arn:machine *",
            "arn:execution",
        )
        .answers("aws stepfunctions get-execution-history *arn:execution*", history.to_string());

    let (made, desk) = make(desk, &["reconcile"]).await;

    assert!(!made.succeeded && made.stderr.contains("States.Runtime: why"), "{made:?}");
    assert_eq!(desk.calls().lines().count(), 3);
}

#[test]
fn stopping_stops_all_executions_and_fails_if_it_cannot_find_them() {
    let stack = || Desk::new().with("ENVIRONMENT", "prod");
    let machine = "aws cloudformation describe-stacks --stack-name prod-* *StateMachineArn*";
    let desk = stack()
        .answers(machine, "arn:machine")
        .answers("aws stepfunctions list-executions *arn:machine*", "arn:1\tarn:2")
        .answers("aws stepfunctions stop-execution *", "");
    let made = desk.make(&["stop-reconciles"]);
    assert!(made.succeeded, "{made:?}");
    for execution in ["arn:1", "arn:2"] {
        assert!(desk.calls().contains(&format!("stop-execution --execution-arn {execution} ")));
    }

    assert!(!stack().make(&["stop-reconciles"]).succeeded, "the stack can't be asked");
    let idle = stack().answers(machine, "arn:machine").answers("*list-executions*", "None");
    let made = idle.make(&["stop-reconciles"]);
    assert!(made.succeeded && made.stdout.contains("no reconcile is running"), "{made:?}");
}
