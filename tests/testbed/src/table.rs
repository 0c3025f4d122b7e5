//! The settings table: an embedded DynamoDB with its stream, served over HTTP behind a layer that
//! logs requests and plays faults.
//!
//! Known differences from DynamoDB: a put that changes nothing is recorded as MODIFY; there is only
//! one shard; and that shard shows an ending sequence number although it is open.

mod front;

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use dynoxide::{Database, ImportOptions, Item};
use hyper::Method;
use hyper::header::{HeaderMap, HeaderValue};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};

use crate::faults::Faults;
use crate::http::{Client, Reply, Server};
use crate::sync::lock;
use front::Front;

pub use front::TableRequest;

/// What the records of the stream carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StreamView {
    /// The item as it is after the change.
    #[default]
    NewImage,
    /// The item before and after.
    NewAndOldImages,
}

/// A running table. Clones share it; it stops with the last of them.
#[derive(Clone)]
pub struct Table(Arc<Running>);

struct Running {
    name: String,
    stream_arn: String,
    database: Database,
    front: Arc<Front>,
    server: Server,
    /// Closes the engine's own server when it is dropped.
    _backend: oneshot::Sender<()>,
}

impl Table {
    /// Creates a table with the keys `pk` and `sk` and serves it on a port; 0 for any.
    pub async fn start(port: u16, name: &str, view: StreamView) -> io::Result<Self> {
        let database = Database::memory().map_err(io::Error::other)?;
        let stream_arn = create(&database, name, view).map_err(io::Error::other)?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let backend_url = format!("http://{}/", listener.local_addr()?);
        let (backend, stopped) = oneshot::channel();
        let served = database.clone();
        tokio::spawn(async move {
            let stopped = async { stopped.await.unwrap_or_default() };
            dynoxide::server::serve_with_shutdown(listener, served, stopped).await
        });
        let front = Arc::new(Front::new(backend_url));
        let server = Server::sharing(port, &front, front::handle).await?;
        let name = name.to_owned();
        Ok(Self(Arc::new(Running { name, stream_arn, database, front, server, _backend: backend })))
    }

    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The address, as `AWS_ENDPOINT_URL_DYNAMODB` takes it.
    pub fn url(&self) -> String {
        self.0.server.url()
    }

    /// The faults to come. They hit requests over HTTP, not the helpers here.
    pub fn faults(&self) -> &Faults {
        &self.0.front.faults
    }

    /// Puts an item in DynamoDB JSON.
    ///
    /// # Panics
    ///
    /// If DynamoDB refuses the item. All helpers here panic, because their input is part of a test.
    #[track_caller]
    pub fn put_item(&self, item: &Value) {
        let put = request(json!({"TableName": self.name(), "Item": item}));
        self.0.database.put_item(put).expect("the item should be one that DynamoDB takes");
        self.written();
    }

    /// Puts an item given as plain JSON, see [`to_item`].
    #[track_caller]
    pub fn put(&self, item: &Value) {
        self.put_item(&to_item(item));
    }

    /// Deletes an item, whether or not it exists.
    #[track_caller]
    pub fn delete(&self, pk: &str, sk: &str) {
        let delete = request(json!({"TableName": self.name(), "Key": key(pk, sk)}));
        self.0.database.delete_item(delete).expect("the key should be one that DynamoDB takes");
        self.written();
    }

    /// Puts many items in DynamoDB JSON in one transaction, past the stream.
    #[track_caller]
    pub fn load(&self, items: impl IntoIterator<Item = Value>) {
        let items: Vec<Item> = items.into_iter().map(request).collect();
        let options = ImportOptions { record_streams: false, set_cached_at: false };
        let imported = self.0.database.import_items(self.name(), items, options);
        imported.expect("the items should be ones that DynamoDB takes");
    }

    /// All requests over HTTP since the log was cleared.
    pub fn log(&self) -> Vec<TableRequest> {
        lock(&self.0.front.log).requests().to_vec()
    }

    pub fn clear_log(&self) {
        lock(&self.0.front.log).clear();
    }

    /// Changes after every write, through the helpers here or over HTTP.
    pub fn writes(&self) -> watch::Receiver<u64> {
        self.0.front.writes.subscribe()
    }

    pub(crate) fn database(&self) -> &Database {
        &self.0.database
    }

    pub(crate) fn stream_arn(&self) -> &str {
        &self.0.stream_arn
    }

    fn written(&self) {
        self.0.front.written();
    }
}

/// Asks a table at this address for an operation. It wants to see a signature, whatever that says.
pub async fn call(url: &str, operation: &str, body: &Value) -> Result<Reply, String> {
    let target = format!("DynamoDB_20120810.{operation}");
    let headers = [
        ("content-type", "application/x-amz-json-1.0"),
        ("x-amz-target", &target),
        ("x-amz-date", "20260101T000000Z"),
        (
            "authorization",
            "AWS4-HMAC-SHA256 Credential=local/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, Signature=0",
        ),
    ];
    let mut request = HeaderMap::new();
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).map_err(|error| error.to_string())?;
        request.insert(name, value);
    }
    Client::default().send(Method::POST, url, request, body.to_string()).await
}

fn create(database: &Database, name: &str, view: StreamView) -> Result<String, String> {
    let view = match view {
        StreamView::NewImage => "NEW_IMAGE",
        StreamView::NewAndOldImages => "NEW_AND_OLD_IMAGES",
    };
    let create = serde_json::from_value(json!({
        "TableName": name,
        "KeySchema": [
            {"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"},
        ],
        "AttributeDefinitions": [
            {"AttributeName": "pk", "AttributeType": "S"},
            {"AttributeName": "sk", "AttributeType": "S"},
        ],
        "BillingMode": "PAY_PER_REQUEST",
        "StreamSpecification": {"StreamEnabled": true, "StreamViewType": view},
    }));
    let create = create.map_err(|error| error.to_string())?;
    let created = database.create_table(create).map_err(|error| error.to_string())?;
    created.table_description.latest_stream_arn.ok_or_else(|| "the table has no stream".to_owned())
}

fn key(pk: &str, sk: &str) -> Value {
    json!({"pk": {"S": pk}, "sk": {"S": sk}})
}

/// A typed request of the engine from its JSON.
#[track_caller]
fn request<T: DeserializeOwned>(json: Value) -> T {
    serde_json::from_value(json).expect("the request should be one that DynamoDB takes")
}

/// A plain JSON object as an item; anything but an object becomes an empty item.
pub fn to_item(object: &Value) -> Value {
    let fields = object.as_object().into_iter().flatten();
    let fields: BTreeMap<_, _> = fields.map(|(name, value)| (name, to_attribute(value))).collect();
    json!(fields)
}

/// A plain JSON value as an attribute: `"a"` becomes `{"S":"a"}`, `1` becomes `{"N":"1"}`.
fn to_attribute(value: &Value) -> Value {
    match value {
        Value::Null => json!({"NULL": true}),
        Value::Bool(flag) => json!({"BOOL": flag}),
        Value::Number(number) => json!({"N": number.to_string()}),
        Value::String(text) => json!({"S": text}),
        Value::Array(list) => json!({"L": list.iter().map(to_attribute).collect::<Vec<_>>()}),
        Value::Object(_) => json!({"M": to_item(value)}),
    }
}
