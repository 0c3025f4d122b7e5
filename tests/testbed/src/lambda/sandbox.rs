//! A process with a Runtime API of its own, so that no late answer of an earlier process can be
//! mistaken for its own.

use std::collections::BTreeMap;
use std::io;
use std::process::ExitStatus;
use std::time::Duration;

use hyper::body::Bytes;
use tokio::time::{Instant, sleep};

use super::FunctionOptions;
use super::failure::{Failure, StartError};
use super::logs::Logs;
use super::process::Process;
use super::runtime_api::{Answer, Job, RuntimeApi};
use crate::aws::{FUNCTION, REGION};

/// How long a process may take until it asks for its first invocation. Lambda allows the same.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after an answer until the process asks for more.
const SETTLING: Duration = Duration::from_secs(1);

/// A process that has asked for its first invocation.
pub(super) struct Sandbox {
    pub process: Process,
    api: RuntimeApi,
}

impl Sandbox {
    /// Starts the process and waits for its first poll. Returns how long that took.
    pub async fn start(
        options: &FunctionOptions,
        logs: &Logs,
    ) -> Result<(Self, Duration), StartError> {
        let refused = |error| StartError::Spawn(options.binary.clone(), error);
        let place = logs.len();
        let api = RuntimeApi::start().await.map_err(refused)?;
        let env = environment(options, &api.address());
        let mut process = Process::spawn(&options.binary, &env, logs).map_err(refused)?;
        let failure = tokio::select! {
            biased;
            first = api.polled() => {
                let init = first - process.spawned;
                return Ok((Self { process, api }, init));
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

/// Lambda's environment, overridden by the function's own.
fn environment(options: &FunctionOptions, runtime_api: &str) -> BTreeMap<String, String> {
    let log_group = format!("/aws/lambda/{FUNCTION}");
    let lambda = [
        ("AWS_DEFAULT_REGION", REGION),
        ("AWS_EXECUTION_ENV", "AWS_Lambda_provided.al2023"),
        // Nothing enforces it.
        ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
        ("AWS_LAMBDA_FUNCTION_NAME", FUNCTION),
        ("AWS_LAMBDA_FUNCTION_VERSION", "1"),
        ("AWS_LAMBDA_INITIALIZATION_TYPE", "on-demand"),
        ("AWS_LAMBDA_LOG_GROUP_NAME", &log_group),
        ("AWS_LAMBDA_LOG_STREAM_NAME", "local"),
        ("AWS_LAMBDA_RUNTIME_API", runtime_api),
        ("AWS_REGION", REGION),
        ("TZ", ":UTC"),
        ("_HANDLER", "bootstrap"),
    ];
    let lambda = lambda.map(|(name, value)| (name.to_owned(), value.to_owned()));
    lambda.into_iter().chain(options.env.clone()).collect()
}

fn exited(ended: &io::Result<ExitStatus>) -> Failure {
    let how = match ended {
        Ok(status) => format!("Runtime exited with error: {status}"),
        Err(error) => format!("the process cannot be waited for: {error}"),
    };
    Failure::new("Runtime.ExitError", how)
}
