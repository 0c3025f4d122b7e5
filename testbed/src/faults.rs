//! Scripted faults: what a stand-in does to the requests that a rule picks, instead of, before or
//! after its work.
//!
//! Every HTTP stand-in has one queue of rules. For each request the first rule that picks it and
//! is not used up decides; without one the request is served. Rules count the requests they pick,
//! so a script reads in the order in which things go wrong:
//!
//! ```
//! # use testbed::faults::{Fault, Faults, Rule};
//! # let faults = Faults::default();
//! faults.add(Rule::on("PUT", "/bulk", Fault::status(503)).times(2));
//! faults.add(Rule::operation("Scan", Fault::throttled()).after(1));
//! ```

mod rule;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::http::{Outcome, Reply, Request, pause};

pub use rule::Rule;

/// A closure run at a chosen moment of a request, to interleave something with it.
pub type Hook = Arc<dyn Fn(&Request) + Send + Sync>;
/// Picks keys by name.
pub type KeyPredicate = Arc<dyn Fn(&str) -> bool + Send + Sync>;

/// What goes wrong.
#[derive(Clone)]
pub enum Fault {
    /// Answers without doing the work.
    Answer(Reply),
    /// Never answers.
    Hang,
    /// Waits, then serves the request.
    Delay(Duration),
    /// Breaks the connection without doing the work.
    DropConnection,
    /// Does the work, then breaks the connection.
    ApplyThenDrop,
    /// Does the work, then answers an HTML page with this status, as a gateway that timed out.
    ApplyThenStatus(u16),
    /// Does the work, then sends half of the answer and breaks the connection.
    TruncatedBody,
    /// Answers 200 with an HTML page, without doing the work.
    HtmlBody,
    /// Answers 200 with JSON of another shape, without doing the work.
    WrongJson,
    /// Runs the closure, then serves the request.
    Before(Hook),
    /// Serves the request, and runs the closure before the answer goes out.
    After(Hook),
    /// KV's bulk write and delete: the picked keys are left alone and named in
    /// `unsuccessful_keys`, the others are done; answered with this status, 200 or 4xx.
    Unsuccessful(KeyPredicate, u16),
    /// KV: answers 200 with `success: false`, without doing the work.
    SuccessFalse,
    /// `BatchGetItem`: only this many keys of each table are read, the others are named in
    /// `UnprocessedKeys`.
    Unprocessed(usize),
}

impl Fault {
    /// A status with a body that says as much, HTML for 5xx as Cloudflare sends it, else JSON.
    pub fn status(code: u16) -> Self {
        if code >= 500 {
            return Self::Answer(Reply::html(code));
        }
        let error = serde_json::json!({"code": code, "message": format!("scripted {code}")});
        let body = serde_json::json!({
            "success": false, "errors": [error], "messages": [], "result": null,
        });
        Self::Answer(Reply::json(code, &body))
    }

    /// 429 with `Retry-After` in seconds.
    pub fn retry_after(seconds: u64) -> Self {
        match Self::status(429) {
            Self::Answer(reply) => Self::Answer(reply.with("retry-after", &seconds.to_string())),
            other => other,
        }
    }

    /// An error of an AWS JSON service, as `ProvisionedThroughputExceededException`.
    pub fn aws(status: u16, kind: &str, message: &str) -> Self {
        let body = serde_json::json!({
            "__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"), "message": message,
        });
        let reply = Reply::json(status, &body).with("x-amzn-errortype", kind);
        Self::Answer(reply.with("content-type", "application/x-amz-json-1.0"))
    }

    /// `ThrottlingException`.
    pub fn throttled() -> Self {
        Self::aws(400, "ThrottlingException", "Rate of requests exceeds the allowed throughput.")
    }

    /// [`Fault::Before`] for a closure that does not look at the request.
    pub fn before(hook: impl Fn() + Send + Sync + 'static) -> Self {
        Self::Before(Arc::new(move |_| hook()))
    }

    /// [`Fault::After`] for a closure that does not look at the request.
    pub fn after(hook: impl Fn() + Send + Sync + 'static) -> Self {
        Self::After(Arc::new(move |_| hook()))
    }

    /// [`Fault::Unsuccessful`] for the keys that the closure picks.
    pub fn unsuccessful(
        keys: impl Fn(&str) -> bool + Send + Sync + 'static,
        http_status: u16,
    ) -> Self {
        Self::Unsuccessful(Arc::new(keys), http_status)
    }
}

/// The rules of one stand-in. Clones share them.
#[derive(Clone, Default)]
pub struct Faults(Arc<Mutex<Script>>);

#[derive(Default)]
struct Script {
    rules: Vec<Rule>,
    latency: Duration,
}

impl Faults {
    /// Adds a rule behind those that are there.
    pub fn add(&self, rule: Rule) {
        self.script().rules.push(rule);
    }

    /// Adds a fault that befalls the next request, whatever it is.
    pub fn next(&self, fault: Fault) {
        self.add(Rule::any(fault));
    }

    /// Forgets all rules.
    pub fn clear(&self) {
        self.script().rules.clear();
    }

    /// How many faults are still to come; rules without an end count as none.
    pub fn pending(&self) -> usize {
        self.script().rules.iter().filter_map(|rule| rule.left).sum()
    }

    /// Makes every request take at least this long.
    pub fn set_latency(&self, latency: Duration) {
        self.script().latency = latency;
    }

    fn script(&self) -> MutexGuard<'_, Script> {
        lock(&self.0)
    }

    /// Serves a request under the rules. `apply` does the work; it gets the faults that only the
    /// stand-in itself can play.
    pub(crate) async fn serve<F>(
        &self,
        request: Request,
        apply: impl FnOnce(Request, Option<Fault>) -> F,
    ) -> Outcome
    where
        F: Future<Output = Reply>,
    {
        let (latency, fault) = {
            let mut script = self.script();
            let latency = script.latency;
            let mut rules = script.rules.iter_mut();
            (latency, rules.find_map(|rule| rule.strike(&request)))
        };
        // From when the request was there: what a stand-in takes to read it is no one's latency.
        pause((request.received_at + latency).saturating_duration_since(Instant::now())).await;
        let Some(fault) = fault else { return apply(request, None).await.into() };
        match fault {
            Fault::Answer(reply) => reply.into(),
            Fault::Hang => std::future::pending().await,
            Fault::Delay(duration) => {
                pause(duration).await;
                apply(request, None).await.into()
            }
            Fault::DropConnection => Outcome::Drop,
            Fault::ApplyThenDrop => {
                apply(request, None).await;
                Outcome::Drop
            }
            Fault::ApplyThenStatus(code) => {
                apply(request, None).await;
                Reply::html(code).into()
            }
            Fault::TruncatedBody => Outcome::Truncated(apply(request, None).await),
            Fault::HtmlBody => Reply::html(200).into(),
            Fault::WrongJson => Reply::json(200, &serde_json::json!({"status": "ok"})).into(),
            Fault::Before(hook) => {
                hook(&request);
                apply(request, None).await.into()
            }
            Fault::After(hook) => {
                let reply = apply(request.clone(), None).await;
                hook(&request);
                reply.into()
            }
            own @ (Fault::Unsuccessful(..) | Fault::SuccessFalse | Fault::Unprocessed(_)) => {
                apply(request, Some(own)).await.into()
            }
        }
    }
}

/// Locks, also after a panic elsewhere: a test that failed must not hide behind a second one.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
