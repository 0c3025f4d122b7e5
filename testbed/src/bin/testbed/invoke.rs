//! `testbed invoke`: a payload for the function of `testbed up`.

use std::io::Read;

use hyper::Method;
use hyper::header::HeaderMap;
use serde_json::Value;
use testbed::http::{Client, Reply};

use crate::args::Args;

pub async fn run(mut args: Args) -> Result<(), String> {
    let port = args.ports()?.lambda;
    let source = args.command().ok_or("the payload is missing: a file, or - for standard input")?;
    args.end()?;
    let payload = read(&source)?;
    let url =
        format!("http://127.0.0.1:{port}/2015-03-31/functions/ecom-settings-exporter/invocations");
    let answer = invoke(&Client::default(), &url, payload).await?;
    println!("{answer:#}");
    Ok(())
}

/// Invokes a function by its URL. Also fails if the function answers with an error.
pub async fn invoke(client: &Client, url: &str, payload: Vec<u8>) -> Result<Value, String> {
    let sent = client.send(Method::POST, url, HeaderMap::new(), payload).await;
    let Reply { status, headers, body } = sent.map_err(|error| error.to_string())?;
    let answer = serde_json::from_slice(&body)
        .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into_owned()));
    if status.is_success() && !headers.contains_key("x-amz-function-error") {
        return Ok(answer);
    }
    match (answer["errorType"].as_str(), answer["errorMessage"].as_str()) {
        (Some(kind), Some(message)) => Err(format!("{kind}: {message}")),
        _ => Err(format!("{status}: {answer}")),
    }
}

fn read(source: &str) -> Result<Vec<u8>, String> {
    let mut payload = Vec::new();
    let read = match source {
        "-" => std::io::stdin().read_to_end(&mut payload).map(drop),
        file => std::fs::read(file).map(|bytes| payload = bytes),
    };
    read.map(|()| payload).map_err(|error| format!("{source}: {error}"))
}
