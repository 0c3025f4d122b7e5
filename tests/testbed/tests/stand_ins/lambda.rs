//! Lambda's side of the Runtime API, against a function in bash.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;
use testbed::lambda::{Function, FunctionOptions};

async fn function(mode: &str) -> Function {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/stand_ins/function.sh");
    let env = [("MODE", mode), ("PATH", "/usr/bin:/bin")];
    let env: BTreeMap<_, _> = env.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    Function::start(FunctionOptions::new(script, env)).await.unwrap()
}

#[tokio::test]
async fn an_invocation_brings_the_answer_and_what_was_printed_on_its_behalf() {
    let function = function("").await;
    let payload = json!({"a": [1, "é"]});

    let first = function.invoke(&payload).await.unwrap();
    let second = function.invoke(&json!(2)).await.unwrap();

    assert_eq!(first.result, Ok(payload));
    assert!(first.init.is_some(), "the first invocation starts the process");
    assert_eq!(second.result, Ok(json!(2)));
    assert_eq!(second.init, None);
    let printed: Vec<_> = second.logs.iter().map(|line| line.text.as_str()).collect();
    assert_eq!(printed, ["got 2", &format!("done with {}", second.request_id)]);
}

#[tokio::test]
async fn a_process_that_dies_or_outlives_its_time_out_fails_and_the_next_one_starts() {
    for (payload, kind) in [("crash", "Runtime.ExitError"), ("hang", "Sandbox.Timedout")] {
        let function = function("").await;
        let timeout = Duration::from_millis(300);

        let failed = function.invoke_within(&json!(payload), timeout).await.unwrap();
        let next = function.invoke(&json!(1)).await.unwrap();

        assert_eq!(failed.result.unwrap_err().error_type, kind);
        assert_eq!(failed.logs[0].text, format!("got {payload:?}"));
        assert_eq!(next.result, Ok(json!(1)));
        assert!(next.init.is_some(), "{payload}");
        assert_eq!(function.starts(), 2);
    }
}

#[tokio::test]
async fn a_start_that_fails_brings_what_was_printed() {
    let error = function("exit").await.warm().await.unwrap_err();

    assert_eq!(error.failure.error_type, "Runtime.ExitError");
    assert_eq!(error.logs[0].text, "panicked at start");
}
