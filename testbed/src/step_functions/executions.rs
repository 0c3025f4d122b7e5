//! Executions, running and ended.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::history::History;
use crate::aws::{ACCOUNT_ID, REGION};
use crate::step_functions::NAME;
use crate::sync::lock;

/// How far an execution is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It runs.
    Running,
    /// It ended in a state that succeeds.
    Succeeded,
    /// It ended in an error.
    Failed,
    /// It took longer than the definition allows.
    TimedOut,
    /// Somebody stopped it.
    Aborted,
}

impl Status {
    /// As the API names it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Succeeded => "SUCCEEDED",
            Self::Failed => "FAILED",
            Self::TimedOut => "TIMED_OUT",
            Self::Aborted => "ABORTED",
        }
    }
}

/// An execution.
#[derive(Debug, Clone)]
pub struct Execution {
    /// Its ARN.
    pub arn: String,
    /// Its name.
    pub name: String,
    /// How far it is.
    pub status: Status,
    /// When it started, in seconds since the epoch.
    pub started: f64,
    /// What it was started with, as text.
    pub input: String,
    /// How it ended, once it has.
    pub ended: Option<Ended>,
    pub(super) stopped: Option<f64>,
    pub(super) history: History,
}

/// How an execution ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// With this output.
    Succeeded(Value),
    /// With this error and its cause.
    Failed(String, String),
    /// It took longer than the definition allows.
    TimedOut,
    /// Somebody stopped it.
    Aborted,
}

/// All executions of a state machine, the oldest first.
#[derive(Default)]
pub(super) struct Executions {
    all: Mutex<Vec<Kept>>,
    changes: watch::Sender<()>,
}

struct Kept {
    execution: Execution,
    task: Option<AbortHandle>,
}

impl Executions {
    /// Enters a new execution, and returns its ARN.
    pub fn enter(&self, input: String) -> String {
        let mut all = lock(&self.all);
        let name = format!("00000000-0000-4000-8000-{:012}", all.len());
        let arn = format!("arn:aws:states:{REGION}:{ACCOUNT_ID}:execution:{NAME}:{name}");
        let execution = Execution {
            arn: arn.clone(),
            name,
            status: Status::Running,
            started: now(),
            input,
            ended: None,
            stopped: None,
            history: History::default(),
        };
        all.push(Kept { execution, task: None });
        arn
    }

    /// Keeps the task of an execution, so that it can be stopped.
    pub fn keep(&self, arn: &str, task: AbortHandle) {
        self.change(arn, |kept| kept.task = Some(task));
    }

    /// Enters an event into the history of an execution.
    pub fn record(&self, arn: &str, kind: &str, details: &str, content: Value) {
        self.change(arn, |kept| kept.execution.history.enter(now(), kind, details, content));
    }

    /// Ends an execution, unless it has ended.
    pub fn end(&self, arn: &str, ended: Ended) {
        self.change(arn, |kept| {
            let execution = &mut kept.execution;
            if execution.ended.is_some() {
                return;
            }
            let (status, kind, details, content) = match &ended {
                Ended::Succeeded(output) => {
                    let output = json!({"output": output.to_string()});
                    let details = "executionSucceededEventDetails";
                    (Status::Succeeded, "ExecutionSucceeded", details, output)
                }
                Ended::Failed(error, cause) => {
                    let failed = json!({"error": error, "cause": cause});
                    (Status::Failed, "ExecutionFailed", "executionFailedEventDetails", failed)
                }
                Ended::TimedOut => {
                    let details = "executionTimedOutEventDetails";
                    (Status::TimedOut, "ExecutionTimedOut", details, json!({}))
                }
                Ended::Aborted => {
                    let details = "executionAbortedEventDetails";
                    (Status::Aborted, "ExecutionAborted", details, json!({}))
                }
            };
            execution.history.enter(now(), kind, details, content);
            execution.stopped = Some(now());
            execution.status = status;
            execution.ended = Some(ended);
        });
        self.changes.send_replace(());
    }

    /// Stops an execution. What it has called goes on by itself.
    pub fn abort(&self, arn: &str) {
        self.change(arn, |kept| kept.task.take().iter().for_each(AbortHandle::abort));
        self.end(arn, Ended::Aborted);
    }

    /// Stops all of them.
    pub fn abort_all(&self) {
        lock(&self.all).iter().filter_map(|kept| kept.task.as_ref()).for_each(AbortHandle::abort);
    }

    /// Waits for the end of an execution; none if there is no such execution.
    pub async fn ended(&self, arn: &str) -> Option<Ended> {
        let mut changes = self.changes.subscribe();
        loop {
            if let Some(ended) = self.find(arn)?.ended {
                return Some(ended);
            }
            changes.changed().await.ok()?;
        }
    }

    /// An execution by its ARN.
    pub fn find(&self, arn: &str) -> Option<Execution> {
        let all = lock(&self.all);
        all.iter().find(|kept| kept.execution.arn == arn).map(|kept| kept.execution.clone())
    }

    /// All of them, the newest first.
    pub fn all(&self) -> Vec<Execution> {
        lock(&self.all).iter().rev().map(|kept| kept.execution.clone()).collect()
    }

    /// So many of those with a status, the newest first.
    pub fn listed(&self, status: Option<&str>, most: u64) -> Vec<Execution> {
        let listed = self.all().into_iter();
        let listed = listed.filter(|one| status.is_none_or(|status| one.status.as_str() == status));
        listed.take(usize::try_from(most).unwrap_or(usize::MAX)).collect()
    }

    fn change(&self, arn: &str, change: impl FnOnce(&mut Kept)) {
        if let Some(kept) = lock(&self.all).iter_mut().find(|kept| kept.execution.arn == arn) {
            change(kept);
        }
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
