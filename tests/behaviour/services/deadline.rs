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

/// A world in which an index and its query config were removed, and others were written; and the records
/// that say so.
async fn changes() -> (World, Vec<Value>) {
    let world = World::start().await;
    let gone = [shop("a", "gone", "s.example"), query_config("a", "gone", "q", 1)];
    world.settled_with(gone.clone()).await;
    gone.iter().for_each(|item| world.remove(item));
    world.stack.table.put(&index("a", "new"));
    world.stack.table.put(&query_config("a", "new", "q", 1));
    let records = world.new_records();
    (world, records)
}

#[tokio::test]
async fn whatever_hangs_what_needs_it_fails_and_the_rest_is_done() {
    let [removal, config_removal, new, config] = [0, 1, 2, 3];
    let all = [removal, config_removal, new, config];
    for (hanging, changed, failing) in [
        ("KV", &all[..], &all[..]),
        ("secrets", &all, &all),
        // The image stands in after 5 s.
        ("table", &all, &[removal, config_removal]),
        // While an API key is waited for, there may be no time left for the removal.
        ("API keys", &[config_removal, new, config], &[new]),
    ] {
        let _row = row(hanging);
        let (world, records) = changes().await;
        match hanging {
            "KV" => hang(world.stack.kv.faults()),
            "table" => hang(world.stack.table.faults()),
            "API keys" => hang(world.stack.api_keys.faults()),
            _ => {
                // The token is refused, so that it has to be read again.
                world.stack.kv.set_token("rotated");
                hang(world.stack.secrets.faults());
            }
        }

        let time = if hanging == "table" { 4 * TIME } else { TIME };
        let event = testbed::stream::event(changed.iter().map(|place| records[*place].clone()));
        let answered = world.handle_within(&event, time).await;

        let failing: Vec<&str> = failing.iter().map(|place| number_of(&records[*place])).collect();
        assert_eq!(answered.failures(), failing);
    }
}

#[tokio::test]
async fn the_process_answers_before_lambda_ends_it_and_lives_on() {
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
    assert_eq!(function.starts(), 1);
}
