//! `testbed put`: an item for the table of `testbed up`.

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use testbed::http::Client;
use testbed::stack::TABLE;

use crate::args::Args;

/// Whatever the signature, the table wants to see one.
const HEADERS: [(&str, &str); 4] = [
    ("content-type", "application/x-amz-json-1.0"),
    ("x-amz-target", "DynamoDB_20120810.PutItem"),
    ("x-amz-date", "20260101T000000Z"),
    (
        "authorization",
        "AWS4-HMAC-SHA256 Credential=local/20260101/local/dynamodb/aws4_request, SignedHeaders=host;x-amz-date, Signature=0",
    ),
];

pub async fn run(mut args: Args) -> Result<(), String> {
    let port = args.ports()?.dynamodb;
    let file = args.command().ok_or("the file with the item is missing")?;
    args.end()?;
    let text = std::fs::read(&file).map_err(|error| format!("{file}: {error}"))?;
    let mut item: Value =
        serde_json::from_slice(&text).map_err(|error| format!("{file}: {error}"))?;
    if item["pk"].is_null() {
        item = item["item"].take();
    }
    let request = json!({"TableName": TABLE, "Item": item}).to_string();
    let headers: HeaderMap = HEADERS
        .into_iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    let url = format!("http://127.0.0.1:{port}");
    let sent = Client::default().send(Method::POST, &url, headers, request).await;
    let reply = sent.map_err(|error| error.to_string())?;
    if !reply.status.is_success() {
        return Err(format!("{file}: {}", String::from_utf8_lossy(&reply.body)));
    }
    println!("put {} {}", item["pk"]["S"], item["sk"]["S"]);
    Ok(())
}
