//! One execution, from state to state.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::definition::{Pass, State, Task};
use super::executions::Ended;
use super::path::Path;
use super::retry::names;
use super::{Shared, arn as state_machine_arn};
use crate::lambda::Failure;
use crate::sync::pause;

/// Starts an execution. Returns its ARN.
pub fn begin(shared: &Arc<Shared>, text: String, input: Value) -> String {
    let arn = shared.executions.enter(text.clone());
    let run = Run {
        shared: shared.clone(),
        arn: arn.clone(),
        context: json!({
            "Execution": {"Id": arn, "Input": input},
            "StateMachine": {"Id": state_machine_arn()},
        }),
    };
    run.record("ExecutionStarted", "executionStartedEventDetails", json!({"input": text}));
    let task = tokio::spawn(async move { run.finish(input).await });
    shared.executions.keep(&arn, task.abort_handle());
    arn
}

struct Run {
    shared: Arc<Shared>,
    arn: String,
    context: Value,
}

/// What comes after a state.
enum Step<'a> {
    Next(&'a str, Value),
    End(Ended),
}

impl Run {
    async fn finish(self, input: Value) {
        let limit = Duration::from_secs(self.shared.definition.timeout_seconds.into());
        let ended = timeout(limit, self.states(input)).await.unwrap_or(Ended::TimedOut);
        self.shared.executions.end(&self.arn, ended);
    }

    async fn states(&self, mut input: Value) -> Ended {
        let definition = &self.shared.definition;
        let mut name = definition.start_at.as_str();
        loop {
            let Some(state) = definition.states.get(name) else {
                return runtime_error(format!("there is no state {name}"));
            };
            let kind = state.kind();
            let entered = json!({"name": name, "input": input.to_string()});
            self.record(&format!("{kind}StateEntered"), "stateEnteredEventDetails", entered);
            let step = self.step(state, input).await;
            let step = step.unwrap_or_else(|path| {
                Step::End(runtime_error(format!("{path:?} leads nowhere in {name}")))
            });
            let output = match &step {
                Step::Next(_, output) | Step::End(Ended::Succeeded(output)) => output,
                Step::End(_) => return step.into_end(),
            };
            let exited = json!({"name": name, "output": output.to_string()});
            self.record(&format!("{kind}StateExited"), "stateExitedEventDetails", exited);
            match step {
                Step::Next(next, output) => (name, input) = (next, output),
                Step::End(ended) => return ended,
            }
        }
    }

    /// Runs one state. An error is a path that leads nowhere.
    async fn step<'a>(&'a self, state: &'a State, input: Value) -> Result<Step<'a>, Path> {
        match state {
            State::Task(task) => self.task(task, input).await,
            State::Choice(choices) => {
                for choice in &choices.choices {
                    if choice.rule.holds(&input, &self.context)? {
                        return Ok(Step::Next(&choice.next, input));
                    }
                }
                Ok(Step::Next(&choices.default, input))
            }
            State::Pass(Pass { input_path, result_path, next, .. }) => {
                let result = self.find(input_path, &input)?;
                let output = put(result_path.as_ref(), input, result);
                Ok(match next {
                    Some(next) => Step::Next(next, output),
                    None => Step::End(Ended::Succeeded(output)),
                })
            }
            State::Succeed(_) => Ok(Step::End(Ended::Succeeded(input))),
            State::Fail(fail) => {
                let text = |path| {
                    let found = self.find(path, &input)?;
                    Ok(found.as_str().map_or_else(|| found.to_string(), str::to_owned))
                };
                Ok(Step::End(Ended::Failed(text(&fail.error_path)?, text(&fail.cause_path)?)))
            }
        }
    }

    async fn task<'a>(&'a self, task: &'a Task, input: Value) -> Result<Step<'a>, Path> {
        let parameters = task.parameters.fill(&input, &self.context)?;
        let mut tries = vec![0; task.retry.len()];
        let failure = loop {
            let failure = match self.attempt(task, &parameters).await {
                Ok(result) => {
                    let selector = task.result_selector.as_ref();
                    let result = selector.map_or_else(
                        || Ok(result.clone()),
                        |one| one.fill(&result, &self.context),
                    )?;
                    let output = put(task.result_path.as_ref(), input, result);
                    return Ok(Step::Next(&task.next, output));
                }
                Err(failure) => failure,
            };
            let retriers = task.retry.iter().zip(&mut tries);
            let mut waits = retriers.filter_map(|(retrier, tries)| {
                let wait = retrier.wait(&failure.error_type, *tries, self.shared.second)?;
                *tries += 1;
                Some(wait)
            });
            let Some(wait) = waits.next() else { break failure };
            pause(wait).await;
        };
        let error = failure.error_type.as_str();
        let caught = task.catch.iter().find(|catcher| names(&catcher.error_equals, error));
        Ok(match caught {
            Some(catcher) => {
                let result = json!({"Error": error, "Cause": cause(&failure)});
                Step::Next(&catcher.next, put(catcher.result_path.as_ref(), input, result))
            }
            None => Step::End(Ended::Failed(error.to_owned(), cause(&failure))),
        })
    }

    async fn attempt(&self, task: &Task, parameters: &Value) -> Result<Value, Failure> {
        let (service, call) = task.resource.name();
        let details = |more: Value| {
            let mut details = json!({"resourceType": service, "resource": call});
            if let (Some(details), Value::Object(more)) = (details.as_object_mut(), more) {
                details.extend(more);
            }
            details
        };
        let scheduled = details(json!({"parameters": parameters.to_string()}));
        self.record("TaskScheduled", "taskScheduledEventDetails", scheduled);
        let limit = Duration::from_secs(task.timeout_seconds.into());
        let called = timeout(limit, task.resource.call(&self.shared, parameters));
        let result = called.await.unwrap_or_else(|_| {
            let error_type = "States.Timeout".to_owned();
            Err(Failure { error_type, error_message: format!("no answer within {limit:?}") })
        });
        match &result {
            Ok(output) => {
                let output = details(json!({"output": output.to_string()}));
                self.record("TaskSucceeded", "taskSucceededEventDetails", output);
            }
            Err(failure) => {
                let failed = json!({"error": failure.error_type, "cause": cause(failure)});
                self.record("TaskFailed", "taskFailedEventDetails", details(failed));
            }
        }
        result
    }

    fn find(&self, path: &Path, input: &Value) -> Result<Value, Path> {
        path.find(input, &self.context).cloned().ok_or_else(|| path.clone())
    }

    fn record(&self, kind: &str, details: &str, content: Value) {
        self.shared.executions.record(&self.arn, kind, details, content);
    }
}

impl Step<'_> {
    fn into_end(self) -> Ended {
        match self {
            Self::Next(_, output) => Ended::Succeeded(output),
            Self::End(ended) => ended,
        }
    }
}

/// A result where its path says; in place of the input if there is no path.
fn put(path: Option<&Path>, input: Value, result: Value) -> Value {
    match path {
        Some(path) => path.put(input, result),
        None => result,
    }
}

/// The error of a definition that its input does not fit, which nothing catches.
fn runtime_error(cause: String) -> Ended {
    Ended::Failed("States.Runtime".to_owned(), cause)
}

/// A failure as the cause of an error: Lambda's answer to the invocation.
fn cause(failure: &Failure) -> String {
    serde_json::to_string(failure).unwrap_or_default()
}
