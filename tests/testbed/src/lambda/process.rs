//! The function's process, with a Runtime API of its own, so that no late answer of an earlier process can
//! be mistaken for its own.

use std::collections::BTreeMap;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use hyper::body::Bytes;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

use super::logs::{Logs, Reader, Stream};
use super::runtime_api::{Answer, Job, RuntimeApi};
use super::{Failure, FunctionOptions, StartError};
use crate::aws::{FUNCTION, REGION};

/// How long a process may take until it asks for its first invocation. Lambda allows the same.
const INIT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait after an answer until the process asks for more.
const SETTLING: Duration = Duration::from_secs(1);
/// Clock ticks in a second, the unit of `/proc/{pid}/stat`: 100 on every Linux that Rust targets.
const TICKS: f64 = 100.0;

/// What a process has used so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The most memory it ever held, in bytes.
    pub peak_memory: u64,
    /// Its time on the processor, user and system, to a hundredth of a second.
    pub cpu: Duration,
}

/// A process that has asked for its first invocation. Killed when dropped.
pub(super) struct Process {
    child: Child,
    readers: Vec<Reader>,
    api: RuntimeApi,
}

impl Process {
    /// Starts the process and waits for its first poll. Returns how long that took.
    pub async fn start(
        options: &FunctionOptions,
        logs: &Logs,
    ) -> Result<(Self, Duration), StartError> {
        let refused = |error| {
            let message = format!("{} cannot be run: {error}", options.binary.display());
            let failure = Failure::new("Runtime.InvalidEntrypoint", message);
            StartError { failure, logs: Vec::new() }
        };
        let place = logs.len();
        let api = RuntimeApi::start().await.map_err(refused)?;
        let spawned = Instant::now();
        let mut child = Command::new(&options.binary)
            .env_clear()
            .envs(environment(options, &api.address()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(refused)?;
        let out = child.stdout.take().map(|pipe| Reader::start(pipe, Stream::Stdout, logs.clone()));
        let err = child.stderr.take().map(|pipe| Reader::start(pipe, Stream::Stderr, logs.clone()));
        let readers = out.into_iter().chain(err).collect();
        let mut process = Self { child, readers, api };
        let failure = tokio::select! {
            biased;
            first = process.api.polled() => return Ok((process, first - spawned)),
            ended = process.child.wait() => exited(&ended),
            () = sleep(INIT_TIMEOUT) => {
                Failure::new("Sandbox.Timedout", format!("no poll within {INIT_TIMEOUT:?}"))
            }
        };
        process.kill().await;
        Err(StartError { failure, logs: logs.since(place) })
    }

    /// Invokes the process. Without an answer in time, the process is ended.
    pub async fn invoke(&mut self, job: Job) -> (Result<Bytes, Failure>, Duration) {
        let began = Instant::now();
        let (id, timeout) = (job.request_id.clone(), job.timeout);
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
                    Failure::new("Sandbox.Timedout", format!("RequestId: {id} {message}"))
                }
            },
            ended = self.child.wait() => {
                let Failure { error_type, error_message } = exited(&ended);
                let message = format!("RequestId: {id} Error: {error_message}");
                Failure::new(&error_type, message)
            }
        };
        self.kill().await;
        (Err(failure), began.elapsed())
    }

    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it, and returns once everything that it printed is in the log.
    pub async fn kill(&mut self) {
        // Fails only if it has ended already.
        let _ = self.child.kill().await;
        self.printed().await;
    }

    /// Waits until the process asks for more, so that what it does and prints after its answer
    /// still belongs to the invocation.
    async fn settled(&mut self) {
        tokio::select! {
            _ = self.api.polled() => {}
            _ = self.child.wait() => {}
            () = sleep(SETTLING) => {}
        }
        self.printed().await;
    }

    /// Returns once everything that it has printed is in the log.
    async fn printed(&self) {
        for reader in &self.readers {
            reader.caught_up().await;
        }
    }

    pub fn usage(&self) -> io::Result<Usage> {
        let pid = self.child.id().ok_or(io::ErrorKind::NotFound)?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let (peak_memory, cpu) = peak(&status)
            .zip(ticks(&stat))
            .ok_or_else(|| io::Error::other("/proc has another format than expected"))?;
        Ok(Usage { peak_memory, cpu: Duration::from_secs_f64(cpu as f64 / TICKS) })
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

fn peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1_024)
}

fn ticks(stat: &str) -> Option<u64> {
    // The name in parentheses may contain blanks. User and system time are the 12th and 13th field
    // after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}
