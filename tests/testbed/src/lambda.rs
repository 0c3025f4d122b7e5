//! Lambda: runs the real binary behind a Runtime API of its own, one invocation at a time, and
//! serves the part of Lambda's API that invokes it, and its log.
//!
//! As in Lambda, a process that exceeds its time-out is killed. An invocation whose process dies
//! fails with `Runtime.ExitError`, and the next one starts another process.

mod failure;
mod logs;
mod process;
mod runtime_api;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::Method;
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::aws::FUNCTION;
use crate::http::{Outcome, Reply, Request, Server};
use logs::Logs;
use process::Process;
use runtime_api::Job;

pub use failure::{Failure, StartError};
pub use logs::{LogLine, Stream};
pub use process::Usage;

/// What a function is started with.
#[derive(Debug, Clone)]
pub struct FunctionOptions {
    pub binary: PathBuf,
    /// The environment that is the function's own; Lambda's variables are added.
    pub env: BTreeMap<String, String>,
    /// How long an invocation may take.
    pub timeout: Duration,
    /// The port of the API; 0 for any.
    pub port: u16,
}

impl FunctionOptions {
    /// The binary with this environment and a minute.
    pub fn new(binary: impl Into<PathBuf>, env: BTreeMap<String, String>) -> Self {
        Self { binary: binary.into(), env, timeout: Duration::from_secs(60), port: 0 }
    }
}

#[derive(Debug, Clone)]
pub struct Invocation {
    pub request_id: String,
    /// The function's answer, or the error that the invoker sees.
    pub result: Result<Value, Failure>,
    /// From the moment the process had the payload to its answer.
    pub duration: Duration,
    /// From the start of the process to its first poll, if this invocation started it.
    pub init: Option<Duration>,
    /// What was printed meanwhile. If this invocation started the process, from its start on.
    pub logs: Vec<LogLine>,
}

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
        let runner = Arc::new(Runner {
            options,
            logs: Logs::default(),
            process: Mutex::default(),
            invocations: AtomicUsize::new(0),
            starts: AtomicUsize::new(0),
        });
        let server = Server::sharing(port, &runner, handle).await?;
        Ok(Self { runner, server })
    }

    /// The address of the API, as `aws lambda invoke --endpoint-url` takes it.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Starts the process if none runs, and waits for its first poll. Returns how long that took.
    pub async fn warm(&self) -> Result<Option<Duration>, StartError> {
        let mut slot = self.runner.process.lock().await;
        Ok(self.runner.warm(&mut slot).await?.1)
    }

    /// Invokes with the function's own time-out.
    pub async fn invoke(&self, payload: &Value) -> Result<Invocation, StartError> {
        self.invoke_within(payload, self.runner.options.timeout).await
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

    /// How many processes there have been.
    pub fn starts(&self) -> usize {
        self.runner.starts.load(Ordering::Relaxed)
    }

    /// What the running process has used. Waits for a running invocation to end. An error where the
    /// system is not Linux.
    pub async fn usage(&self) -> io::Result<Usage> {
        let running = self.runner.process.lock().await;
        running.as_ref().ok_or(io::ErrorKind::NotFound)?.usage()
    }

    /// Ends the process; the next invocation is a cold start.
    pub async fn stop(&self) {
        if let Some(mut process) = self.runner.process.lock().await.take() {
            process.kill().await;
        }
    }
}

/// A function. It has at most one process, and invocations take turns.
struct Runner {
    options: FunctionOptions,
    logs: Logs,
    process: Mutex<Option<Process>>,
    invocations: AtomicUsize,
    starts: AtomicUsize,
}

impl Runner {
    /// Starts a process if none runs. Returns it, and how long its start took.
    async fn warm<'a>(
        &self,
        slot: &'a mut Option<Process>,
    ) -> Result<(&'a mut Process, Option<Duration>), StartError> {
        // A process that ended is dropped first, so that a failed start does not leave it.
        if let Some(mut running) = slot.take()
            && !running.has_ended()
        {
            return Ok((slot.insert(running), None));
        }
        let (process, init) = Process::start(&self.options, &self.logs).await?;
        self.starts.fetch_add(1, Ordering::Relaxed);
        Ok((slot.insert(process), Some(init)))
    }

    /// Invokes in a task of its own: if the caller gives up, the process can still hand in its
    /// answer.
    async fn invoke(
        self: Arc<Self>,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Invocation, StartError> {
        let invocation = tokio::spawn(async move { self.invoke_now(payload, timeout).await });
        invocation.await.unwrap_or_else(|ended| {
            let failure = Failure::new("Testbed.Stopped", ended.to_string());
            Err(StartError { failure, logs: Vec::new() })
        })
    }

    async fn invoke_now(
        &self,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Invocation, StartError> {
        let mut slot = self.process.lock().await;
        let place = self.logs.len();
        let (process, init) = self.warm(&mut slot).await?;
        let number = self.invocations.fetch_add(1, Ordering::Relaxed);
        let request_id = format!("00000000-0000-4000-8000-{number:012}");
        let job = Job { request_id: request_id.clone(), payload, timeout };
        let (answered, duration) = process.invoke(job).await;
        let result = answered.and_then(|answer| {
            serde_json::from_slice(&answer).map_err(|error| {
                let message = format!("the answer is not JSON: {error}");
                Failure::new("Runtime.InvalidResponse", message)
            })
        });
        Ok(Invocation { request_id, result, duration, init, logs: self.logs.since(place) })
    }
}

/// Serves Lambda's API below `/2015-03-31/functions/{name}`: synchronous invocations, and the log.
async fn handle(function: Arc<Runner>, request: Request) -> Outcome {
    let path = request.path.strip_prefix("/2015-03-31/functions/");
    match (&request.method, path.and_then(|path| path.split_once('/'))) {
        (&Method::POST, Some((FUNCTION, "invocations"))) => invoke(function, request.body).await,
        (&Method::GET, Some((FUNCTION, "log"))) => {
            let lines = function.logs.since(0);
            let lines: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
            Reply::new(200, "text/plain; charset=UTF-8", lines.join("\n"))
        }
        _ => Reply::json(404, &json!({"Message": format!("no function at {}", request.path)}))
            .with("x-amzn-errortype", "ResourceNotFoundException"),
    }
    .into()
}

/// Lambda answers 200 for an error of the function, and marks it with a header.
async fn invoke(function: Arc<Runner>, payload: Bytes) -> Reply {
    let timeout = function.options.timeout;
    let result = match function.invoke(payload, timeout).await {
        Ok(invocation) => invocation.result,
        Err(error) => Err(error.failure),
    };
    match result {
        Ok(answer) => Reply::json(200, &answer),
        Err(failure) => Reply::json(200, &failure).with("x-amz-function-error", "Unhandled"),
    }
}
