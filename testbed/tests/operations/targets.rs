//! What all targets for AWS have in common, and those that send a payload.

use serde_json::{Value, json};
use testbed::lambda::{Function, FunctionOptions};

use crate::desk::Desk;

#[test]
fn no_target_calls_aws_without_the_name_of_the_environment() {
    for target in [
        "deploy",
        "configure",
        "rollback",
        "status",
        "invoke-remote",
        "re-export",
        "reconcile",
        "follow",
        "stop-reconciles",
        "try-token",
        "tail",
    ] {
        let desk = Desk::new();
        let made = desk.make(&[target, "EVENT=events/re-export.json", "ACCOUNT=a", "INDEX=i"]);
        assert!(!made.succeeded && made.stderr.contains("needs ENVIRONMENT"), "{target}: {made:?}");
        assert_eq!(desk.calls(), "", "{target}");
    }
}

#[test]
fn a_shell_that_asks_the_local_stack_is_taken_for_no_other_environment() {
    let local = || Desk::new().with("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    let desk = local().with("ENVIRONMENT", "prod");
    let made = desk.make(&["reconcile"]);
    assert!(!made.succeeded && made.stderr.contains("asks the local stack, not prod"), "{made:?}");
    assert_eq!(desk.calls(), "");
}

#[test]
fn what_a_reconcile_is_asked_for_has_to_make_sense() {
    for wrong in ["APPLY=yes", "DELETE_UP_TO=x", "REWRITE_UP_TO=-1"] {
        let desk = Desk::new().with("ENVIRONMENT", "prod");
        let made = desk.make(&["reconcile", wrong]);
        assert!(!made.succeeded && desk.calls().is_empty(), "{wrong}: {made:?}");
    }
}

#[test]
fn samples_are_written_to_no_environment_in_aws() {
    for event in ["events/stream-insert.json", "events/stream-mixed-batch.json"] {
        let desk = Desk::new().with("ENVIRONMENT", "prod").with("FUNCTION", "f");
        let made = desk.make(&["invoke-remote", &format!("EVENT={event}")]);
        assert!(!made.succeeded && made.stderr.contains("only to a local function"), "{made:?}");
        assert!(!desk.calls().contains("invoke"), "{}", desk.calls());
    }
    let made = Desk::new().with("ENVIRONMENT", "prod").make(&["invoke-remote"]);
    assert!(!made.succeeded && made.stderr.contains("needs EVENT"), "{made:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_go_to_the_alias_of_the_function_and_errors_fail_the_target() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/function.sh");
    let env = [("MODE", ""), ("PATH", "/usr/bin:/bin")];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let function = Function::start(FunctionOptions::new(script, env.into())).await.unwrap();
    let desk = Desk::new()
        .with("ENVIRONMENT", "local")
        .with("FUNCTION", "ecom-settings-exporter")
        .with("AWS_ENDPOINT_URL_LAMBDA", function.url());

    let re_export = desk.make(&["re-export", "ACCOUNT=a", "INDEX=i", "RAW=true"]);
    let sample = desk.make(&["invoke-remote", "EVENT=events/stream-remove.json", "RAW=true"]);
    std::fs::write(desk.path("error.json"), "\"error\"").unwrap();
    let error = format!("EVENT={}", desk.path("error.json").display());
    let failed = desk.make(&["invoke-remote", &error, "RAW=true"]);

    let payload =
        json!({"system_account_id": "a", "index_name": "i", "include_query_configs": false});
    let answer: Value = serde_json::from_str(&re_export.stdout).unwrap();
    assert_eq!(answer, payload, "{re_export:?}");
    assert!(sample.succeeded && sample.stdout.contains("Records"), "{sample:?}");
    assert!(!failed.succeeded && failed.stdout.contains("InvalidPayload"), "{failed:?}");
    let calls = desk.calls();
    assert!(calls.lines().all(|call| call.contains("--qualifier live")), "{calls}");
}
