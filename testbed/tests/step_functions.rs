//! The state machine of the template, with a scripted function.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use testbed::http::Client;
use testbed::lambda::Failure;
use testbed::stack::reconcile;
use testbed::step_functions::{Ended, StateMachine, StateMachineOptions, Status, arn};
use tokio::sync::Semaphore;

type Script = Vec<Result<Value, Failure>>;

/// A state machine whose function answers by a script, and the payloads that the function got.
struct Scripted {
    machine: StateMachine,
    payloads: Arc<Mutex<Vec<Value>>>,
    /// Every answer takes one. They are plentiful unless they are taken away.
    turns: Arc<Semaphore>,
}

async fn scripted(script: Script) -> Scripted {
    let payloads = Arc::new(Mutex::new(Vec::new()));
    let turns = Arc::new(Semaphore::new(1000));
    let script = Mutex::new(VecDeque::from(script));
    let (seen, gate) = (payloads.clone(), turns.clone());
    let invoke = move |payload: Value| {
        seen.lock().unwrap().push(payload);
        let answer = script.lock().unwrap().pop_front().unwrap_or_else(|| Ok(report(None)));
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            answer
        }
    };
    let options = StateMachineOptions { second: Duration::ZERO, ..StateMachineOptions::default() };
    let machine = StateMachine::start(reconcile().unwrap(), options, invoke).await.unwrap();
    Scripted { machine, payloads, turns }
}

impl Scripted {
    fn payloads(&self) -> Vec<Value> {
        self.payloads.lock().unwrap().clone()
    }

    /// Starts an execution whose function is held, and returns its ARN.
    async fn held(&self) -> String {
        self.turns.forget_permits(1000);
        let arn = self.machine.begin(&input(json!({})));
        while self.payloads().is_empty() {
            tokio::task::yield_now().await;
        }
        arn
    }

    async fn call(&self, operation: &str, body: Value) -> (u16, Value) {
        let target = HeaderValue::from_str(&format!("AWSStepFunctions.{operation}")).unwrap();
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-amz-target"), target)]);
        let url = self.machine.url();
        let reply = Client::default().send(Method::POST, &url, headers, body.to_string()).await;
        let reply = reply.unwrap();
        (reply.status.as_u16(), serde_json::from_slice(&reply.body).unwrap())
    }
}

fn input(fields: Value) -> Value {
    json!({"reconcile": fields})
}

fn report(goes_on: Option<&str>) -> Value {
    let mut report = json!({"complete": goes_on.is_none()});
    if let Some(place) = goes_on {
        report["continue"] = json!(place);
    }
    report
}

fn failure(kind: &str) -> Result<Value, Failure> {
    Err(Failure { error_type: kind.to_owned(), error_message: "why".to_owned() })
}

fn kinds(history: &Value) -> Vec<&str> {
    let events = history["events"].as_array().unwrap().iter();
    events.map(|event| event["type"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_report_with_continue_is_followed_with_the_same_fields() {
    let function =
        scripted(vec![Ok(report(Some("1"))), Ok(report(Some("2"))), Ok(report(None))]).await;

    let fields = json!({"apply": true, "delete_up_to": 7});
    let ended = function.machine.run(&input(fields)).await;

    assert_eq!(ended, Some(Ended::Succeeded(json!({"complete": true}))));
    assert_eq!(
        function.payloads(),
        [
            json!({"reconcile": {"apply": true, "delete_up_to": 7}}),
            json!({"reconcile": {"apply": true, "delete_up_to": 7, "continue": "1"}}),
            json!({"reconcile": {"apply": true, "delete_up_to": 7, "continue": "2"}}),
        ]
    );
}

#[tokio::test]
async fn a_run_that_a_service_failed_is_tried_again_from_where_it_began() {
    let incomplete = || failure("ReconcileIncomplete");
    let died = || failure("Runtime.ExitError");
    let script = vec![Ok(report(Some("1"))), incomplete(), died(), incomplete(), Ok(report(None))];
    let function = scripted(script).await;

    let ended = function.machine.run(&input(json!({}))).await;

    assert_eq!(ended, Some(Ended::Succeeded(json!({"complete": true}))));
    let places: Vec<_> = function
        .payloads()
        .iter()
        .map(|payload| payload["reconcile"]["continue"].as_str().map(str::to_owned))
        .collect();
    let from_1 = Some("1".to_owned());
    assert_eq!(places, [None, from_1.clone(), from_1.clone(), from_1.clone(), from_1]);
}

#[tokio::test]
async fn an_execution_fails_with_the_error_after_four_more_tries_and_at_once_with_others() {
    for (kind, tries) in [("ReconcileIncomplete", 5), ("InvalidPayload", 1)] {
        let script = (0..10).map(|_| failure(kind)).collect();
        let function = scripted(script).await;

        let ended = function.machine.run(&input(json!({}))).await;

        let Some(Ended::Failed(error, cause)) = ended else { panic!("{ended:?}") };
        assert_eq!(error, kind);
        let cause: Value = serde_json::from_str(&cause).unwrap();
        assert_eq!(cause, json!({"errorType": kind, "errorMessage": "why"}));
        assert_eq!(function.payloads().len(), tries, "{kind}");
    }
}

#[tokio::test]
async fn while_one_execution_runs_another_ends_at_once_and_says_which_one_runs() {
    let function = scripted(vec![]).await;
    let first = function.held().await;

    let second = function.machine.run(&input(json!({}))).await;
    let account = function.machine.begin(&input(json!({"system_account_id": "a"})));
    function.turns.add_permits(1000);

    let Some(Ended::Succeeded(output)) = second else { panic!("{second:?}") };
    let running = output["running"]["Executions"].as_array().unwrap();
    assert!(running.iter().any(|execution| execution["ExecutionArn"] == first.as_str()));
    let complete = Some(Ended::Succeeded(json!({"complete": true})));
    assert_eq!(function.machine.ended(&first).await, complete);
    assert_eq!(function.machine.ended(&account).await, complete, "one account never waits");
    assert_eq!(function.machine.run(&input(json!({}))).await, complete, "nothing runs any more");
    assert_eq!(function.payloads().len(), 3);
}

#[tokio::test]
async fn an_execution_that_somebody_stops_ends_and_the_next_one_runs() {
    let function = scripted(vec![]).await;
    let first = function.held().await;

    let (status, _) = function.call("StopExecution", json!({"executionArn": first})).await;
    function.turns.add_permits(1000);

    assert_eq!(status, 200);
    assert_eq!(function.machine.ended(&first).await, Some(Ended::Aborted));
    assert!(matches!(function.machine.run(&input(json!({}))).await, Some(Ended::Succeeded(_))));
    let statuses: Vec<_> = function.machine.executions().iter().map(|one| one.status).collect();
    assert_eq!(statuses, [Status::Succeeded, Status::Aborted]);
}

#[tokio::test]
async fn the_api_starts_lists_describes_and_tells_the_history() {
    let function = scripted(vec![Ok(report(Some("1"))), failure("ReconcileIncomplete")]).await;

    let start = json!({"stateMachineArn": arn(), "input": input(json!({})).to_string()});
    let (status, started) = function.call("StartExecution", start).await;
    assert_eq!(status, 200, "{started}");
    let execution = started["executionArn"].as_str().unwrap();
    function.machine.ended(execution).await;

    let of = json!({"executionArn": execution});
    let (_, described) = function.call("DescribeExecution", of.clone()).await;
    assert_eq!(described["status"], "SUCCEEDED");
    assert_eq!(described["output"], r#"{"complete":true}"#);
    let (_, history) = function.call("GetExecutionHistory", of).await;
    let kinds = kinds(&history);
    assert_eq!(kinds.first(), Some(&"ExecutionStarted"));
    assert_eq!(kinds.iter().filter(|kind| **kind == "TaskFailed").count(), 1);
    assert_eq!(kinds.last(), Some(&"ExecutionSucceeded"));
    let of = json!({"stateMachineArn": arn(), "statusFilter": "RUNNING"});
    assert_eq!(function.call("ListExecutions", of).await.1["executions"], json!([]));
}

#[tokio::test]
async fn the_api_refuses_what_it_does_not_serve() {
    let function = scripted(vec![]).await;
    for (operation, body, kind) in [
        ("StartSyncExecution", json!({}), "UnknownOperationException"),
        (
            "StartExecution",
            json!({"stateMachineArn": "x", "input": "{}"}),
            "StateMachineDoesNotExist",
        ),
        (
            "StartExecution",
            json!({"stateMachineArn": arn(), "input": "{"}),
            "InvalidExecutionInput",
        ),
        (
            "StartExecution",
            json!({"stateMachineArn": arn(), "input": "{}", "name": "n"}),
            "ValidationException",
        ),
        ("DescribeExecution", json!({"executionArn": "x"}), "ExecutionDoesNotExist"),
    ] {
        let (status, answer) = function.call(operation, body).await;
        assert_eq!((status, answer["__type"].as_str()), (400, Some(kind)), "{operation}");
    }
}

#[tokio::test]
async fn an_input_that_does_not_fit_the_definition_fails_and_nothing_is_invoked() {
    let function = scripted(vec![]).await;

    let ended = function.machine.run(&json!({"reconcil": {}})).await;

    let Some(Ended::Failed(error, _)) = ended else { panic!("{ended:?}") };
    assert_eq!(error, "States.Runtime");
    assert!(function.payloads().is_empty());
}
