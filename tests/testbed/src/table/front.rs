//! The layer before the engine's own server: the log, the faults, and the news of writes.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::faults::Faults;
use crate::http::{Client, Outcome, Reply, Request};
use crate::request_log::{Place, RequestLog};
use crate::sync::lock;

#[derive(Debug, Clone)]
pub struct TableRequest {
    pub operation: String,
    /// How many items it named, or found if it is a scan or a query.
    pub items: usize,
    pub consistent: bool,
    pub reply_bytes: usize,
    pub received_at: Instant,
    /// When its reply was ready; `None` while it runs, and if the client gave up.
    pub finished_at: Option<Instant>,
}

pub struct Front {
    backend_url: String,
    client: Client,
    pub faults: Faults,
    pub log: Mutex<RequestLog<TableRequest>>,
    pub writes: watch::Sender<u64>,
}

impl Front {
    pub fn new(backend_url: String) -> Self {
        Self {
            backend_url,
            client: Client::default(),
            faults: Faults::default(),
            log: Mutex::default(),
            writes: watch::Sender::new(0),
        }
    }

    /// Tells waiting tasks that the table was written to.
    pub fn written(&self) {
        self.writes.send_modify(|count| *count += 1);
    }

    fn finish(&self, place: Place, outcome: &Outcome) {
        let reply = outcome.reply();
        let mut log = lock(&self.log);
        let Some(request) = log.find(place) else { return };
        request.finished_at = Some(Instant::now());
        request.reply_bytes = reply.map_or(0, |reply| reply.body.len());
        if let (Some(reply), "Scan" | "Query") = (reply, &*request.operation) {
            let found: Value = serde_json::from_slice(&reply.body).unwrap_or_default();
            request.items = found["Count"].as_u64().map_or(0, |count| count as usize);
        }
    }
}

pub async fn handle(front: Arc<Front>, request: Request) -> Outcome {
    let operation = request.operation().unwrap_or_default().to_owned();
    let place = lock(&front.log).begin(describe(&operation, &request));
    let work = async |request: Request, _| {
        let reply = forward(&front, request).await;
        let reads = ["Get", "BatchGet", "Query", "Scan", "Describe", "List"];
        if !reads.iter().any(|read| operation.starts_with(read)) && reply.status.is_success() {
            front.written();
        }
        reply
    };
    let outcome = front.faults.serve(request, work).await;
    front.finish(place, &outcome);
    outcome
}

async fn forward(front: &Front, request: Request) -> Reply {
    let mut headers = request.headers;
    for name in [HOST, CONTENT_LENGTH, TRANSFER_ENCODING, CONNECTION] {
        headers.remove(name);
    }
    let sent = front.client.send(request.method, &front.backend_url, headers, request.body).await;
    match sent {
        Ok(mut reply) => {
            reply.headers.remove(CONTENT_LENGTH);
            reply
        }
        Err(error) => Reply::json(500, &json!({"__type": "InternalServerError", "message": error})),
    }
}

fn describe(operation: &str, request: &Request) -> TableRequest {
    let body: Value = request.json().unwrap_or_default();
    let tables: Vec<&Value> =
        body["RequestItems"].as_object().into_iter().flat_map(|tables| tables.values()).collect();
    let named = tables.iter().map(|table| table["Keys"].as_array().map_or(0, Vec::len)).sum();
    let consistent = |asked: &Value| asked["ConsistentRead"] == true;
    TableRequest {
        operation: operation.to_owned(),
        items: if tables.is_empty() { 1 } else { named },
        consistent: consistent(&body) || tables.into_iter().any(consistent),
        reply_bytes: 0,
        received_at: Instant::now(),
        finished_at: None,
    }
}
