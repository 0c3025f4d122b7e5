//! The layer before the engine's own server: the log, the faults, and the news of writes.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use hyper::body::Bytes;
use hyper::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::faults::{Fault, Faults};
use crate::http::{Client, Outcome, Reply, Request};
use crate::request_log::{Place, RequestLog};
use crate::sync::lock;

#[derive(Debug, Clone)]
pub struct TableRequest {
    pub operation: String,
    /// The `pk` and `sk` of the items it names.
    pub keys: Vec<(String, String)>,
    /// How many items it named, or found if it is a scan or a query.
    pub items: usize,
    pub consistent: bool,
    /// The read capacity units that it consumed, if it is a scan or a query.
    pub read_units: f64,
    pub reply_bytes: usize,
    pub received_at: Instant,
    /// When its reply was ready; `None` while it runs, and if the client gave up.
    pub finished_at: Option<Instant>,
    /// The status of its reply; `None` if the connection was broken.
    pub status: Option<u16>,
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
        request.status = reply.map(|reply| reply.status.as_u16());
        request.reply_bytes = reply.map_or(0, |reply| reply.body.len());
        if matches!(request.operation.as_str(), "Scan" | "Query") {
            let found = reply.and_then(|reply| Found::read(&reply.body)).unwrap_or_default();
            request.items = found.count;
            request.read_units = found.capacity.units;
        }
    }
}

pub async fn handle(front: Arc<Front>, request: Request) -> Outcome {
    let operation = request.operation().unwrap_or_default().to_owned();
    let place = lock(&front.log).begin(describe(&operation, &request));
    let work = async |request: Request, fault| {
        let reply = match fault {
            Some(Fault::Unprocessed(keep)) => unprocessed(&front, request, keep).await,
            _ => forward(&front, with_capacity(&operation, request)).await,
        };
        if writes(&operation) && reply.status.is_success() {
            front.written();
        }
        reply
    };
    let outcome = front.faults.serve(request, work).await;
    front.finish(place, &outcome);
    outcome
}

fn writes(operation: &str) -> bool {
    matches!(
        operation,
        "PutItem"
            | "UpdateItem"
            | "DeleteItem"
            | "BatchWriteItem"
            | "TransactWriteItems"
            | "ExecuteStatement"
            | "ExecuteTransaction"
            | "BatchExecuteStatement"
    )
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

/// Reads only the first keys of each table, and hands the others back.
async fn unprocessed(front: &Front, request: Request, keep: usize) -> Reply {
    let Ok(mut asked) = request.json::<Value>() else { return forward(front, request).await };
    let mut left = json!({});
    let tables = asked["RequestItems"].as_object_mut().into_iter().flatten();
    for (table, get) in tables {
        let mut rest = get.clone();
        if let (Some(keys), Some(others)) =
            (get["Keys"].as_array_mut(), rest["Keys"].as_array_mut())
            && keys.len() > keep
        {
            keys.truncate(keep);
            others.drain(..keep);
            left[table] = rest;
        }
    }
    let mut reply = if keep == 0 {
        Reply::json(200, &json!({"Responses": {}}))
    } else {
        let body = Bytes::from(asked.to_string());
        forward(front, Request { body, ..request }).await
    };
    if let Ok(mut answer) = serde_json::from_slice::<Value>(&reply.body) {
        answer["UnprocessedKeys"] = left;
        reply.body = answer.to_string().into();
        reply.headers.remove("x-amz-crc32");
    }
    reply.with("content-type", "application/x-amz-json-1.0")
}

fn describe(operation: &str, request: &Request) -> TableRequest {
    let body: Value = request.json().unwrap_or_default();
    let mut keys = Vec::new();
    let mut consistent = body["ConsistentRead"] == true;
    for single in [&body["Key"], &body["Item"]] {
        keys.extend(key_of(single));
    }
    for table in body["RequestItems"].as_object().into_iter().flat_map(|tables| tables.values()) {
        consistent |= table["ConsistentRead"] == true;
        keys.extend(table["Keys"].as_array().into_iter().flatten().filter_map(key_of));
        for write in table.as_array().into_iter().flatten() {
            keys.extend(key_of(&write["PutRequest"]["Item"]));
            keys.extend(key_of(&write["DeleteRequest"]["Key"]));
        }
    }
    TableRequest {
        operation: operation.to_owned(),
        items: keys.len(),
        keys,
        consistent,
        read_units: 0.0,
        reply_bytes: 0,
        received_at: Instant::now(),
        finished_at: None,
        status: None,
    }
}

fn key_of(item: &Value) -> Option<(String, String)> {
    Some((item["pk"]["S"].as_str()?.to_owned(), item["sk"]["S"].as_str()?.to_owned()))
}

/// Has the engine report what a scan or a query consumes. Callers that did not ask get it too.
fn with_capacity(operation: &str, mut request: Request) -> Request {
    if matches!(operation, "Scan" | "Query")
        && let Ok(mut asked) = request.json::<Value>()
        && asked.is_object()
    {
        asked["ReturnConsumedCapacity"] = json!("TOTAL");
        request.body = asked.to_string().into();
    }
    request
}

/// A reply to a scan or a query, without its items.
#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase")]
struct Found {
    count: usize,
    #[serde(rename = "ConsumedCapacity", default)]
    capacity: Capacity,
}

#[derive(Deserialize, Default)]
struct Capacity {
    #[serde(rename = "CapacityUnits")]
    units: f64,
}

impl Found {
    fn read(reply: &[u8]) -> Option<Self> {
        serde_json::from_slice(reply).ok()
    }
}
