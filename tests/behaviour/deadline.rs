//! Whatever hangs, the answer comes before Lambda's time-out, and names what is undone as failed.
//!
//! [`World::handle_within`] fails if it does not.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Faults, Rule};

use crate::helpers::*;
use crate::process;

/// The time of an invocation: shorter than one request's time-out.
const TIME: Duration = Duration::from_secs(3);

fn hang(faults: &Faults) {
    faults.add(Rule::any(Fault::Hang).forever());
}

/// A world in which a/gone was removed and three items were written, and the records of that.
async fn changes() -> (World, Value) {
    let world = World::start().await;
    world.settled_with([shop("a", "gone", "s.example"), query_config("a", "gone", "q", 1)]).await;
    world.stack.table.delete("a", "INDEX#gone");
    world.stack.table.delete("a", "INDEX#gone#QUERY#q");
    world.stack.table.put(&index("a", "new"));
    world.stack.table.put(&query_config("a", "new", "q", 1));
    let event = testbed::stream::event(world.new_records());
    (world, event)
}

fn number(event: &Value, place: usize) -> String {
    testbed::stream::sequence_number(&event["Records"][place]).unwrap().to_owned()
}

#[tokio::test]
async fn kv_hangs() {
    let (world, event) = changes().await;
    hang(world.stack.kv.faults());

    let answered = world.handle_within(&event, TIME).await;

    assert_eq!(answered.failures(), [0, 1, 2, 3].map(|place| number(&event, place)));
}

#[tokio::test]
async fn the_table_hangs_and_what_does_not_need_it_is_done() {
    let (world, event) = changes().await;
    hang(world.stack.table.faults());

    let answered = world.handle_within(&event, TIME).await;

    assert_eq!(answered.failures(), [0, 1].map(|place| number(&event, place)));
    assert_eq!(world.setting_keys(), ["a-gone", "a-new", "s.example"]);
    assert_eq!(world.query_config_keys().len(), 2);
}

#[tokio::test]
async fn the_api_keys_service_hangs_and_what_does_not_need_it_is_done() {
    let (world, event) = changes().await;
    hang(world.stack.api_keys.faults());

    let answered = world.handle_within(&event, TIME).await;

    assert!(answered.failures().contains(&number(&event, 2)));
    assert!(!answered.failures().contains(&number(&event, 1)), "a query config needs no key");
    assert!(!answered.failures().contains(&number(&event, 3)));
    assert_eq!(world.query_config_keys(), [query_config_key("a", "new", "q")]);
}

#[tokio::test]
async fn secrets_manager_hangs() {
    let world = World::start().await;
    hang(world.stack.secrets.faults());

    let event = testbed::stream::event([written(1, &index("a", "i"))]);
    let answered = world.handle_within(&event, TIME).await;

    assert_eq!(answered.failures(), ["1"]);
}

#[tokio::test]
async fn everything_hangs() {
    let (world, event) = changes().await;
    for faults in [
        world.stack.kv.faults(),
        world.stack.table.faults(),
        world.stack.api_keys.faults(),
        world.stack.secrets.faults(),
    ] {
        hang(faults);
    }

    let answered = world.handle_within(&event, TIME).await;

    assert_eq!(answered.failures().len(), 4);
}

#[tokio::test]
async fn a_re_export_ends_with_an_error_in_time() {
    let world = World::start().await;
    world.stack.table.put(&index("a", "i"));
    world.stack.table.put(&query_config("a", "i", "q", 1));
    let payload =
        json!({"system_account_id": "a", "index_name": "i", "include_query_configs": true});
    for faults in
        [world.stack.kv.faults(), world.stack.table.faults(), world.stack.api_keys.faults()]
    {
        hang(faults);
        let answered = world.handle_within(&payload, TIME).await;
        faults.clear();

        assert_eq!(answered.error().kind, "ReExportIncomplete");
    }
}

#[tokio::test]
async fn an_invocation_without_time_asks_nobody_and_fails_every_record() {
    let (world, event) = changes().await;
    world.forget();

    let answered = world.handle_too_late(&event).await;

    assert_eq!(answered.failures(), [0, 1, 2, 3].map(|place| number(&event, place)));
    assert!(world.stack.kv.log().is_empty());
    assert!(world.stack.table.log().is_empty());
    assert!(world.stack.api_keys.log().is_empty());
}

#[tokio::test]
async fn the_process_answers_before_lambda_ends_it() {
    let stack = process::stack().await;
    hang(stack.kv.faults());
    hang(stack.secrets.faults());
    let function = process::function(&stack, &[]).await;
    function.warm().await.unwrap();

    let event = testbed::stream::event([written(1, &index("a", "i"))]);
    let invocation = function.invoke_within(&event, TIME).await.unwrap();

    let answer = invocation.result.unwrap();
    assert!(invocation.duration < TIME * 7 / 8, "some time is left to return it");
    assert_eq!(answer, json!({"batchItemFailures": [{"itemIdentifier": "1"}]}));
    assert_eq!(function.starts(), 1, "and lives on");
}
