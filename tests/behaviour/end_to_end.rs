//! From the table through its stream and the real process to KV.

use std::time::Duration;

use serde_json::Value;
use testbed::faults::{Fault, Rule};
use testbed::lambda::Function;
use testbed::poller::{Poller, PollerOptions};
use testbed::stack::{QUERY_CONFIGS, SETTINGS, Stack};
use testbed::table::StreamView;

use crate::helpers::*;
use crate::process;

/// Far more than anything here takes, so that a failing test does not hang.
const PATIENCE: Duration = Duration::from_secs(120);

async fn caught_up(poller: &Poller) {
    tokio::time::timeout(PATIENCE, poller.caught_up()).await.expect("the stream should be done");
}

fn poll(stack: &Stack, function: &Function) -> Poller {
    let retry_delay = Duration::from_millis(1);
    stack.poll(function, PollerOptions { retry_delay, ..PollerOptions::default() })
}

/// The new images of a sample event.
fn images(file: &str) -> Vec<Value> {
    let event = sample_event(file);
    let records = event["Records"].as_array().unwrap();
    records.iter().map(|record| record["dynamodb"]["NewImage"].clone()).collect()
}

#[tokio::test]
async fn items_of_the_table_reach_kv_byte_for_byte() {
    let (stack, function) = process::start().await;
    let poller = poll(&stack, &function);
    let files = [
        "stream-insert.json",
        "stream-malformed-record.json",
        "stream-alias-off.json",
        "stream-legacy-alias.json",
        "stream-query-config.json",
    ];
    for file in files {
        images(file).iter().for_each(|image| stack.table.put_item(image));
        caught_up(&poller).await;
    }

    let expected = [
        ("acct1-main", include_str!("expected/stream-alias-off.json")),
        ("acme-outdoor.myshopify.com", include_str!("expected/stream-alias-off.json")),
        ("acct4-products", include_str!("expected/stream-legacy-alias.json")),
        ("bright-toys.myshopify.com", include_str!("expected/stream-legacy-alias.json")),
    ];
    for (key, value) in expected {
        let stored = stack.kv.get(SETTINGS, key).unwrap();
        assert_eq!(stored.value, value.trim_end(), "{key}");
        assert_eq!(stored.metadata.unwrap()["source"], "stream");
    }
    let others = ["acct2-products", "luma-home.myshopify.com"];
    assert_eq!(stack.kv.keys(SETTINGS).len(), expected.len() + others.len());
    let queries = [
        ("red running shoes", include_str!("expected/stream-query-config-1.json")),
        ("größe 42 #sale", include_str!("expected/stream-query-config-2.json")),
    ];
    for (query, value) in queries {
        let key = query_config_key("acct1", "main", query);
        assert_eq!(stack.kv.get(QUERY_CONFIGS, &key).unwrap().value, value.trim_end());
    }
    assert_eq!(stack.kv.keys(QUERY_CONFIGS).len(), 2);

    stack.table.delete("acct1", "INDEX#main");
    stack.table.delete("acct1", "INDEX#main#QUERY#red running shoes");
    caught_up(&poller).await;

    assert_eq!(stack.kv.get(SETTINGS, "acct1-main"), None);
    assert_eq!(stack.kv.get(SETTINGS, "acme-outdoor.myshopify.com"), None);
    assert_eq!(stack.kv.keys(QUERY_CONFIGS).len(), 1);
    assert!(poller.given_up().is_empty());
    assert_eq!(function.starts(), 1);
}

/// Kills the process when KV has carried out a request, before the process gets the reply.
fn kill_after(stack: &Stack, method: &'static str, path: &str, passing: usize, mark: &str) {
    let mark = mark.to_owned();
    let kill = Fault::after(move || process::kill("KILL_MARK", &mark).unwrap());
    stack.kv.faults().add(Rule::on(method, path, kill).after(passing));
}

#[tokio::test]
async fn a_process_that_is_killed_between_two_writes_leaves_nothing_undone() {
    let stack = process::stack().await;
    let more = [("KILL_MARK", "writes"), ("KV_BULK_MAX_PAIRS", "2")];
    let function = process::function(&stack, &more).await;
    kill_after(&stack, "PUT", "/bulk", 2, "writes");

    for n in 0..4 {
        stack.table.put(&shop("a", &format!("i{n}"), &format!("s{n}.example")));
        stack.table.put(&query_config("a", "i0", &format!("q{n}"), n));
    }
    let options = PollerOptions {
        starting_position: testbed::stream::StartingPosition::TrimHorizon,
        retry_delay: Duration::from_millis(1),
        ..PollerOptions::default()
    };
    let poller = stack.poll(&function, options);
    caught_up(&poller).await;

    assert_eq!(function.starts(), 2, "one was killed");
    assert_eq!(stack.kv.keys(SETTINGS).len(), 8);
    assert_eq!(stack.kv.keys(QUERY_CONFIGS).len(), 4);
    assert!(poller.given_up().is_empty());
}

#[tokio::test]
async fn a_process_that_is_killed_within_a_removal_or_a_move_leaves_nothing_behind() {
    let (new, both) = (StreamView::NewImage, StreamView::NewAndOldImages);
    let (delete, write) = (("POST", "/bulk/delete"), ("PUT", "/bulk"));
    for (mark, view, request, passing, left) in [
        ("first-delete", new, delete, 0, &[][..]),
        ("second-delete", new, delete, 1, &[]),
        ("move", both, write, 0, &["a-i", "new.example"]),
    ] {
        let _row = row(mark);
        let stack = process::stack_with(view).await;
        let function = process::function(&stack, &[("KILL_MARK", mark)]).await;
        let poller = poll(&stack, &function);
        stack.table.put(&shop("a", "i", "old.example"));
        caught_up(&poller).await;
        assert_eq!(stack.kv.keys(SETTINGS), ["a-i", "old.example"]);
        kill_after(&stack, request.0, request.1, passing, mark);

        match mark {
            "move" => stack.table.put(&shop("a", "i", "new.example")),
            _ => stack.table.delete("a", "INDEX#i"),
        }
        caught_up(&poller).await;

        assert_eq!(function.starts(), 2, "one was killed");
        assert_eq!(stack.kv.keys(SETTINGS), left);
    }
}
