//! What goes wrong with a request.

use std::sync::Arc;
use std::time::Duration;

use crate::http::Reply;

/// A closure that runs at a chosen moment of a request.
pub type Hook = Arc<dyn Fn() + Send + Sync>;
pub type KeyPredicate = Arc<dyn Fn(&str) -> bool + Send + Sync>;

#[derive(Clone)]
pub enum Fault {
    /// Answers without doing the work.
    Answer(Reply),
    /// Answers without doing the work, with blanks after the body: so many bytes in all, whose
    /// number is not announced.
    Padded(Reply, usize),
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
    /// `BatchGetItem`: only this many keys of each table are read, the others are named in
    /// `UnprocessedKeys`.
    Unprocessed(usize),
}

impl Fault {
    /// A status with a body that names it: HTML for 5xx, as Cloudflare sends it, else JSON.
    pub fn status(code: u16) -> Self {
        if code >= 500 {
            return Self::Answer(Reply::html(code));
        }
        Self::cloudflare(code, code, &format!("scripted {code}"))
    }

    /// KV's 200 with `success: false`.
    pub fn success_false() -> Self {
        Self::cloudflare(200, 10_012, "scripted success: false")
    }

    fn cloudflare(status: u16, code: u16, message: &str) -> Self {
        let error = serde_json::json!({"code": code, "message": message});
        let body = serde_json::json!({
            "success": false, "errors": [error], "messages": [], "result": null,
        });
        Self::Answer(Reply::json(status, &body))
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

    pub fn throttled() -> Self {
        Self::aws(400, "ThrottlingException", "Rate of requests exceeds the allowed throughput.")
    }

    pub fn before(hook: impl Fn() + Send + Sync + 'static) -> Self {
        Self::Before(Arc::new(hook))
    }

    pub fn after(hook: impl Fn() + Send + Sync + 'static) -> Self {
        Self::After(Arc::new(hook))
    }

    pub fn unsuccessful(
        keys: impl Fn(&str) -> bool + Send + Sync + 'static,
        http_status: u16,
    ) -> Self {
        Self::Unsuccessful(Arc::new(keys), http_status)
    }
}
