//! Re-exports by hand: what they report, what they leave in KV, and what an error says of it.

use serde_json::json;
use testbed::faults::{Fault, Rule};
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use crate::helpers::*;

#[tokio::test]
async fn the_index_is_read_written_under_both_keys_and_read_again() {
    let world = World::start().await;
    world.load([shop("a", "i", "s.example"), query_config("a", "i", "q", 1)]);

    let report = world.report(&re_export("a", "i")).await;

    assert_eq!(
        report,
        json!({
            "system_account_id": "a", "index_name": "i", "outcome": "exported",
            "settings_keys": ["s.example", "a-i"],
            "query_configs": {"exported": 0, "rejected": 0},
        })
    );
    assert_eq!(world.setting_keys(), ["a-i", "s.example"]);
    assert_eq!(world.query_config_keys(), NOTHING);
    let reads = world.stack.table.log();
    assert_eq!(reads.len(), 2);
    assert!(reads.iter().all(|read| read.consistent && read.operation == "BatchGetItem"));
    let put = &world.puts(SETTINGS)[0];
    assert!(reads[0].finished_at.unwrap() <= put.received_at);
    assert!(put.finished_at.unwrap() <= reads[1].received_at);
}

#[tokio::test]
async fn query_configs_of_this_index_are_counted_and_the_rejected_ones_logged() {
    let world = World::start().await;
    world.load([index("a", "i"), index("a", "i2"), query_config("a", "i2", "another index'", 1)]);
    // DynamoDB returns 1 MB at a time.
    let large = || json!({"x": "x".repeat(300_000)});
    world.load((0..5).map(|n| with(query_config("a", "i", &format!("q#{n} ü"), n), large())));

    let report = world.report(&re_export_all("a", "i")).await;

    assert_eq!(world.table_requests("Query"), 2);

    assert_eq!(report["query_configs"], json!({"exported": 5, "rejected": 0}));
    assert_eq!(world.query_config_keys().len(), 5);
    assert!(world.query_config("a", "i", "q#0 ü").is_some());

    // The index id fits a key. With the prefix and the hash, that of the query config does not.
    let long = "x".repeat(450);
    world.load([index("c", &long), query_config("c", &long, "q", 1)]);
    let report = world.report(&re_export_all("c", &long)).await;
    assert_eq!(report["query_configs"], json!({"exported": 0, "rejected": 1}));
    assert_eq!(world.logs.at("ERROR").len(), 1, "{}", world.logs.text());
}

#[tokio::test]
async fn an_error_says_that_kv_may_hold_an_older_version_if_something_was_written() {
    let in_doubt = writes(Fault::ApplyThenStatus(503));
    let refused = || writes(Fault::status(403)).forever();
    let of_query_config = Rule::on("PUT", format!("/{QUERY_CONFIGS}/bulk"), Fault::status(403));
    for (name, faults, older) in [
        ("the first write", vec![refused()], false),
        ("a write that may have been carried out", vec![in_doubt, refused()], true),
        ("a query config", vec![of_query_config.forever()], true),
    ] {
        let _row = row(name);
        let world = World::start().await;
        world.load([shop("a", "i", "s.example"), query_config("a", "i", "q", 1)]);
        faults.into_iter().for_each(|fault| world.break_kv(fault));

        let answered = world.handle(&re_export_all("a", "i")).await;

        let LambdaError { kind, message } = answered.error();
        assert_eq!(kind, "CloudflareAuthRejected", "{message}");
        assert_eq!(message.contains("older version"), older, "{message}");
        assert_eq!(world.setting("a-i").is_some(), older);
    }
}
