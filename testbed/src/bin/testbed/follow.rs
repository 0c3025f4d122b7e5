//! `testbed follow`: follows a reconcile until its execution ends, in AWS or on the local stack.
//!
//! It asks through the AWS CLI, which knows the region, the credentials and the endpoint. Progress
//! goes to standard error; standard output gets the report of all runs together, as JSON.

mod chain;

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;
use tokio::time::sleep;

use crate::args::Args;
use chain::Chain;

/// The type of the tasks that invoke the function.
const FUNCTION: &str = "lambda";
/// The first pause before the history is asked for again. It doubles up to the last one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(5);
/// How often in a row the history may not be had.
const MAX_FAILURES: u32 = 3;

pub async fn run(mut args: Args) -> Result<(), String> {
    let arn = args.command().ok_or("the ARN of the execution is missing")?;
    args.end()?;
    eprintln!("{arn}\nCtrl-C ends only this command: `make follow EXECUTION=…` goes on.");
    let mut followed = Followed::new(&arn);
    let ended = follow(&arn, &mut followed).await;
    if followed.chain.runs > 0 {
        print!("{}", serde_json::to_string(&followed.chain).unwrap_or_default());
    }
    ended
}

async fn follow(arn: &str, followed: &mut Followed) -> Result<(), String> {
    let mut pause = FIRST_PAUSE;
    let mut failures = 0;
    loop {
        match history(arn).await {
            Ok(events) => {
                failures = 0;
                let new = events.get(followed.events..).unwrap_or_default();
                for event in new {
                    followed.events += 1;
                    if let Some(ended) = followed.take(event) {
                        return ended;
                    }
                }
            }
            Err(reason) if failures < MAX_FAILURES => {
                failures += 1;
                eprintln!("{reason}");
            }
            Err(reason) => return Err(reason),
        }
        sleep(pause).await;
        pause = LAST_PAUSE.min(pause * 2);
    }
}

async fn history(arn: &str) -> Result<Vec<Value>, String> {
    let mut aws = Command::new("aws");
    aws.args([
        "stepfunctions",
        "get-execution-history",
        "--output",
        "json",
        "--execution-arn",
        arn,
    ]);
    let output = aws.kill_on_drop(true).output().await.map_err(|error| format!("aws: {error}"))?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    #[derive(Deserialize)]
    struct History {
        events: Vec<Value>,
    }
    let history: History = serde_json::from_slice(&output.stdout)
        .map_err(|error| format!("the history can't be read: {error}"))?;
    Ok(history.events)
}

/// What is known of an execution.
struct Followed {
    arn: String,
    events: usize,
    chain: Chain,
}

impl Followed {
    fn new(arn: &str) -> Self {
        Self { arn: arn.to_owned(), events: 0, chain: Chain::default() }
    }

    /// Takes the next event, and shows it if it is progress. Returns how the execution ended, if it
    /// has.
    fn take(&mut self, event: &Value) -> Option<Result<(), String>> {
        match event["type"].as_str().unwrap_or_default() {
            "TaskSucceeded" => {
                let succeeded = &event["taskSucceededEventDetails"];
                if succeeded["resourceType"] == FUNCTION {
                    return self.ran(&json_in(&succeeded["output"])).err().map(Err);
                }
                None
            }
            "TaskFailed" => {
                let failed = &event["taskFailedEventDetails"];
                if failed["resourceType"] == FUNCTION {
                    eprintln!("run {} failed: {}", self.chain.runs + 1, failure(failed));
                    eprintln!(
                        "It is tried again after 1, 2, 4 and 8 minutes, unless the error is final. Ctrl-C leaves it running."
                    );
                }
                None
            }
            "ExecutionSucceeded" if self.chain.runs == 0 => {
                let output = json_in(&event["executionSucceededEventDetails"]["output"]);
                let running = output["running"]["Executions"].as_array().into_iter().flatten();
                let mut running =
                    running.filter_map(|execution| execution["ExecutionArn"].as_str());
                // The newest comes first, and may be this one itself.
                let other = running.find(|arn| *arn != self.arn).unwrap_or_default();
                Some(Err(format!(
                    "Nothing was done: another reconcile is running, or waits to try again.\n\
                     To see what it does:  make follow EXECUTION={other}\n\
                     To stop it:           make stop-reconciles"
                )))
            }
            "ExecutionSucceeded" => Some(Ok(())),
            "ExecutionFailed" => Some(Err(failure(&event["executionFailedEventDetails"]))),
            "ExecutionTimedOut" => Some(Err("It took longer than a day.".to_owned())),
            "ExecutionAborted" => Some(Err("Somebody stopped it.".to_owned())),
            _ => None,
        }
    }

    fn ran(&mut self, output: &Value) -> Result<(), String> {
        let added = self.chain.add(&output["Payload"]);
        added.map_err(|error| format!("the report of a run can't be read: {error}"))?;
        let chain = &self.chain;
        let runs = if chain.runs == 1 { "run" } else { "runs" };
        eprintln!(
            "{} {runs} done: {} keys compared, {} mended, {} refused",
            chain.runs,
            chain.compared(),
            chain.mended(),
            chain.refused()
        );
        Ok(())
    }
}

/// An error with its message. The cause of a function's error is the error as JSON.
fn failure(details: &Value) -> String {
    let error = details["error"].as_str().unwrap_or_default();
    let cause = details["cause"].as_str().unwrap_or_default();
    let answer = json_in(&details["cause"]);
    let message = answer["errorMessage"].as_str().unwrap_or(cause);
    // Some messages begin with the name of the error.
    let named = format!("{error}: ");
    if message.starts_with(&named) { message.to_owned() } else { named + message }
}

/// The JSON in a string.
fn json_in(text: &Value) -> Value {
    text.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn execution(kind: &str, details: &str, content: Value) -> Value {
        json!({"type": kind, details: content})
    }

    #[test]
    fn an_execution_that_left_the_work_to_another_one_names_it() {
        let executions = ["arn:own", "arn:other"].map(|arn| json!({"ExecutionArn": arn}));
        let running = json!({"running": {"Executions": executions}});
        let output = json!({"output": running.to_string()});
        let ended = Followed::new("arn:own").take(&execution(
            "ExecutionSucceeded",
            "executionSucceededEventDetails",
            output,
        ));
        assert!(ended.unwrap().unwrap_err().contains("make follow EXECUTION=arn:other\n"));
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
            let failed = execution("ExecutionFailed", "executionFailedEventDetails", failed);
            let ended = Followed::new("arn:own").take(&failed).unwrap();
            assert_eq!(ended.unwrap_err(), format!("ReconcileIncomplete: {shown}"));
        }
    }
}
