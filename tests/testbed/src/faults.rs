//! Scripted faults: what a stand-in does instead of its work, before it or after it.
//!
//! Every HTTP stand-in has a queue of rules. The first rule that matches a request and is not used
//! up decides. Without such a rule, the request is served. Rules count the requests that match, so
//! a script reads in the order in which things go wrong:
//!
//! ```
//! # use testbed::faults::{Fault, Faults, Rule};
//! # let faults = Faults::default();
//! faults.add(Rule::on("PUT", "/bulk", Fault::status(503)).times(2));
//! faults.add(Rule::operation("Scan", Fault::throttled()).after(1));
//! ```

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::http::{Outcome, Reply, Request};
use crate::sync::{lock, pause};

/// A closure that runs between a request's work and its answer.
pub type Hook = Arc<dyn Fn() + Send + Sync>;
pub type KeyPredicate = Arc<dyn Fn(&str) -> bool + Send + Sync>;

#[derive(Clone)]
pub enum Fault {
    /// Responds without doing the work.
    Answer(Reply),
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
    /// Answers 200 with JSON of another shape, without doing the work.
    WrongJson,
    /// Serves the request, and runs the closure before the answer goes out.
    After(Hook),
    /// KV's bulk write and delete: the picked keys are left alone and named in
    /// `unsuccessful_keys`, the others are done; answered with this status, 200 or 4xx.
    Unsuccessful(KeyPredicate, u16),
}

impl Fault {
    /// A status with a body that names it: HTML for 5xx, as Cloudflare sends it, else JSON.
    pub fn status(code: u16) -> Self {
        Self::Answer(status(code))
    }

    /// 429 with `Retry-After` in seconds.
    pub fn retry_after(seconds: u64) -> Self {
        Self::Answer(status(429).with("retry-after", &seconds.to_string()))
    }

    /// An error of an AWS JSON service, as `ProvisionedThroughputExceededException`.
    pub fn aws(status: u16, kind: &str, message: &str) -> Self {
        let kind_and_namespace = format!("com.amazonaws.dynamodb.v20120810#{kind}");
        let reply = Reply::json(status, &json!({"__type": kind_and_namespace, "message": message}));
        let reply = reply.with("x-amzn-errortype", kind);
        Self::Answer(reply.with("content-type", "application/x-amz-json-1.0"))
    }

    pub fn throttled() -> Self {
        Self::aws(400, "ThrottlingException", "Rate of requests exceeds the allowed throughput.")
    }

    pub fn after(hook: impl Fn() + Send + Sync + 'static) -> Self {
        Self::After(Arc::new(hook))
    }

    pub fn unsuccessful(keys: impl Fn(&str) -> bool + Send + Sync + 'static, status: u16) -> Self {
        Self::Unsuccessful(Arc::new(keys), status)
    }
}

fn status(code: u16) -> Reply {
    if code >= 500 {
        return Reply::html(code);
    }
    let errors = [json!({"code": code, "message": format!("scripted {code}")})];
    let body = json!({"success": false, "errors": errors, "messages": [], "result": null});
    Reply::json(code, &body)
}

/// Which requests a fault hits, and how many of them. A new rule hits one.
pub struct Rule {
    picks: Box<dyn Fn(&Request) -> bool + Send + Sync>,
    pass: usize,
    left: Option<usize>,
    fault: Fault,
}

impl Rule {
    /// The requests that the closure picks. It must not touch the stand-in's faults.
    pub fn when(picks: impl Fn(&Request) -> bool + Send + Sync + 'static, fault: Fault) -> Self {
        Self { picks: Box::new(picks), pass: 0, left: Some(1), fault }
    }

    pub fn any(fault: Fault) -> Self {
        Self::when(|_| true, fault)
    }

    /// Requests of one method whose path ends like this.
    pub fn on(method: &'static str, path_suffix: impl Into<String>, fault: Fault) -> Self {
        let suffix = path_suffix.into();
        Self::when(
            move |request| request.method == method && request.path.ends_with(&suffix),
            fault,
        )
    }

    /// The same, of those whose body names this key: a pair that is refused, for one.
    pub fn naming(
        method: &'static str,
        path_suffix: impl Into<String>,
        key: &str,
        fault: Fault,
    ) -> Self {
        let Self { picks: of_path, .. } = Self::on(method, path_suffix, fault.clone());
        let name = json!(key).to_string();
        Self::when(move |request| of_path(request) && request.names(&name), fault)
    }

    /// Requests for one operation of an AWS JSON service.
    pub fn operation(name: &'static str, fault: Fault) -> Self {
        Self::when(move |request| request.operation() == Some(name), fault)
    }

    #[must_use]
    pub fn times(self, times: usize) -> Self {
        Self { left: Some(times), ..self }
    }

    #[must_use]
    pub fn forever(self) -> Self {
        Self { left: None, ..self }
    }

    /// The rule, after it has let this many matching requests pass.
    #[must_use]
    pub fn after(self, passing: usize) -> Self {
        Self { pass: passing, ..self }
    }

    /// The fault, if the rule hits this request. Counts the request.
    fn strike(&mut self, request: &Request) -> Option<Fault> {
        if self.left == Some(0) || !(self.picks)(request) {
            return None;
        }
        if self.pass > 0 {
            self.pass -= 1;
            return None;
        }
        self.left = self.left.map(|left| left - 1);
        Some(self.fault.clone())
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
    pub fn add(&self, rule: Rule) {
        lock(&self.0).rules.push(rule);
    }

    pub fn clear(&self) {
        lock(&self.0).rules.clear();
    }

    /// Makes every request take at least this long.
    pub fn set_latency(&self, latency: Duration) {
        lock(&self.0).latency = latency;
    }

    /// Serves a request under the rules. `apply` does the work. It gets those faults that only the
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
            let mut script = lock(&self.0);
            let fault = script.rules.iter_mut().find_map(|rule| rule.strike(&request));
            (script.latency, fault)
        };
        // Counted from the moment the request was read: reading it is not part of the latency.
        pause((request.received_at + latency).saturating_duration_since(Instant::now())).await;
        match fault {
            Some(Fault::Answer(reply)) => return reply.into(),
            Some(Fault::DropConnection) => return Outcome::Drop,
            Some(Fault::WrongJson) => return Reply::json(200, &json!({"status": "ok"})).into(),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Delay(duration)) => pause(duration).await,
            _ => {}
        }
        let reply = apply(request, fault.clone()).await;
        match fault {
            Some(Fault::ApplyThenDrop) => return Outcome::Drop,
            Some(Fault::ApplyThenStatus(code)) => return Reply::html(code).into(),
            Some(Fault::TruncatedBody) => return Outcome::Truncated(reply),
            Some(Fault::After(hook)) => hook(),
            _ => {}
        }
        reply.into()
    }
}
