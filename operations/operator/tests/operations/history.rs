//! `make history`.

use serde_json::{Value, json};
use testbed::http::{Reply, Server};

use crate::desk::{Desk, outputs};

fn receipts() -> Vec<Value> {
    let receipt = |time: &str, message: &str, more: Value| {
        let mut line = json!({
            "timestamp": time, "level": "INFO", "message": message, "system_account_id": "a",
            "index_name": "i", "source": "stream",
        });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    };
    let keys = json!(["s.example", "a-i"]);
    vec![
        receipt("2026-11-22T14:05:00Z", "record rejected", json!({"path": "index_endpoint"})),
        receipt("2026-11-22T14:04:00Z", "removed", json!({"keys": keys})),
        receipt(
            "2026-11-22T14:03:00Z",
            "exported",
            json!({"keys": keys, "changed_at": "2026-11-22T14:02:58Z", "sequence_number": "7",
                "digest": "0123456789abcdef"}),
        ),
    ]
}

const SHOWN: &str = "\
from                  until                 what                        by      changed               change  digest    of   keys
2026-11-22T14:05:00Z                        rejected at index_endpoint  stream                                          a/i
2026-11-22T14:04:00Z  now                   removed                     stream                                          a/i  s.example
2026-11-22T14:03:00Z  2026-11-22T14:04:00Z  exported                    stream  2026-11-22T14:02:58Z  7       01234567  a/i  s.example
";

#[test]
fn in_aws_a_query_of_the_log_says_what_was_served_since_which_change() {
    let rows: Vec<Value> = receipts()
        .iter()
        .map(|line| json!([{"field": "@message", "value": line.to_string()}]))
        .collect();
    let results = json!({"status": "Complete", "results": rows});
    let desk = outputs("prod")
        .answers("aws logs start-query *", r#"{"queryId": "q"}"#)
        .answers("aws logs get-query-results --query-id q *", results.to_string());

    let made = desk.make(&["history", "KEY=s.example", "SINCE=2d"]);

    assert!(made.succeeded, "{made:?}");
    assert_eq!(made.stdout, SHOWN);
    let calls = desk.calls();
    assert!(calls.contains(r#""logGroupName":"/aws/lambda/the-function""#), "{calls}");
    assert!(calls.contains(r#"@message like \"s.example\""#), "{calls}");
}

#[tokio::test(flavor = "multi_thread")]
async fn on_the_local_stack_the_same_command_reads_the_functions_log() {
    let log: String = receipts().iter().map(|line| format!("{line}\n")).collect();
    let stack = Server::start(0, move |request| {
        let asks = request.path.ends_with("/log");
        let log = log.clone();
        async move { Reply::new(if asks { 200 } else { 404 }, "text/plain", log).into() }
    });
    let stack = stack.await.unwrap();
    let desk =
        Desk::new().with("ENVIRONMENT", "local").with("AWS_ENDPOINT_URL_LAMBDA", stack.url());

    let made = desk.make(&["history", "KEY=s.example"]);

    assert_eq!(made.stdout, SHOWN, "{made:?}");
    assert!(!desk.make(&["history", "KEY=s.example", "SINCE=soon"]).succeeded);
}
