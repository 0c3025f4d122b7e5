//! Lambda: runs the real binary behind a Runtime API of its own, one invocation at a time, and
//! serves the part of Lambda's API that invokes it and points its alias at a version.
//!
//! As in Lambda, a process that exceeds its time-out is killed. An invocation whose process dies
//! fails with `Runtime.ExitError`, and the next one starts another process.

mod api;
mod failure;
mod logs;
mod options;
mod process;
mod runner;
mod runtime_api;
mod sandbox;
mod versions;

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Value;
use tokio::sync::broadcast;

use crate::http::Server;
use crate::sync::lock;
use runner::Runner;

pub use failure::{Failure, StartError};
pub use logs::{LogLine, Stream};
pub use options::FunctionOptions;
pub use process::Usage;
pub use runner::Invocation;
pub use versions::Version;

/// A function. Clones share it; its process is killed with the last of them.
#[derive(Clone)]
pub struct Function {
    runner: Arc<Runner>,
    server: Server,
}

impl Function {
    /// Serves the API; the process starts with [`Function::warm`] or the first invocation.
    pub async fn start(options: FunctionOptions) -> io::Result<Self> {
        let port = options.port;
        let runner = Arc::new(Runner::new(options));
        let handler = Arc::downgrade(&runner);
        let serve = move |request| api::handle(handler.clone(), request);
        Ok(Self { runner, server: Server::start(port, serve).await? })
    }

    /// The address of the API, as `aws lambda invoke --endpoint-url` takes it.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Starts the process if none runs, and waits for its first poll. Returns how long that took.
    pub async fn warm(&self) -> Result<Option<Duration>, StartError> {
        let mut sandbox = self.runner.sandbox.lock().await;
        Ok(self.runner.warm(&mut sandbox).await?.1)
    }

    /// Invokes with the function's own time-out.
    pub async fn invoke(&self, payload: &Value) -> Result<Invocation, StartError> {
        self.invoke_within(payload, self.runner.options.timeout).await
    }

    pub async fn invoke_text(&self, payload: String) -> Result<Invocation, StartError> {
        self.runner.clone().invoke(payload.into(), self.runner.options.timeout).await
    }

    pub async fn invoke_within(
        &self,
        payload: &Value,
        timeout: Duration,
    ) -> Result<Invocation, StartError> {
        self.runner.clone().invoke(payload.to_string().into(), timeout).await
    }

    /// Everything that the function has printed so far, in all its processes.
    pub fn logs(&self) -> Vec<LogLine> {
        self.runner.logs.since(0)
    }

    /// Every line that the function prints from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<LogLine> {
        self.runner.logs.subscribe()
    }

    /// How many processes there have been.
    pub fn starts(&self) -> usize {
        self.runner.starts.load(Ordering::Relaxed)
    }

    /// What the running process has used. Waits for a running invocation to end.
    pub async fn usage(&self) -> io::Result<Usage> {
        let sandbox = self.runner.sandbox.lock().await;
        let running = sandbox.as_ref().ok_or(io::ErrorKind::NotFound)?;
        running.process.usage()
    }

    pub fn live(&self) -> Version {
        lock(&self.runner.versions).live().1.clone()
    }

    /// Publishes a version and points the alias at it, as a deployment does. Invocations that are
    /// running end with the version that they have.
    pub fn publish(&self, version: Version) {
        lock(&self.runner.versions).publish(version);
    }

    /// Points the alias at another version, as `UpdateAlias` does. False if there is none with this
    /// number.
    pub fn point_live_at(&self, number: usize) -> bool {
        lock(&self.runner.versions).point_at(number)
    }

    /// Ends the process; the next invocation is a cold start.
    pub async fn stop(&self) {
        if let Some(mut sandbox) = self.runner.sandbox.lock().await.take() {
            sandbox.process.kill().await;
        }
    }
}
