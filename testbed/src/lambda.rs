//! Lambda: runs the real binary behind a Runtime API of its own, one invocation at a time, and
//! serves the Invoke API for it.
//!
//! As in Lambda, a process that outlives its time-out is killed, one that dies answers with
//! `Runtime.ExitError`, and the next invocation starts another.

mod invoke_api;
mod logs;
mod process;
mod runtime_api;
mod sandbox;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper::body::Bytes;
use serde_json::Value;
use tokio::sync::{Mutex, broadcast};

use crate::http::Server;
use logs::Logs;
use runtime_api::Job;
use sandbox::Sandbox;

pub use logs::{LogLine, Stream};
pub use process::Usage;
pub use runtime_api::Failure;

/// What a function is started with.
#[derive(Debug, Clone)]
pub struct FunctionOptions {
    /// The binary.
    pub binary: PathBuf,
    /// The environment that is the function's own; Lambda's variables are added.
    pub env: BTreeMap<String, String>,
    /// The function's name.
    pub name: String,
    /// Its memory in MB, which is told and not enforced.
    pub memory_mb: u32,
    /// How long an invocation may take.
    pub timeout: Duration,
    /// The port of the Invoke API; 0 for any.
    pub port: u16,
}

impl FunctionOptions {
    /// The binary with this environment, 128 MB and a minute.
    pub fn new(binary: impl Into<PathBuf>, env: BTreeMap<String, String>) -> Self {
        Self {
            binary: binary.into(),
            env,
            name: "ecom-settings-exporter".to_owned(),
            memory_mb: 128,
            timeout: Duration::from_secs(60),
            port: 0,
        }
    }
}

/// A function. Clones share it; its process is killed with the last of them.
#[derive(Clone)]
pub struct Function {
    shared: Arc<Shared>,
    server: Arc<Server>,
}

struct Shared {
    options: FunctionOptions,
    logs: Logs,
    sandbox: Mutex<Option<Sandbox>>,
    invocations: AtomicUsize,
    starts: AtomicUsize,
}

/// What came of one invocation.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// The id that the function saw.
    pub request_id: String,
    /// The function's answer, or the error that the invoker sees.
    pub result: Result<Value, Failure>,
    /// From the moment the process had the payload to its answer.
    pub duration: Duration,
    /// From the start of the process to its first poll, where this invocation started it.
    pub init: Option<Duration>,
    /// What was printed meanwhile, from the start of the process where this invocation started it.
    pub logs: Vec<LogLine>,
}

/// Why a function could not be started.
#[derive(Debug)]
pub enum StartError {
    /// The binary cannot be run.
    Spawn(PathBuf, io::Error),
    /// It ended, or took too long, before it asked for an invocation.
    Init {
        /// What it reported, else how it ended.
        failure: Failure,
        /// What it printed.
        logs: Vec<LogLine>,
    },
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Spawn(binary, error) => write!(f, "{} cannot be run: {error}", binary.display()),
            Self::Init { failure, logs } => {
                write!(f, "the function did not start: {failure}")?;
                logs.iter().try_for_each(|line| write!(f, "\n  {}", line.text))
            }
        }
    }
}

impl std::error::Error for StartError {}

impl Function {
    /// Serves the Invoke API; the process starts with [`Function::warm`] or the first invocation.
    pub async fn start(options: FunctionOptions) -> io::Result<Self> {
        let port = options.port;
        let shared = Arc::new(Shared {
            options,
            logs: Logs::default(),
            sandbox: Mutex::default(),
            invocations: AtomicUsize::new(0),
            starts: AtomicUsize::new(0),
        });
        let handler = Arc::downgrade(&shared);
        let serve = move |request| invoke_api::handle(handler.clone(), request);
        Ok(Self { shared, server: Arc::new(Server::start(port, serve).await?) })
    }

    /// The address of the Invoke API, as `aws lambda invoke --endpoint-url` takes it.
    pub fn url(&self) -> String {
        self.server.url()
    }

    /// Starts the process where none runs and waits for its first poll; tells how long that took.
    pub async fn warm(&self) -> Result<Option<Duration>, StartError> {
        let mut sandbox = self.shared.sandbox.lock().await;
        self.shared.warm(&mut sandbox).await
    }

    /// Invokes with the function's own time-out.
    pub async fn invoke(&self, payload: &Value) -> Result<Invocation, StartError> {
        self.invoke_within(payload, self.shared.options.timeout).await
    }

    /// Invokes with a payload as it is written.
    pub async fn invoke_text(&self, payload: String) -> Result<Invocation, StartError> {
        self.shared.clone().invoke(payload.into(), self.shared.options.timeout).await
    }

    /// Invokes with another time-out.
    pub async fn invoke_within(
        &self,
        payload: &Value,
        timeout: Duration,
    ) -> Result<Invocation, StartError> {
        self.shared.clone().invoke(payload.to_string().into(), timeout).await
    }

    /// All that the function has printed so far, in all its processes.
    pub fn logs(&self) -> Vec<LogLine> {
        self.shared.logs.since(0)
    }

    /// Every line that the function prints from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<LogLine> {
        self.shared.logs.subscribe()
    }

    /// How many processes there have been.
    pub fn starts(&self) -> usize {
        self.shared.starts.load(Ordering::Relaxed)
    }

    /// What the running process has used; waits for the end of an invocation.
    pub async fn usage(&self) -> io::Result<Usage> {
        let sandbox = self.shared.sandbox.lock().await;
        let running = sandbox.as_ref().ok_or(io::ErrorKind::NotFound)?;
        running.usage()
    }

    /// Ends the process; the next invocation is a cold start.
    pub async fn stop(&self) {
        if let Some(mut sandbox) = self.shared.sandbox.lock().await.take() {
            sandbox.kill().await;
        }
    }
}

impl Shared {
    async fn warm(&self, slot: &mut Option<Sandbox>) -> Result<Option<Duration>, StartError> {
        if slot.as_mut().is_some_and(|running| !running.has_ended()) {
            return Ok(None);
        }
        // An ended one goes first, so that a failed start leaves none behind.
        *slot = None;
        let (sandbox, init) = Sandbox::start(&self.options, &self.logs).await?;
        self.starts.fetch_add(1, Ordering::Relaxed);
        *slot = Some(sandbox);
        Ok(Some(init))
    }

    /// Invokes in a task of its own, so that an invoker who gives up does not leave the process
    /// with an answer that nobody takes.
    async fn invoke(
        self: Arc<Self>,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Invocation, StartError> {
        let invocation = tokio::spawn(async move { self.invoke_now(payload, timeout).await });
        invocation.await.unwrap_or_else(|ended| {
            let failure = Failure::new("Testbed.Stopped", ended.to_string());
            Err(StartError::Init { failure, logs: Vec::new() })
        })
    }

    async fn invoke_now(
        &self,
        payload: Bytes,
        timeout: Duration,
    ) -> Result<Invocation, StartError> {
        let mut slot = self.sandbox.lock().await;
        let place = self.logs.len();
        let init = self.warm(&mut slot).await?;
        let number = self.invocations.fetch_add(1, Ordering::Relaxed);
        let request_id = format!("00000000-0000-4000-8000-{number:012}");
        let function_arn = self.options.arn();
        let job = Job { request_id: request_id.clone(), payload, timeout, function_arn };
        let (result, duration) = Sandbox::invoke(&mut slot, job).await;
        let result = result.and_then(|answer| {
            serde_json::from_slice(&answer).map_err(|error| {
                Failure::new("Runtime.InvalidResponse", format!("the answer is not JSON: {error}"))
            })
        });
        Ok(Invocation { request_id, result, duration, init, logs: self.logs.since(place) })
    }
}
