//! Step Functions: runs the state machine of the template, and serves the part of the API that
//! starts, follows and stops its executions.
//!
//! [`Definition`] takes only the states and fields that the template's definition uses, and refuses
//! everything else, so that nothing is ignored here that AWS would act on.

mod api;
mod choice;
mod definition;
mod execution;
mod executions;
mod history;
mod path;
mod retry;
mod task;

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::aws::{ACCOUNT_ID, REGION};
use crate::http::Server;
use crate::lambda::Failure;
use executions::Executions;

pub use definition::Definition;
pub use executions::{Ended, Execution, Status};

/// The state machine of the template.
pub const RECONCILE: &str = include_str!("../../statemachine/reconcile.asl.json");
/// Its name here.
pub const NAME: &str = "ecom-settings-exporter-reconcile";

/// The ARN of the state machine here.
pub fn arn() -> String {
    format!("arn:aws:states:{REGION}:{ACCOUNT_ID}:stateMachine:{NAME}")
}

type Invoked = Pin<Box<dyn Future<Output = Result<Value, Failure>> + Send>>;
type Invoke = Box<dyn Fn(Value) -> Invoked + Send + Sync>;

/// How a state machine is run.
#[derive(Debug, Clone, Copy)]
pub struct StateMachineOptions {
    /// The port of the API; 0 for any.
    pub port: u16,
    /// One second of the waits before retries.
    pub second: Duration,
}

impl Default for StateMachineOptions {
    /// Any port, and seconds as long as they are.
    fn default() -> Self {
        Self { port: 0, second: Duration::from_secs(1) }
    }
}

/// What the API and the executions share.
struct Shared {
    definition: Definition,
    invoke: Invoke,
    second: Duration,
    executions: Executions,
}

/// A running state machine. Clones share it; its executions end with the last of them.
#[derive(Clone)]
pub struct StateMachine(Arc<Owner>);

struct Owner {
    shared: Arc<Shared>,
    server: Server,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.executions.abort_all();
    }
}

impl StateMachine {
    /// Serves a definition whose function is `invoke`.
    pub async fn start<I, F>(
        definition: Definition,
        options: StateMachineOptions,
        invoke: I,
    ) -> io::Result<Self>
    where
        I: Fn(Value) -> F + Send + Sync + 'static,
        F: Future<Output = Result<Value, Failure>> + Send + 'static,
    {
        let invoke: Invoke = Box::new(move |payload| Box::pin(invoke(payload)));
        let StateMachineOptions { port, second } = options;
        let executions = Executions::default();
        let shared = Arc::new(Shared { definition, invoke, second, executions });
        let serving = shared.clone();
        let server = Server::start(port, move |request| api::handle(serving.clone(), request));
        Ok(Self(Arc::new(Owner { server: server.await?, shared })))
    }

    /// The address, as `AWS_ENDPOINT_URL_SFN` takes it.
    pub fn url(&self) -> String {
        self.0.server.url()
    }

    /// Starts an execution, and returns its ARN.
    pub fn begin(&self, input: &Value) -> String {
        execution::begin(&self.0.shared, input.to_string(), input.clone())
    }

    /// Waits for the end of an execution. None if there is no such execution.
    pub async fn ended(&self, arn: &str) -> Option<Ended> {
        self.0.shared.executions.ended(arn).await
    }

    /// Starts an execution, and waits for its end.
    pub async fn run(&self, input: &Value) -> Option<Ended> {
        let arn = self.begin(input);
        self.ended(&arn).await
    }

    /// Stops an execution. What it has called goes on by itself.
    pub fn stop(&self, arn: &str) {
        self.0.shared.executions.abort(arn);
    }

    /// All executions, the newest first.
    pub fn executions(&self) -> Vec<Execution> {
        self.0.shared.executions.all()
    }
}
