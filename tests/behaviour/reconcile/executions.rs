//! The state machine of the template with the real binary.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::stack::{SETTINGS, Stack};
use testbed::step_functions::{Ended, StateMachine, StateMachineOptions};

use crate::helpers::*;
use crate::process;

async fn machine(stack: &Stack) -> StateMachine {
    let function = process::function(stack, &[]).await;
    let options = StateMachineOptions { second: Duration::ZERO, ..StateMachineOptions::default() };
    stack.state_machine(&function, options).await.unwrap()
}

/// Runs an execution. Returns the report of its last run.
async fn reconcile(machine: &StateMachine, fields: Value) -> Value {
    match machine.run(&json!({"reconcile": fields})).await {
        Some(Ended::Succeeded(report)) => report,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_execution_repairs_everything_and_ends_with_the_report_of_its_last_run() {
    let stack = process::stack().await;
    stack.table.put(&shop("a", "i", "s.example"));
    stack.table.put(&query_config("a", "i", "q", 1));
    let machine = machine(&stack).await;

    let audit = reconcile(&machine, json!({"apply": false})).await;
    assert_eq!(audit["apply"], false);
    assert!(stack.kv.keys(SETTINGS).is_empty());
    let repair = reconcile(&machine, json!({"apply": true})).await;

    assert_eq!((&repair["complete"], &repair["continue"]), (&json!(true), &Value::Null));
    assert_eq!(stack.kv.keys(SETTINGS), ["a-i", "s.example"]);
    let account = reconcile(&machine, json!({"system_account_id": "a"})).await;
    assert_eq!(account["settings"]["missing"], 0);
}

#[tokio::test]
async fn a_run_that_the_table_fails_is_tried_again() {
    let stack = process::stack().await;
    stack.table.put(&index("a", "i"));
    let machine = machine(&stack).await;
    let down = Fault::aws(400, "ResourceNotFoundException", "no such table");
    stack.table.faults().add(Rule::any(down).times(1));

    let report = reconcile(&machine, json!({"apply": true})).await;

    assert_eq!(report["complete"], true);
    assert_eq!(stack.kv.keys(SETTINGS), ["a-i"]);
}

#[tokio::test]
async fn fields_that_the_function_does_not_take_fail_the_execution_at_once() {
    let stack = process::stack().await;
    let machine = machine(&stack).await;

    let ended = machine.run(&json!({"reconcile": {"aply": true}})).await;

    let Some(Ended::Failed(error, cause)) = ended else { panic!("{ended:?}") };
    assert_eq!(error, "InvalidPayload");
    assert!(cause.contains("aply"), "{cause}");
}
