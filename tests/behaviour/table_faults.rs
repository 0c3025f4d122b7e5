//! DynamoDB fails when a removal or a re-export needs it.

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Reply;
use testbed::stack::TOKEN;

use crate::helpers::*;

/// A world in which a/old was removed from the table, and the record of that.
async fn removal(world: World) -> (World, Vec<Value>) {
    world.settled_with([shop("a", "old", "old.example"), index("a", "other")]).await;
    world.stack.table.delete("a", "INDEX#old");
    let records = world.new_records();
    (world, records)
}

#[tokio::test]
async fn a_table_that_stays_throttled_fails_the_removal_and_deletes_nothing() {
    let (world, records) = removal(World::start().await).await;
    world.break_table(scans(Fault::throttled()).forever());

    let failed = world.batch(records.clone()).await;

    assert_eq!(failed.failures().len(), 1);
    assert_eq!(world.setting_keys(), ["a-old", "a-other", "old.example"]);
    let error = world.logs.of("record failed")[0]["error"].as_str().unwrap().to_owned();
    assert!(error.contains("ThrottlingException"), "{error}");
    world.stack.table.faults().clear();
    world.batch_ok(records).await;
    assert_eq!(world.setting_keys(), ["a-other"]);
}

#[tokio::test]
async fn an_answer_that_is_not_dynamodbs_does_not_say_that_items_are_gone() {
    let no_list = || Fault::Answer(Reply::json(200, &json!({})));
    let answers = [("Scan", no_list()), ("Scan", Fault::WrongJson), ("Scan", Fault::HtmlBody)];
    let settings = ["a-old", "a-other", "old.example"];
    for (operation, fault) in answers {
        let (world, records) = removal(World::start().await).await;
        world.break_table(Rule::operation(operation, fault).forever());

        assert_eq!(world.batch(records).await.failures().len(), 1);

        assert_eq!(world.setting_keys(), settings);
    }
}

#[tokio::test]
async fn one_segment_that_fails_fails_the_look() {
    let (world, records) = removal(World::start().await).await;
    world.break_table(scans(denied()).after(3));

    let failed = world.batch(records).await;

    assert_eq!(failed.failures().len(), 1, "half a scan must not decide");
    assert_eq!(world.setting_keys(), ["a-old", "a-other", "old.example"]);
}

#[tokio::test]
async fn unprocessed_keys_are_asked_for_again() {
    let world = World::start().await;
    let configs: Vec<Value> =
        (0..30).map(|n| query_config("a", "i", &format!("q{n:02}"), n)).collect();
    world.settled_with(configs).await;
    for n in 0..30 {
        world.stack.table.delete("a", &format!("INDEX#i#QUERY#q{n:02}"));
    }
    // One was put back since. It must be found among the keys that were left unprocessed.
    world.stack.table.put(&query_config("a", "i", "q29", 99));
    let records = world.new_records();
    let removals = records.into_iter().filter(|record| record["eventName"] == "REMOVE");
    world.break_table(Rule::operation("BatchGetItem", Fault::Unprocessed(7)).times(4));

    world.batch_ok(removals).await;
    assert_eq!(world.query_config_keys(), [query_config_key("a", "i", "q29")]);
}

#[tokio::test]
async fn keys_that_stay_unprocessed_fail_their_records_and_nothing_is_deleted() {
    let world = World::start().await;
    world.settled_with([query_config("a", "i", "q1", 1), query_config("a", "i", "q2", 2)]).await;
    world.stack.table.delete("a", "INDEX#i#QUERY#q1");
    world.stack.table.delete("a", "INDEX#i#QUERY#q2");
    world.break_table(Rule::operation("BatchGetItem", Fault::Unprocessed(0)).forever());

    let answered = world.deliver().await;

    assert_eq!(answered.failures().len(), 2);
    assert_eq!(world.query_config_keys().len(), 2);
}

#[tokio::test]
async fn what_aws_says_is_shown_short_and_without_the_secrets_of_the_process() {
    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    let env = world.stack.env();
    let secrets = [&env["AWS_SECRET_ACCESS_KEY"], TOKEN];
    let echo = format!("denied: {} {} and so on", secrets[0], secrets[1]);
    let long = format!("{echo}{}", "x".repeat(24_000_000));
    for (kind, message) in
        [("AccessDeniedException", &echo), ("ValidationException", &long), ("a sentence", &echo)]
    {
        world.logs.clear();
        world.break_table(scans(Fault::aws(400, kind, message)).forever());

        world.batch([removed(1, "a", "INDEX#i")]).await;

        let [line] = &world.logs.of("record failed")[..] else { panic!("one line for {kind}") };
        let error = line["error"].as_str().unwrap();
        assert_eq!(error.contains(kind), kind != "a sentence", "{error}");
        assert!(error.len() < 500 && !error.contains("a sentence"), "{error}");
        for secret in secrets {
            assert!(!world.logs.text().contains(secret), "{error}");
        }
        world.stack.table.faults().clear();
    }
}
