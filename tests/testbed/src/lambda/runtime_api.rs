//! The Lambda Runtime API for one process: hands it invocations, takes its answers.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hyper::Method;
use hyper::body::Bytes;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::failure::Failure;
use crate::aws::{ACCOUNT_ID, FUNCTION, REGION};
use crate::http::{Outcome, Reply, Request, Server};

const INVOCATION: &str = "/2018-06-01/runtime/invocation/";
const INIT_ERROR: &str = "/2018-06-01/runtime/init/error";

/// An invocation on its way to the process.
#[derive(Debug, Clone)]
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
    desk: watch::Sender<Desk>,
    server: Server,
}

/// The invocation between Lambda and the process.
#[derive(Default, Clone)]
struct Desk {
    /// Whether the process waits for an invocation.
    polling: bool,
    first_poll: Option<Instant>,
    offered: Option<Job>,
    /// The invocation that the process has, and since when.
    handed: Option<(String, Instant)>,
    answer: Option<(Result<Bytes, Failure>, Instant)>,
    init_failure: Option<Failure>,
}

impl RuntimeApi {
    pub async fn start() -> io::Result<Self> {
        let desk = watch::Sender::<Desk>::default();
        let shared = desk.clone();
        let server = Server::start(0, move |request| handle(shared.clone(), request)).await?;
        Ok(Self { desk, server })
    }

    /// `127.0.0.1:{port}`, as `AWS_LAMBDA_RUNTIME_API` takes it.
    pub fn address(&self) -> String {
        self.server.address().to_string()
    }

    /// Waits until the process asks for an invocation. Returns when it first did.
    pub async fn polled(&self) -> Instant {
        let desk = self.wait(|desk| desk.polling).await;
        desk.first_poll.unwrap_or_else(Instant::now)
    }

    /// The error that the process reported before it asked for an invocation.
    pub fn init_failure(&self) -> Option<Failure> {
        self.desk.borrow().init_failure.clone()
    }

    /// Hands an invocation to the process and waits for its answer; `None` if it takes too long.
    pub async fn invoke(&self, job: Job) -> Option<Answer> {
        let timeout = job.timeout;
        self.desk.send_modify(|desk| {
            desk.answer = None;
            desk.handed = None;
            desk.offered = Some(job);
        });
        let (_, since) = self.wait(|desk| desk.handed.is_some()).await.handed.clone()?;
        let answered = tokio::time::timeout_at(since + timeout, async {
            self.wait(|desk| desk.answer.is_some()).await.answer.clone()
        });
        let (result, at) = answered.await.ok().flatten()?;
        Some(Answer { result, duration: at - since })
    }

    async fn wait(&self, ready: impl Fn(&Desk) -> bool) -> Desk {
        let mut desk = self.desk.subscribe();
        // The sender lives in `self`, so the wait ends only when the condition holds.
        let Ok(desk) = desk.wait_for(|desk| ready(desk)).await else {
            return std::future::pending().await;
        };
        desk.clone()
    }
}

async fn handle(desk: watch::Sender<Desk>, request: Request) -> Outcome {
    if request.method == Method::POST && request.path == INIT_ERROR {
        desk.send_modify(|desk| desk.init_failure = Some(reported(&request)));
        return accepted();
    }
    match (&request.method, request.path.strip_prefix(INVOCATION)) {
        (&Method::GET, Some("next")) => next(&desk).await.into(),
        (&Method::POST, Some(answer)) => match answer.split_once('/') {
            Some((id, "response")) => answered(&desk, id, Ok(request.body.clone())),
            Some((id, "error")) => answered(&desk, id, Err(reported(&request))),
            _ => refused(404, "no such path"),
        },
        _ => refused(404, "no such path"),
    }
}

async fn next(desk: &watch::Sender<Desk>) -> Reply {
    desk.send_modify(|desk| {
        desk.polling = true;
        desk.first_poll.get_or_insert_with(Instant::now);
    });
    let mut changes = desk.subscribe();
    loop {
        let mut taken = None;
        desk.send_if_modified(|desk| {
            taken = desk.offered.take();
            if let Some(job) = &taken {
                desk.polling = false;
                desk.handed = Some((job.request_id.clone(), Instant::now()));
            }
            taken.is_some()
        });
        if let Some(job) = taken {
            return hand_over(&job);
        }
        if changes.changed().await.is_err() {
            return Reply::new(410, "", Bytes::new());
        }
    }
}

fn hand_over(job: &Job) -> Reply {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let deadline = (now + job.timeout).as_millis().to_string();
    let function_arn = format!("arn:aws:lambda:{REGION}:{ACCOUNT_ID}:function:{FUNCTION}");
    Reply::new(200, "application/json", job.payload.clone())
        .with("lambda-runtime-aws-request-id", &job.request_id)
        .with("lambda-runtime-deadline-ms", &deadline)
        .with("lambda-runtime-invoked-function-arn", &function_arn)
}

fn answered(desk: &watch::Sender<Desk>, id: &str, result: Result<Bytes, Failure>) -> Outcome {
    let expected = desk.send_if_modified(|desk| {
        let known = desk.handed.as_ref().is_some_and(|(handed, _)| handed == id);
        if known && desk.answer.is_none() {
            desk.answer = Some((result, Instant::now()));
            return true;
        }
        false
    });
    if expected { accepted() } else { refused(400, "InvalidRequestID") }
}

fn accepted() -> Outcome {
    Reply::json(202, &json!({"status": "OK"})).into()
}

fn refused(status: u16, kind: &str) -> Outcome {
    Reply::json(status, &json!({"errorType": kind, "errorMessage": kind})).into()
}

fn reported(request: &Request) -> Failure {
    request.json().unwrap_or_else(|_| {
        let text = String::from_utf8_lossy(&request.body);
        Failure::new("Runtime.Unknown", text)
    })
}
