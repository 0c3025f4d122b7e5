//! The Lambda Runtime API for one process: hands it invocations, takes its answers.

use std::io;
use std::sync::{Arc, Mutex as SyncMutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;
use hyper::body::Bytes;
use serde_json::json;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::Failure;
use crate::aws::{ACCOUNT_ID, FUNCTION, REGION};
use crate::http::{Outcome, Reply, Request, Server};
use crate::sync::lock;

const INVOCATION: &str = "/2018-06-01/runtime/invocation/";

/// An invocation on its way to the process.
pub(super) struct Job {
    pub request_id: String,
    pub payload: Bytes,
    pub timeout: Duration,
}

/// The process's answer to an invocation, and how long it took.
pub(super) struct Answer {
    pub result: Result<Bytes, Failure>,
    pub duration: Duration,
}

/// The API as one process sees it, at its own address.
pub(super) struct RuntimeApi {
    jobs: mpsc::Sender<Offered>,
    shared: Arc<Shared>,
    server: Server,
}

struct Shared {
    jobs: Mutex<mpsc::Receiver<Offered>>,
    /// When the process first asked for an invocation, and whether it waits for one.
    polled: watch::Sender<(Option<Instant>, bool)>,
    /// The invocation that the process has, by its id, and who waits for the answer.
    handed: SyncMutex<Option<(String, oneshot::Sender<Answered>)>>,
}

type Answered = (Result<Bytes, Failure>, Instant);

/// An invocation that waits for the process, and who waits for its beginning and its answer.
struct Offered {
    job: Job,
    began: oneshot::Sender<Instant>,
    answer: oneshot::Sender<Answered>,
}

impl RuntimeApi {
    pub async fn start() -> io::Result<Self> {
        let (jobs, waiting) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            jobs: Mutex::new(waiting),
            polled: watch::Sender::default(),
            handed: SyncMutex::default(),
        });
        let server = Server::sharing(0, &shared, handle).await?;
        Ok(Self { jobs, shared, server })
    }

    /// `127.0.0.1:{port}`, as `AWS_LAMBDA_RUNTIME_API` takes it.
    pub fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// Waits until the process asks for an invocation. Returns when it first did.
    pub async fn polled(&self) -> Instant {
        let mut polls = self.shared.polled.subscribe();
        // The sender lives in `self`, so the wait ends only when the process waits.
        let polled = polls.wait_for(|(_, waits)| *waits).await;
        polled.ok().and_then(|polled| polled.0).unwrap_or_else(Instant::now)
    }

    /// Hands an invocation to the process and waits for its answer; `None` if it takes too long.
    pub async fn invoke(&self, job: Job) -> Option<Answer> {
        let timeout = job.timeout;
        let ((began, begins), (answer, answers)) = (oneshot::channel(), oneshot::channel());
        self.jobs.send(Offered { job, began, answer }).await.ok()?;
        let since = begins.await.ok()?;
        let (result, at) = timeout_at(since + timeout, answers).await.ok()?.ok()?;
        Some(Answer { result, duration: at - since })
    }
}

async fn handle(shared: Arc<Shared>, request: Request) -> Outcome {
    let (method, path) = (&request.method, &*request.path);
    let invocation = path.strip_prefix(INVOCATION).unwrap_or_default();
    match (method, invocation.split_once('/')) {
        (&Method::GET, None) if invocation == "next" => next(&shared).await,
        (&Method::POST, Some((id, "response"))) => answered(&shared, id, Ok(request.body.clone())),
        (&Method::POST, Some((id, "error"))) => answered(&shared, id, Err(reported(&request))),
        _ => refused(404, "no such path"),
    }
    .into()
}

async fn next(shared: &Shared) -> Reply {
    shared.polled.send_modify(|(first, waits)| {
        first.get_or_insert_with(Instant::now);
        *waits = true;
    });
    let Some(Offered { job, began, answer }) = shared.jobs.lock().await.recv().await else {
        return refused(410, "the function is gone");
    };
    shared.polled.send_modify(|(_, waits)| *waits = false);
    *lock(&shared.handed) = Some((job.request_id.clone(), answer));
    // Nobody waits any more if the function is stopped.
    let _ = began.send(Instant::now());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let deadline = (now + job.timeout).as_millis().to_string();
    let function_arn = format!("arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{FUNCTION}");
    Reply::new(200, "application/json", job.payload)
        .with("lambda-runtime-aws-request-id", &job.request_id)
        .with("lambda-runtime-deadline-ms", &deadline)
        .with("lambda-runtime-invoked-function-arn", &function_arn)
}

fn answered(shared: &Shared, id: &str, result: Result<Bytes, Failure>) -> Reply {
    match lock(&shared.handed).take_if(|(handed, _)| handed == id) {
        Some((_, answer)) => {
            // Nobody waits any more if it came too late.
            let _ = answer.send((result, Instant::now()));
            Reply::json(202, &json!({"status": "OK"}))
        }
        None => refused(400, "InvalidRequestID"),
    }
}

fn refused(status: u16, kind: &str) -> Reply {
    Reply::json(status, &json!({"errorType": kind, "errorMessage": kind}))
}

fn reported(request: &Request) -> Failure {
    request.json().unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&request.body);
        Failure::new("Runtime.Unknown", text)
    })
}
