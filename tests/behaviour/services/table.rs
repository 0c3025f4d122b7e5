//! DynamoDB fails. `stream/table.rs` and `stream/removals.rs` tell what becomes of a batch then.

use serde_json::json;
use testbed::faults::{Fault, Rule};
use testbed::stack::TOKEN;

use crate::helpers::*;

#[tokio::test]
async fn a_throttled_page_of_a_pass_is_asked_for_again() {
    let world = World::start().await;
    world.load((0..20).map(|number| index(&format!("a{number}"), "i")));
    world.break_table(Rule::operation("Scan", Fault::throttled()).after(1).times(2));

    let report = world.report(&repair()).await;

    assert_eq!((&report["complete"], world.setting_keys().len()), (&json!(true), 20));
}

#[tokio::test]
async fn what_aws_says_is_shown_short_and_without_the_secrets_of_the_process() {
    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    world.stack.table.delete("a", "INDEX#i");
    let env = world.stack.env();
    // The secret access key, the token, and an API key that the process has had.
    let secrets = [&env["AWS_SECRET_ACCESS_KEY"], TOKEN, "key-b"];
    let echo = format!("denied: {} and so on", secrets.join(" "));
    let long = format!("{echo}{}", "x".repeat(24_000_000));
    for (kind, message) in
        [("AccessDeniedException", &echo), ("ValidationException", &long), ("a sentence", &echo)]
    {
        let _row = row(kind);
        world.logs.clear();
        world.break_table(scans(Fault::aws(400, kind, message)).forever());

        world.batch([written(1, &index("b", "i")), removed(2, "a", "INDEX#i")]).await;

        let error = world.logs.only("record failed")["error"].as_str().unwrap().to_owned();
        assert_eq!(error.contains(kind), kind != "a sentence", "{error}");
        assert!(error.len() < 500 && !error.contains("a sentence"), "{error}");
        assert!(!secrets.iter().any(|secret| error.contains(secret)), "{error}");
        world.stack.table.faults().clear();
    }
}
