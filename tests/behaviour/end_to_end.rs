//! From the table through its stream and the real process to KV, byte for byte.

use std::time::Duration;

use serde_json::Value;
use testbed::faults::{Fault, Rule};
use testbed::poller::{Poller, PollerOptions};
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use crate::helpers::*;
use crate::process;

/// Far more than anything here takes, so that a failing test does not hang.
const PATIENCE: Duration = Duration::from_secs(120);

async fn caught_up(poller: &Poller) {
    tokio::time::timeout(PATIENCE, poller.caught_up()).await.expect("the stream should be done");
}

/// The new images of a sample event.
fn images(file: &str) -> Vec<Value> {
    let event = sample_event(file);
    let records = event["Records"].as_array().unwrap();
    records.iter().map(|record| record["dynamodb"]["NewImage"].clone()).collect()
}

#[tokio::test]
async fn items_of_the_table_reach_kv_byte_for_byte_and_leave_it_again() {
    let (stack, function) = process::start().await;
    let options = PollerOptions { window: Duration::ZERO, retry_delay: Duration::from_millis(1) };
    let poller = stack.poll(&function, options);
    // The first delivery fails.
    stack.kv.faults().add(Rule::any(Fault::status(503)).times(4));
    for file in [
        "stream-insert.json",
        "stream-malformed-record.json",
        "stream-alias-off.json",
        "stream-legacy-alias.json",
        "stream-query-config.json",
    ] {
        images(file).iter().for_each(|image| stack.table.put_item(image));
        caught_up(&poller).await;
    }

    // An alias that is switched off keeps its targets. `read_alias` replaces `doc_reads`.
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
    assert_eq!(function.starts(), 1);
}
