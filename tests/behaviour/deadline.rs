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

#[tokio::test]
async fn whatever_hangs_what_needs_it_fails_and_the_rest_is_done() {
    let [kv, table, api_keys, secrets] = [0, 1, 2, 3];
    // Which of the records fail: the two removals, the new index, and its query config. No time may be
    // left for the first removal while the API key of the new index is waited for.
    let all = [Some(true); 4];
    for (hanging, fails) in [
        (vec![kv], all),
        (vec![secrets], all),
        (vec![table], [Some(true), Some(true), Some(false), Some(false)]),
        (vec![api_keys], [None, Some(false), Some(true), Some(false)]),
        (vec![kv, table, api_keys, secrets], all),
    ] {
        let _row = row(format!("{hanging:?} of KV, the table, API keys and Secrets Manager"));
        let (world, event) = changes().await;
        let stack = &world.stack;
        let all = [
            stack.kv.faults(),
            stack.table.faults(),
            stack.api_keys.faults(),
            stack.secrets.faults(),
        ];
        if hanging.contains(&secrets) {
            // The token that is held is refused, so that it has to be read again.
            world.stack.kv.set_token("rotated");
        }
        hanging.iter().for_each(|service| hang(all[*service]));

        let answered = world.handle_within(&event, TIME).await;

        let failures = answered.failures();
        for (record, fails) in event["Records"].as_array().unwrap().iter().zip(fails) {
            let failed = failures.iter().any(|number| number == number_of(record));
            assert!(fails.is_none_or(|fails| fails == failed), "{record}");
        }
        let query_config = world.query_config("a", "new", "q");
        assert_eq!(query_config.is_some(), fails[3] == Some(false));
    }
}

#[tokio::test]
async fn a_re_export_ends_with_an_error_in_time() {
    let world = World::start().await;
    world.stack.table.put(&index("a", "i"));
    world.stack.table.put(&query_config("a", "i", "q", 1));
    for faults in
        [world.stack.kv.faults(), world.stack.table.faults(), world.stack.api_keys.faults()]
    {
        hang(faults);
        let answered = world.handle_within(&re_export_all("a", "i"), TIME).await;
        faults.clear();

        assert_eq!(answered.error().kind, "ReExportIncomplete");
    }
}

#[tokio::test]
async fn an_invocation_without_time_asks_nobody_and_fails_every_record() {
    let (world, event) = changes().await;
    world.forget();

    let answered = world.handle_too_late(&event).await;

    let records = event["Records"].as_array().unwrap().iter();
    assert_eq!(answered.failures(), records.map(number_of).collect::<Vec<_>>());
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
