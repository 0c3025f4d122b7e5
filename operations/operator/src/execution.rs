//! An execution of the reconcile's state machine, followed until it ends.

use std::thread::sleep;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::chain::Chain;
use crate::failure::{Failure, named};
use crate::function::Stack;

/// The first pause before the history is asked for again. It doubles up to the last one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How often in a row the history may be unavailable.
const MAX_FAILURES: u32 = 3;

/// Starts an execution, and returns its ARN.
pub fn start(stack: &Stack, fields: &Map<String, Value>) -> Result<String, Failure> {
    let machine = stack.output("StateMachineArn")?;
    let input = stack.aws.file("file", "input.json", &json!({"reconcile": fields}))?;
    // By their names, others tell which executions they need not leave the work to.
    let kind = match (fields.get("system_account_id"), fields.get("preview")) {
        (Some(_), _) => "account",
        (None, Some(_)) => "preview",
        (None, None) => "by-hand",
    };
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_millis();
    let name = format!("{kind}-{now}");
    let given = [&*machine, "--name", &name, "--input", &input];
    let started = stack.aws.call("stepfunctions start-execution --state-machine-arn", &given)?;
    started["executionArn"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Failure::because("Step Functions names no execution"))
}

/// The executions that are running, or the newest one of all.
pub fn list(stack: &Stack, which: &[&str]) -> Result<Vec<String>, Failure> {
    let machine = stack.output("StateMachineArn")?;
    let given = [&[&*machine], which].concat();
    let listed = stack.aws.call("stepfunctions list-executions --state-machine-arn", &given)?;
    let executions = listed["executions"].as_array().into_iter().flatten();
    Ok(executions.filter_map(|one| one["executionArn"].as_str().map(str::to_owned)).collect())
}

/// Stops an execution. What it has called goes on by itself.
pub fn stop(stack: &Stack, arn: &str) -> Result<(), Failure> {
    stack.aws.call("stepfunctions stop-execution --execution-arn", &[arn]).map(drop)
}

/// Follows an execution until it ends. What its runs found and did is in the chain, however it ends.
pub fn follow(stack: &Stack, arn: &str, chain: &mut Chain) -> Result<(), Failure> {
    eprintln!("{arn}\nCtrl-C ends only this command: `make follow EXECUTION=…` goes on.");
    let mut taken = 0;
    let mut pause = FIRST_PAUSE;
    let mut failures = 0;
    loop {
        let history = stack.aws.call("stepfunctions get-execution-history --execution-arn", &[arn]);
        match history {
            Ok(history) => {
                failures = 0;
                let events = history["events"].as_array().map_or(&[][..], Vec::as_slice);
                for event in events.get(taken..).unwrap_or_default() {
                    taken += 1;
                    if let Some(ended) = take(event, chain) {
                        return ended;
                    }
                }
            }
            Err(failure) if failures < MAX_FAILURES => {
                failures += 1;
                eprintln!("{}", failure.said().unwrap_or_default());
            }
            Err(failure) => return Err(failure),
        }
        sleep(pause);
        pause = LAST_PAUSE.min(pause * 2);
    }
}

/// Takes the next event, and shows it if it is progress. Returns how the execution ended, if it has.
fn take(event: &Value, chain: &mut Chain) -> Option<Result<(), Failure>> {
    match event["type"].as_str().unwrap_or_default() {
        "TaskSucceeded" => {
            let output = json_in(&event["taskSucceededEventDetails"]["output"]);
            let report = &output["Payload"];
            is_report(report).then(|| ran(report, chain))?.err().map(Err)
        }
        "TaskFailed" => {
            let failed = &event["taskFailedEventDetails"];
            // Not every history names the kind of a task. The other one lists executions.
            if failed["resourceType"].as_str().is_none_or(|kind| kind == "lambda") {
                eprintln!("run {} failed: {}", chain.runs + 1, failure(failed));
                eprintln!(
                    "Unless the error is final, it is tried up to four times more: after 1, 2, 4 and 8 minutes."
                );
            }
            None
        }
        "ExecutionSucceeded" => {
            let output = json_in(&event["executionSucceededEventDetails"]["output"]);
            Some(succeeded(&output, chain))
        }
        "ExecutionFailed" => {
            Some(Err(Failure::because(failure(&event["executionFailedEventDetails"]))))
        }
        "ExecutionTimedOut" => Some(Err(Failure::because("It took longer than a day."))),
        "ExecutionAborted" => Some(Err(Failure::because("Somebody stopped it."))),
        _ => None,
    }
}

fn ran(report: &Value, chain: &mut Chain) -> Result<(), Failure> {
    chain.add(report)?;
    eprintln!("{}", chain.progress());
    Ok(())
}

/// An execution's output is the report of its last run. Only one that left the work to another
/// execution has none.
fn succeeded(output: &Value, chain: &mut Chain) -> Result<(), Failure> {
    match (chain.runs, is_report(output)) {
        (0, true) => {
            eprintln!("Its history names no run. This is the report of the last one:");
            ran(output, chain)
        }
        (_, true) => Ok(()),
        (0, false) => {
            let other = output["left_to"].as_str().unwrap_or_default();
            Err(Failure::because(format!(
                "Nothing was done: another reconcile is running, or waits to try again.\n\
                 To see what it does:  make follow EXECUTION={other}\n\
                 To stop it:           make stop-reconciles"
            )))
        }
        (_, false) => Err(Failure::because("It ended, and its output is no report.")),
    }
}

fn is_report(value: &Value) -> bool {
    value["settings"].is_object()
}

/// An error with its message. The cause of a function's error is the error as JSON.
fn failure(details: &Value) -> String {
    let error = details["error"].as_str().unwrap_or_default();
    let cause = details["cause"].as_str().unwrap_or_default();
    let answer = json_in(&details["cause"]);
    let message = answer["errorMessage"].as_str().unwrap_or(cause);
    named(error, message)
}

/// The JSON in a string.
fn json_in(text: &Value) -> Value {
    text.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took(chain: &mut Chain, kind: &str, details: &str, content: Value) -> Result<(), String> {
        let event = json!({"type": kind, details: content});
        let ended = take(&event, chain);
        ended.unwrap().map_err(|failure| failure.said().unwrap_or_default().to_owned())
    }

    fn succeeded(chain: &mut Chain, output: &Value) -> Result<(), String> {
        let output = json!({"output": output.to_string()});
        took(chain, "ExecutionSucceeded", "executionSucceededEventDetails", output)
    }

    fn report() -> Value {
        let counts = json!({"listed": 120, "deleted": 90});
        json!({"apply": true, "complete": true, "settings": counts, "query_configs": {}})
    }

    #[test]
    fn an_execution_that_left_the_work_to_another_one_names_it() {
        let left = json!({"left_to": "arn:other"});
        let said = succeeded(&mut Chain::default(), &left).unwrap_err();
        assert!(said.contains("Nothing was done") && said.contains("EXECUTION=arn:other\n"));
    }

    #[test]
    fn a_repair_whose_runs_the_history_does_not_name_has_not_done_nothing() {
        let mut chain = Chain::default();
        assert_eq!(succeeded(&mut chain, &report()), Ok(()));
        assert_eq!((chain.runs, chain.settings["deleted"]), (1, 90));
    }

    #[test]
    fn the_last_report_is_not_counted_twice() {
        let mut chain = Chain::default();
        chain.add(&report()).unwrap();
        assert_eq!(succeeded(&mut chain, &report()), Ok(()));
        assert_eq!(chain.runs, 1);
        assert!(succeeded(&mut chain, &json!({})).is_err());
    }

    #[test]
    fn a_run_is_known_by_its_report_whatever_else_the_history_says_of_it() {
        for kind in [json!("lambda"), Value::Null] {
            let mut chain = Chain::default();
            let output = json!({"Payload": report()}).to_string();
            let details = json!({"resourceType": kind, "output": output});
            let event = json!({"type": "TaskSucceeded", "taskSucceededEventDetails": details});
            let ended = take(&event, &mut chain);
            assert_eq!((ended, chain.runs), (None, 1));
        }
    }

    #[test]
    fn a_failure_is_shown_by_its_type_and_message() {
        let cause = json!({"errorType": "ReconcileIncomplete", "errorMessage": "the table"});
        for (cause, shown) in [
            (cause.to_string().as_str(), "the table"),
            ("plain", "plain"),
            ("ReconcileIncomplete: plain", "plain"),
        ] {
            let failed = json!({"error": "ReconcileIncomplete", "cause": cause});
            let details = "executionFailedEventDetails";
            let ended = took(&mut Chain::default(), "ExecutionFailed", details, failed);
            assert_eq!(ended, Err(format!("ReconcileIncomplete: {shown}")));
        }
    }
}
