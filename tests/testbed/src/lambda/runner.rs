//! Runs a function, one invocation at a time.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex as SyncMutex};
use std::time::Duration;

use hyper::body::Bytes;
use serde_json::Value;
use tokio::sync::Mutex;

use super::failure::{Failure, StartError};
use super::logs::{LogLine, Logs};
use super::options::FunctionOptions;
use super::runtime_api::Job;
use super::sandbox::Sandbox;
use super::versions::{Version, Versions};
use crate::sync::lock;

/// Bytes of a payload.
const MAX_REQUEST: usize = 6_291_456;
/// Bytes of an answer.
const MAX_RESPONSE: usize = 6_291_556;

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

/// A function. It has at most one process, and invocations take turns.
pub(super) struct Runner {
    pub options: FunctionOptions,
    pub versions: SyncMutex<Versions>,
    pub logs: Logs,
    pub sandbox: Mutex<Option<Sandbox>>,
    invocations: AtomicUsize,
    pub starts: AtomicUsize,
}

impl Runner {
    pub fn new(options: FunctionOptions) -> Self {
        let FunctionOptions { binary, env, .. } = options.clone();
        let first = Version { binary, env };
        Self {
            options,
            versions: SyncMutex::new(Versions::new(first)),
            logs: Logs::default(),
            sandbox: Mutex::default(),
            invocations: AtomicUsize::new(0),
            starts: AtomicUsize::new(0),
        }
    }

    /// The number of the version that the alias points at.
    pub fn live_number(&self) -> usize {
        lock(&self.versions).live().0
    }

    /// Starts a process if none of the live version runs. Returns it, and how long its start took.
    pub async fn warm<'a>(
        &self,
        slot: &'a mut Option<Sandbox>,
    ) -> Result<(&'a mut Sandbox, Option<Duration>), StartError> {
        let (number, version) = {
            let versions = lock(&self.versions);
            let (number, version) = versions.live();
            (number, version.clone())
        };
        // A process that ended is dropped first, so that a failed start does not leave it.
        if let Some(mut running) = slot.take()
            && running.version == number
            && !running.process.has_ended()
        {
            return Ok((slot.insert(running), None));
        }
        let (sandbox, init) = Sandbox::start(&self.options, number, &version, &self.logs).await?;
        self.starts.fetch_add(1, Ordering::Relaxed);
        Ok((slot.insert(sandbox), Some(init)))
    }

    /// Invokes in a task of its own: if the caller gives up, the process can still hand in its
    /// answer.
    pub async fn invoke(
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
        if payload.len() > MAX_REQUEST {
            return Err(StartError::TooLarge);
        }
        let mut slot = self.sandbox.lock().await;
        let place = self.logs.len();
        let (sandbox, init) = self.warm(&mut slot).await?;
        let number = self.invocations.fetch_add(1, Ordering::Relaxed);
        let request_id = format!("00000000-0000-4000-8000-{number:012}");
        let job = Job { request_id: request_id.clone(), payload, timeout };
        let (result, duration) = sandbox.invoke(job).await;
        let result = result.and_then(|answer| {
            if answer.len() > MAX_RESPONSE {
                let message = format!(
                    "Response payload size exceeded maximum allowed payload size ({MAX_RESPONSE} bytes)."
                );
                return Err(Failure::new("Function.ResponseSizeTooLarge", message));
            }
            serde_json::from_slice(&answer).map_err(|error| {
                Failure::new("Runtime.InvalidResponse", format!("the answer is not JSON: {error}"))
            })
        });
        Ok(Invocation { request_id, result, duration, init, logs: self.logs.since(place) })
    }
}
