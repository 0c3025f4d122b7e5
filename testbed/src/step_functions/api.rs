//! The API: the JSON 1.0 protocol of Step Functions, as far as `make reconcile` uses it.

use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::executions::{Ended, Execution};
use super::{Shared, arn, execution};
use crate::http::{Outcome, Reply, Request};

/// Answers one request.
pub async fn handle(shared: Arc<Shared>, request: Request) -> Outcome {
    let answer = match request.operation() {
        Some("StartExecution") => read(&request).and_then(|asked| start(&shared, asked)),
        Some("StopExecution") => read(&request).and_then(|asked| stop(&shared, &asked)),
        Some("DescribeExecution") => read(&request).and_then(|asked| describe(&shared, &asked)),
        Some("GetExecutionHistory") => read(&request).and_then(|asked| history(&shared, &asked)),
        Some("ListExecutions") => read(&request).and_then(|asked| list(&shared, &asked)),
        _ => Err(refused("UnknownOperationException", "this call is not served here")),
    };
    let reply = match answer {
        Ok(body) => Reply::json(200, &body),
        Err(Refused { kind, message }) => {
            let body = json!({"__type": kind, "message": message});
            Reply::json(400, &body).with("x-amzn-errortype", kind)
        }
    };
    reply.with("content-type", "application/x-amz-json-1.0").into()
}

type Answer = Result<Value, Refused>;

/// An error of the API.
struct Refused {
    kind: &'static str,
    message: String,
}

fn refused(kind: &'static str, message: impl Into<String>) -> Refused {
    Refused { kind, message: message.into() }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StartExecution {
    state_machine_arn: String,
    input: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct OfExecution {
    execution_arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct History {
    execution_arn: String,
    #[serde(rename = "maxResults")]
    _max_results: Option<u32>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ListExecutions {
    state_machine_arn: String,
    status_filter: Option<String>,
    max_results: Option<u64>,
}

fn start(shared: &Arc<Shared>, asked: StartExecution) -> Answer {
    is_ours(&asked.state_machine_arn)?;
    let input = serde_json::from_str(&asked.input)
        .map_err(|fault| refused("InvalidExecutionInput", fault.to_string()))?;
    let arn = execution::begin(shared, asked.input, input);
    let started = find(shared, &arn)?.started;
    Ok(json!({"executionArn": arn, "startDate": started}))
}

fn stop(shared: &Shared, asked: &OfExecution) -> Answer {
    find(shared, &asked.execution_arn)?;
    shared.executions.abort(&asked.execution_arn);
    Ok(json!({"stopDate": find(shared, &asked.execution_arn)?.stopped}))
}

fn describe(shared: &Shared, asked: &OfExecution) -> Answer {
    let execution = find(shared, &asked.execution_arn)?;
    let mut described = summary(&execution);
    described["input"] = json!(execution.input);
    match execution.ended {
        Some(Ended::Succeeded(output)) => described["output"] = json!(output.to_string()),
        Some(Ended::Failed(error, cause)) => {
            described["error"] = json!(error);
            described["cause"] = json!(cause);
        }
        _ => {}
    }
    Ok(described)
}

/// All of it: a page of the real history has 1,000 events at the most.
fn history(shared: &Shared, asked: &History) -> Answer {
    Ok(json!({"events": find(shared, &asked.execution_arn)?.history.events()}))
}

fn list(shared: &Shared, asked: &ListExecutions) -> Answer {
    is_ours(&asked.state_machine_arn)?;
    let most = asked.max_results.unwrap_or(100);
    let listed = shared.executions.listed(asked.status_filter.as_deref(), most);
    Ok(json!({"executions": listed.iter().map(summary).collect::<Vec<_>>()}))
}

fn summary(execution: &Execution) -> Value {
    let mut summary = json!({
        "executionArn": execution.arn, "stateMachineArn": arn(), "name": execution.name,
        "status": execution.status.as_str(), "startDate": execution.started,
    });
    if let Some(stopped) = execution.stopped {
        summary["stopDate"] = json!(stopped);
    }
    summary
}

fn find(shared: &Shared, arn: &str) -> Result<Execution, Refused> {
    shared.executions.find(arn).ok_or_else(|| refused("ExecutionDoesNotExist", arn))
}

fn is_ours(asked: &str) -> Result<(), Refused> {
    if asked == arn() { Ok(()) } else { Err(refused("StateMachineDoesNotExist", asked)) }
}

fn read<T: DeserializeOwned>(request: &Request) -> Result<T, Refused> {
    request.json().map_err(|fault| refused("ValidationException", fault.to_string()))
}
