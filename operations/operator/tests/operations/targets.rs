//! What all targets for AWS have in common, and those that send a payload.

use serde_json::json;

use crate::desk::{Desk, outputs};

#[test]
fn no_target_calls_aws_without_the_name_of_the_environment() {
    for target in [
        "deploy",
        "configure",
        "release",
        "rollback",
        "status",
        "invoke-remote",
        "explain",
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
    let desk = outputs("prod").with("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    let made = desk.make(&["reconcile"]);
    assert!(!made.succeeded && made.stderr.contains("asks the local stack, not prod"), "{made:?}");
    assert_eq!(desk.calls(), "");
}

#[test]
fn what_the_local_stack_lacks_says_so() {
    let desk = outputs("local").with("AWS_ENDPOINT_URL", "http://127.0.0.1:9");
    for target in ["deploy", "configure", "release", "rollback", "tail"] {
        let made = desk.make(&[target]);
        assert!(!made.succeeded && made.stderr.contains("the local stack has no"), "{made:?}");
    }
    assert_eq!(desk.calls(), "");
}

#[test]
fn a_cli_that_ignores_the_endpoints_of_the_environment_is_refused_with_the_version_that_is_needed()
{
    let desk = outputs("prod").with("AWS_CLI", "2.12.7");
    let made = desk.make(&["reconcile"]);
    assert!(!made.succeeded && made.stderr.contains("AWS CLI 2.13 or later"), "{made:?}");
    assert_eq!(desk.calls(), "aws --version\n");
}

#[test]
fn what_a_command_is_given_has_to_make_sense() {
    for wrong in [
        &["reconcile", "APPLY=yes"][..],
        &["reconcile", "DELETE_UP_TO=x"],
        &["reconcile", "REWRITE_UP_TO=-1"],
        &["explain", "ACCOUNT=a"],
        &["re-export", "INDEX=i"],
        &["invoke-remote"],
    ] {
        let desk = outputs("prod");
        let made = desk.make(wrong);
        assert!(!made.succeeded && desk.calls().is_empty(), "{wrong:?}: {made:?}");
    }
    // A variable of the shell that happens to have such a name does not count.
    let desk = outputs("prod").with("KEY", "k").with("ACCOUNT", "a").with("INDEX", "i");
    assert!(!desk.make(&["explain"]).succeeded && desk.calls().is_empty());
}

#[test]
fn no_name_of_a_key_reaches_a_shell_or_make() {
    let pwned = Desk::new().path("pwned");
    let pwned = pwned.display();
    let odd = [
        format!("x'; touch {pwned}; echo '"),
        format!("x\"; touch {pwned}; echo \""),
        format!("`touch {pwned}`$(touch {pwned})"),
        format!("$(shell touch {pwned})$$HOME ${{HOME}}"),
        r#"a"b\c, #d"#.to_owned(),
        "=\u{1}".to_owned(),
    ];
    for key in odd {
        let desk = outputs("prod").answers("aws lambda invoke *", "{}");
        let made = desk.make(&["explain", &format!("KEY={key}")]);
        assert!(made.succeeded, "{key}: {made:?}");
        let payload = json!({"explain": {"key": key}}).to_string();
        assert!(desk.calls().contains(&payload), "{}", desk.calls());
        let names = [format!("ACCOUNT={key}"), format!("INDEX={key}")];
        desk.make(&["explain", &names[0], &names[1]]);
        let index = json!({"system_account_id": key, "index_name": key});
        let payload = json!({"explain": index}).to_string();
        assert!(desk.calls().contains(&payload), "{}", desk.calls());
        desk.make(&["re-export", &names[0], &names[1]]);
        let payload = json!({"index_name": key, "system_account_id": key}).to_string();
        assert!(desk.calls().contains(&payload[1..]), "{}", desk.calls());
    }
    assert!(!std::path::Path::new(&pwned.to_string()).exists());
}

#[test]
fn samples_are_written_to_no_environment_in_aws() {
    for event in ["events/stream-insert.json", "events/stream-mixed-batch.json"] {
        let desk = outputs("prod").with("FUNCTION", "f");
        let made = desk.make(&["invoke-remote", &format!("EVENT={event}")]);
        assert!(!made.succeeded && made.stderr.contains("only to a local function"), "{made:?}");
        assert!(!desk.calls().contains("invoke"), "{}", desk.calls());
    }
    let emulated = outputs("prod").with("AWS_ENDPOINT_URL", "http://127.0.0.1:4566");
    let emulated = emulated.answers("aws lambda invoke *", "{}");
    assert!(emulated.make(&["invoke-remote", "EVENT=events/stream-insert.json"]).succeeded);
}

#[test]
fn payloads_go_to_the_alias_of_the_function_and_errors_fail_the_target() {
    let answer = r#"{"settings_keys": ["a-i"], "outcome": "exported"}"#;
    let desk = outputs("prod").answers("aws lambda invoke *", answer);
    let made = desk.make(&["re-export", "ACCOUNT=a", "INDEX=i", "RAW=true"]);
    assert!(made.succeeded && made.stdout == format!("{answer}\n"), "{made:?}");
    let calls = desk.calls();
    let call = calls.lines().find(|call| call.starts_with("aws lambda invoke")).unwrap();
    assert!(call.contains("--function-name the-function --qualifier live "), "{call}");
    assert!(call.contains(r#""include_query_configs":false"#), "{call}");

    let error = r#"{"errorType": "IndexNotFound", "errorMessage": "no such index"}"#;
    let desk = outputs("prod").answers("aws lambda invoke *", error);
    let failed = desk.make(&["re-export", "ACCOUNT=a", "INDEX=i"]);
    assert!(!failed.succeeded && failed.stdout == "IndexNotFound: no such index\n", "{failed:?}");
    assert_eq!(desk.operator(&["re-export", "ACCOUNT=a", "INDEX=i"]).code, Some(1));
    assert_eq!(desk.operator(&["re-export", "ACCOUNT=a"]).code, Some(2));
}
