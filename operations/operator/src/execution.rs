//! An execution of the reconcile's state machine, followed until it ends.

use std::thread::sleep;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::place::Stack;
use crate::reconcile::{Chain, is_report, progress};
use crate::terminal::{Progress, say};
use crate::{Failure, aws, failed, report};

const PAUSE: Duration = Duration::from_secs(2);
/// The newest events come first; these are more than a run and its retries have.
const HISTORY: &str = "stepfunctions get-execution-history --reverse-order --no-paginate \
                       --max-results 40 --execution-arn";

/// Starts an execution, and returns its ARN.
pub fn start(stack: &Stack, fields: &Value) -> Result<String, Failure> {
    // By its name the state machine knows an execution that may run beside others.
    let kind = match (&fields["system_account_id"], &fields["preview"]) {
        (Value::String(_), _) => "account",
        (_, Value::Bool(true)) => "preview",
        _ => "by-hand",
    };
    let name = format!("{kind}-{}", UNIX_EPOCH.elapsed().unwrap_or_default().as_millis());
    let input = json!({"reconcile": fields}).to_string();
    let machine = stack.output("StateMachineArn")?;
    let values = [&*machine, "--name", &name, "--input", &input];
    let started = aws::json("stepfunctions start-execution --state-machine-arn", &values)?;
    let arn = started["executionArn"].as_str().map(str::to_owned);
    arn.ok_or_else(|| failed("Step Functions names no execution"))
}

/// Returns the ARNs of the executions that a filter of the CLI leaves.
pub fn list(stack: &Stack, filter: &[&str]) -> Result<Vec<String>, Failure> {
    let machine = stack.output("StateMachineArn")?;
    let values = [&[&*machine], filter].concat();
    let listed = aws::json("stepfunctions list-executions --state-machine-arn", &values)?;
    let executions = listed["executions"].as_array().into_iter().flatten();
    Ok(executions.filter_map(|one| one["executionArn"].as_str().map(str::to_owned)).collect())
}

/// Follows an execution until it ends. Whichever way it ends, the newest report is in `chain` then.
pub fn follow(arn: &str, chain: &mut Chain) -> Result<(), Failure> {
    say(arn);
    say("Ctrl-C ends only this command. The reconcile goes on: `make follow` shows it again, \
         `make stop-reconciles` stops it.");
    let shown = Progress::start("the first run is under way");
    loop {
        let history = aws::json(HISTORY, &[arn])?;
        let events = history["events"].as_array().map_or(&[][..], Vec::as_slice);
        if let Some(report) = events.iter().find_map(report) {
            shown.show(progress(&report));
            *chain = Some(report);
        }
        if let Some(ended) = events.first().and_then(|newest| ended(newest, chain)) {
            return ended;
        }
        let newest = events.iter().find(|event| is_failure(event) || report(event).is_some());
        if newest.is_some_and(is_failure) {
            shown.show("the last run failed; unless that is final, it is tried again".to_owned());
        }
        sleep(PAUSE);
    }
}

/// The report of a run that ended.
fn report(event: &Value) -> Option<Value> {
    let output = &event["taskSucceededEventDetails"]["output"];
    Some(json_in(output)["Payload"].take()).filter(is_report)
}

/// Whether a run failed. The other task, which lists executions, may.
fn is_failure(event: &Value) -> bool {
    let of = event["taskFailedEventDetails"]["resourceType"].as_str();
    event["type"] == "TaskFailed" && of.is_none_or(|of| of == "lambda")
}

/// How the execution ended, if this event is its end.
fn ended(event: &Value, chain: &mut Chain) -> Option<Result<(), Failure>> {
    let why = match event["type"].as_str()? {
        "ExecutionSucceeded" => {
            let output = json_in(&event["executionSucceededEventDetails"]["output"]);
            if is_report(&output) {
                *chain = Some(output);
                return Some(Ok(()));
            }
            let Some(other) = output["left_to"].as_str() else {
                return Some(Err(failed("It ended without a report.")));
            };
            format!(
                "Nothing was done: another reconcile is running. `make follow EXECUTION={other}` \
                 shows it, `make stop-reconciles` stops it."
            )
        }
        // The cause of a function's error is the error as JSON.
        "ExecutionFailed" => {
            let details = &event["executionFailedEventDetails"];
            let answer = json_in(&details["cause"]);
            let message = answer.get("errorMessage").unwrap_or(&details["cause"]);
            report::error(&json!({"errorType": details["error"], "errorMessage": message}))
        }
        "ExecutionTimedOut" => "It took longer than a day.".to_owned(),
        "ExecutionAborted" => "Somebody stopped it.".to_owned(),
        _ => return None,
    };
    Some(Err(failed(why)))
}

/// The JSON in a string.
fn json_in(text: &Value) -> Value {
    report::parsed(text.as_str().unwrap_or_default())
}
