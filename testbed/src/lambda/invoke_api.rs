//! The part of Lambda's API that invokes: `POST /2015-03-31/functions/{name}/invocations`.

use std::sync::Weak;

use hyper::Method;
use serde_json::json;

use super::failure::Failure;
use super::runner::Runner;
use crate::http::{Outcome, Reply, Request};

/// Answers one request. Synchronous invocations wait for their answer; `Event` ones do not.
pub(super) async fn handle(function: Weak<Runner>, request: Request) -> Outcome {
    let Some(function) = function.upgrade() else { return Outcome::Drop };
    let segments = request.segments();
    let ["2015-03-31", "functions", name, "invocations"] =
        segments.iter().map(String::as_str).collect::<Vec<_>>()[..]
    else {
        return missing("no such path").into();
    };
    if request.method != Method::POST || name != function.options.name {
        return missing(&format!("Function not found: {name}")).into();
    }
    let payload = if request.body.is_empty() { "{}".into() } else { request.body.clone() };
    let timeout = function.options.timeout;
    match request.header("x-amz-invocation-type") {
        Some("DryRun") => Reply::new(204, "", "").into(),
        Some("Event") => {
            tokio::spawn(async move { function.invoke(payload, timeout).await });
            Reply::new(202, "", "").into()
        }
        _ => {
            let reply = match function.invoke(payload, timeout).await {
                Ok(invocation) => {
                    let id = invocation.request_id;
                    invocation
                        .result
                        .map_or_else(
                            |failure| unhandled(&failure),
                            |answer| Reply::json(200, &answer),
                        )
                        .with("x-amzn-requestid", &id)
                }
                Err(error) => unhandled(&Failure::from(&error)),
            };
            reply.with("x-amz-executed-version", "$LATEST").into()
        }
    }
}

/// Lambda answers 200 for an error of the function, and marks it with a header.
fn unhandled(failure: &Failure) -> Reply {
    Reply::json(200, failure).with("x-amz-function-error", "Unhandled")
}

fn missing(message: &str) -> Reply {
    let kind = "ResourceNotFoundException";
    Reply::json(404, &json!({"Type": "User", "Message": message})).with("x-amzn-errortype", kind)
}
