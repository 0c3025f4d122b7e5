//! `testbed invoke`: an event for the function of `testbed up`, and what became of it.

use std::time::UNIX_EPOCH;

use hyper::Method;
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use serde_json::{Value, json};
use testbed::aws::FUNCTION;
use testbed::http::{Client, Reply};

use crate::args::Args;
use crate::screen::{Screen, Style, warning};
use crate::{Outcome, no_stack};

/// More than a minute: then a record that fails through its own fault is parked.
const LATE_SECONDS: u64 = 120;

pub async fn run(mut args: Args) -> Outcome {
    let lambda = format!("http://127.0.0.1:{}", args.ports()?.lambda);
    let late = args.flag("--late");
    let file = args.command().ok_or("the file with the event is missing")?;
    args.end()?;
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{file}: {error}"))?;
    // What is no JSON goes out as it stands: the function has to cope with it.
    let event = serde_json::from_str(&text).map_or(text, |event| stamped(event, late).to_string());

    let before = log(&lambda).await?.len();
    let url = format!("{lambda}/2015-03-31/functions/{FUNCTION}/invocations");
    let Reply { headers, body, .. } = ask(Method::POST, url, event).await?;
    let printed = log(&lambda).await?.slice(before..);
    let lines = String::from_utf8_lossy(&printed);
    let failed = headers.contains_key("x-amz-function-error");
    show(lines.lines().filter(|line| !line.is_empty()), &String::from_utf8_lossy(&body), failed);
    if failed { Err("The function answered with an error.".into()) } else { Ok(()) }
}

/// Returns what the function has logged so far.
pub async fn log(lambda: &str) -> Result<Bytes, String> {
    let url = format!("{lambda}/2015-03-31/functions/{FUNCTION}/log");
    Ok(ask(Method::GET, url, String::new()).await?.body)
}

async fn ask(method: Method, url: String, body: String) -> Result<Reply, String> {
    Client::default().send(method, &url, HeaderMap::new(), body).await.map_err(no_stack)
}

/// The event as if its records had just been written, or two minutes ago.
fn stamped(mut event: Value, late: bool) -> Value {
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let written = if late { now - LATE_SECONDS } else { now };
    let records = event.get_mut("Records").and_then(Value::as_array_mut);
    for record in records.into_iter().flatten() {
        if let Some(change) = record.get_mut("dynamodb").and_then(Value::as_object_mut) {
            change.insert("ApproximateCreationDateTime".to_owned(), json!(written));
        }
    }
    event
}

fn show<'a>(lines: impl Iterator<Item = &'a str>, answer: &str, failed: bool) {
    let screen = Screen::new();
    let mut said = false;
    for line in lines {
        if let Some((style, level, text)) = warning(line) {
            screen.line(style, level, &text);
            said = true;
            continue;
        }
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        let fields = line.get("fields").unwrap_or(&line);
        if let Some(what @ ("exported" | "removed")) = fields["message"].as_str() {
            screen.line(Style::Green, what, fields["key"].as_str().unwrap_or_default());
            said = true;
        }
        if let Some(skipped) = line["RecordsSkipped"].as_u64().filter(|skipped| *skipped > 0) {
            let text = format!("{skipped}, whose items are not exported");
            screen.line(Style::Yellow, "skipped", &text);
            said = true;
        }
    }
    if !said && !failed {
        screen.line(Style::Yellow, "nothing", "was written to KV: it holds what the table says");
    }
    screen.line(if failed { Style::Red } else { Style::Bold }, "answer", answer);
}
