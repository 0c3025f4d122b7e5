//! A process with a Runtime API of its own, so that no late answer of an earlier process can be
//! mistaken for its own.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::time::{Instant, sleep};

use super::failure::{Failure, StartError};
use super::logs::Logs;
use super::options::FunctionOptions;
use super::process::Process;
use super::runtime_api::{Answer, Job, RuntimeApi};
use super::versions::Version;

/// How long a process may take until it asks for its first invocation. Lambda allows the same.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after an answer until the process asks for more.
const SETTLING: Duration = Duration::from_secs(1);

/// A process that has asked for its first invocation.
pub(super) struct Sandbox {
    pub version: usize,
    pub process: Process,
    api: RuntimeApi,
}

impl Sandbox {
    /// Starts the process and waits for its first poll. Returns how long that took.
    pub async fn start(
        options: &FunctionOptions,
        number: usize,
        version: &Version,
        logs: &Logs,
    ) -> Result<(Self, Duration), StartError> {
        let refused = |error| StartError::Spawn(version.binary.clone(), error);
        let place = logs.len();
        let api = RuntimeApi::start().await.map_err(refused)?;
        let env = options.environment(&api.address(), number, version);
        let mut process = Process::spawn(&version.binary, &env, logs).map_err(refused)?;
        let failure = tokio::select! {
            biased;
            first = api.polled() => {
                let init = first - process.spawned;
                return Ok((Self { version: number, process, api }, init));
            }
            ended = process.ended() => exited(&ended),
            () = sleep(INIT_TIMEOUT) => {
                Failure::new("Sandbox.Timedout", format!("no poll within {INIT_TIMEOUT:?}"))
            }
        };
        process.kill().await;
        let failure = api.init_failure().unwrap_or(failure);
        Err(StartError::Init { failure, logs: logs.since(place) })
    }

    /// Invokes the process. Without an answer in time, the process is ended.
    pub async fn invoke(&mut self, job: Job) -> (Result<Bytes, Failure>, Duration) {
        let began = Instant::now();
        let (request_id, timeout) = (job.request_id.clone(), job.timeout);
        let failure = tokio::select! {
            biased;
            answer = self.api.invoke(job) => match answer {
                Some(Answer { result, duration }) => {
                    self.settled().await;
                    return (result, duration);
                }
                None => {
                    let seconds = timeout.as_secs_f64();
                    let message = format!("Error: Task timed out after {seconds:.2} seconds");
                    Failure::new("Sandbox.Timedout", format!("RequestId: {request_id} {message}"))
                }
            },
            ended = self.process.ended() => {
                let failure = exited(&ended);
                let message = format!("RequestId: {request_id} Error: {}", failure.error_message);
                Failure::new(&failure.error_type, message)
            }
        };
        self.process.kill().await;
        (Err(failure), began.elapsed())
    }

    /// Waits until the process asks for more, so that what it does and prints after its answer
    /// still belongs to the invocation.
    async fn settled(&mut self) {
        tokio::select! {
            _ = self.api.polled() => {}
            _ = self.process.ended() => {}
            () = sleep(SETTLING) => {}
        }
        self.process.printed().await;
    }
}

fn exited(ended: &io::Result<ExitStatus>) -> Failure {
    let how = match ended {
        Ok(status) => format!("Runtime exited with error: {status}"),
        Err(error) => format!("the process cannot be waited for: {error}"),
    };
    Failure::new("Runtime.ExitError", how)
}
