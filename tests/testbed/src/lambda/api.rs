//! Lambda's API below `/2015-03-31/functions/{name}`: invocations, and the log.

use std::sync::{Arc, Weak};

use super::failure::{Failure, StartError};
use super::runner::Runner;
use crate::aws::FUNCTION;
use crate::http::{Outcome, Reply, Request};
use hyper::Method;
use serde_json::json;

pub(super) async fn handle(function: Weak<Runner>, request: Request) -> Outcome {
    let Some(function) = function.upgrade() else { return Outcome::Drop };
    let segments = request.segments();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let ["2015-03-31", "functions", name, ref what @ ..] = segments[..] else {
        return missing("no such path").into();
    };
    if name != FUNCTION {
        return missing(&format!("Function not found: {name}")).into();
    }
    match (&request.method, what) {
        (&Method::POST, ["invocations"]) => invoke(function, &request).await,
        (&Method::GET, ["log"]) => log(&function),
        _ => missing("no such path"),
    }
    .into()
}

/// Synchronous invocations wait for their answer; `Event` ones do not.
async fn invoke(function: Arc<Runner>, request: &Request) -> Reply {
    let payload = if request.body.is_empty() { "{}".into() } else { request.body.clone() };
    let timeout = function.options.timeout;
    let version = function.live_number();
    match request.header("x-amz-invocation-type") {
        Some("DryRun") => Reply::new(204, "", ""),
        Some("Event") => {
            tokio::spawn(async move { function.invoke(payload, timeout).await });
            Reply::new(202, "", "")
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
                Err(error @ StartError::TooLarge) => {
                    let Failure { error_type, error_message } = Failure::from(&error);
                    let body = json!({"Type": "User", "message": error_message});
                    Reply::json(413, &body).with("x-amzn-errortype", &error_type)
                }
                Err(error) => unhandled(&Failure::from(&error)),
            };
            reply.with("x-amz-executed-version", &version.to_string())
        }
    }
}

/// All that the function has printed. In AWS, that is in CloudWatch Logs.
fn log(function: &Runner) -> Reply {
    let lines = function.logs.since(0);
    let lines: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    Reply::new(200, "text/plain; charset=UTF-8", lines.join("\n"))
}

/// Lambda answers 200 for an error of the function, and marks it with a header.
fn unhandled(failure: &Failure) -> Reply {
    Reply::json(200, failure).with("x-amz-function-error", "Unhandled")
}

fn missing(message: &str) -> Reply {
    let kind = "ResourceNotFoundException";
    Reply::json(404, &json!({"Type": "User", "Message": message})).with("x-amzn-errortype", kind)
}
