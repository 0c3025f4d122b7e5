//! Answers that no service should give: too long, with odd headers, or contradicting themselves.

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::{Reply, Request};
use testbed::kv::KvVerb;
use testbed::stack::{DEFAULT_CELL, QUERY_CONFIGS, SETTINGS};
use testbed::table::to_item;

use crate::helpers::*;

/// The longest answer that is read from the API keys service, in bytes.
const API_KEYS_BOUND: usize = 64 * 1_024;
/// The longest answer that is read from any other service, in bytes.
const BOUND: usize = 64 * 1_024 * 1_024;

/// So many indexes of one account, without shop ids.
fn batch(count: u32) -> Vec<Value> {
    (1..=count).map(|number| written(number, &index("a", &format!("i{number:02}")))).collect()
}

/// KV's answer to a bulk request that it carried out whole.
fn all_done(keys: usize) -> Reply {
    let result = json!({"successful_key_count": keys, "unsuccessful_keys": []});
    Reply::json(200, &json!({"success": true, "errors": [], "messages": [], "result": result}))
}

#[tokio::test]
async fn a_retry_after_of_any_size_sign_or_shape_is_survived() {
    for (value, beyond_the_deadline) in [
        ("18446744073709551615", true),
        ("9223372036854775807", true),
        ("100000000000", true),
        ("-1", false),
        ("-18446744073709551615", false),
        ("0.5", false),
        ("Wed, 21 Oct 2015 07:28:00 GMT", false),
        ("", false),
        ("soon", false),
    ] {
        let asks_to_wait = || {
            Fault::Answer(Reply::json(429, &json!({"success": false})).with("retry-after", value))
        };
        let failures: &[&str] = if beyond_the_deadline { &["1"] } else { &[] };
        let tries = if beyond_the_deadline { 1 } else { 2 };

        let world = World::start().await;
        world.break_puts(1, asks_to_wait());
        assert_eq!(world.batch(batch(1)).await.failures(), failures, "KV: {value:?}");
        assert_eq!(world.puts(SETTINGS).len(), tries, "KV: {value:?}");

        let world = World::start().await;
        world.stack.api_keys.faults().next(asks_to_wait());
        assert_eq!(world.batch(batch(1)).await.failures(), failures, "API keys: {value:?}");
        assert_eq!(world.stack.api_keys.log().len(), tries, "API keys: {value:?}");
    }
}

#[tokio::test]
async fn an_answer_of_the_api_keys_service_over_its_bound_is_not_that_services() {
    for (length, api_key, tries) in
        [(API_KEYS_BOUND, "padded", 1), (API_KEYS_BOUND + 1, "key-a", 2), (BOUND, "key-a", 2)]
    {
        let world = World::start().await;
        let padded = Fault::Padded(Reply::json(200, &json!({"api_key": "padded"})), length);
        world.stack.api_keys.faults().next(padded);

        let answered = world.batch([written(1, &index("a", "i"))]).await;

        assert_eq!(answered.failures(), NOTHING);
        assert_eq!(world.setting("a-i").unwrap()["marqo_api_key"], api_key, "{length}");
        assert_eq!(world.stack.api_keys.log().len(), tries, "{length}");
    }
}

#[tokio::test]
async fn an_answer_to_a_write_over_its_bound_is_not_kvs() {
    for (length, tries) in [(BOUND, 1), (BOUND + 1, 2)] {
        let world = World::start().await;
        world.break_puts(1, Fault::Padded(all_done(1), length));

        let answered = world.batch(batch(1)).await;

        assert_eq!(answered.failures(), NOTHING);
        assert_eq!(world.puts(SETTINGS).len(), tries, "{length}");
        // The padded answer claims a write that was not done.
        assert_eq!(world.setting_keys().len(), tries - 1, "{length}");
    }
}

#[tokio::test]
async fn an_answer_to_a_read_or_a_listing_over_its_bound_is_not_kvs() {
    let nothing = |result: Value| {
        let body = json!({"success": true, "errors": [], "messages": [], "result": result});
        Fault::Padded(Reply::json(200, &body), BOUND + 1)
    };
    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    world.stack.api_keys.break_cell(DEFAULT_CELL, Fault::status(503));
    let nothing_there = nothing(json!({"values": {"a-i": null}}));
    world.stack.kv.faults().add(Rule::on("POST", "/bulk/get", nothing_there));
    let changed = index_with("a", "i", json!({"pixel_id": "new"}));
    assert_eq!(world.batch([written(1, &changed)]).await.failures(), NOTHING);
    assert_eq!(world.setting("a-i").unwrap()["pixel_id"], "new", "with the API key in KV");

    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    world.stack.kv.faults().add(Rule::on("GET", "/keys", nothing(json!([]))));
    let report = world.handle(&json!({"reconcile": {}})).await.ok().clone();
    assert_eq!(report["settings"]["listed"], 1, "{report}");
    assert_eq!(report["settings"]["missing"], 0, "{report}");
}

#[tokio::test]
async fn an_answer_of_the_table_over_its_bound_is_not_the_tables() {
    let world = World::start().await;
    world.settled_with([query_config("a", "i", "q", 1)]).await;
    world.stack.table.delete("a", "INDEX#i#QUERY#q");
    let removal = world.new_records();
    // The item is back, and the answer says that it is not.
    world.stack.table.load([to_item(&query_config("a", "i", "q", 2))]);
    let reads = |request: &Request| matches!(request.operation(), Some("GetItem" | "BatchGetItem"));
    let nothing = Reply::json(200, &json!({"Responses": {}, "UnprocessedKeys": {}}))
        .with("content-type", "application/x-amz-json-1.0");
    world.stack.table.faults().add(Rule::when(reads, Fault::Padded(nothing, BOUND + 1)));

    let answered = world.batch(removal).await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.query_config_keys().len(), 1);
    assert!(world.stack.kv.log_of(KvVerb::DeleteBulk).is_empty());
}

#[tokio::test]
async fn an_api_key_is_one_to_1024_visible_ascii_characters() {
    let longest = "k".repeat(1_024);
    for usable in ["k", "!~", r#"\"{}'"#, &longest] {
        let world = World::start().await;
        world.stack.api_keys.set("a", usable);

        assert_eq!(world.batch([written(1, &index("a", "i"))]).await.failures(), NOTHING);
        assert_eq!(world.setting("a-i").unwrap()["marqo_api_key"], usable);
    }
    let too_long = "k".repeat(1_025);
    for unusable in [
        "",
        "   ",
        "schlüssel",
        "k🦀",
        "\u{200b}key",
        "\u{feff}key",
        "k\u{a0}",
        "k\t",
        "k\n",
        "k\u{0}",
        "k\u{7f}",
        &too_long,
    ] {
        let world = World::start().await;
        world.settled_with([index("a", "i")]).await;
        world.stack.api_keys.set("a", unusable);
        world.stack.api_keys.set("b", unusable);

        let changed = index_with("a", "i", json!({"pixel_id": "new"}));
        let answered = world.batch([written(1, &changed), written(2, &index("b", "i"))]).await;

        assert_eq!(answered.failures(), ["2"], "{unusable:?}");
        assert_eq!(world.stack.api_keys.count(DEFAULT_CELL, "b"), 4, "tried again: {unusable:?}");
        let value = world.setting("a-i").unwrap();
        assert_eq!(value["pixel_id"], "new", "{unusable:?}");
        assert_eq!(value["marqo_api_key"], "key-a", "{unusable:?}");
        assert_eq!(world.setting_keys(), ["a-i"], "{unusable:?}");
    }
}

/// A 400 that lists one key as unsuccessful, and claims this of the others.
fn lists_one(key: &str, count: Option<Value>) -> Fault {
    let mut result = json!({"unsuccessful_keys": [key]});
    if let Some(count) = count {
        result["successful_key_count"] = count;
    }
    let body = json!({"success": false, "errors": [], "messages": [], "result": result});
    Fault::Answer(Reply::json(400, &body))
}

/// Counts that contradict the claim that seven of eight keys are done.
fn odd_counts() -> [Option<Value>; 7] {
    let counts = [json!(0), json!(6), json!(8), json!(-7), json!(null), json!("7")];
    let [zero, six, eight, negative, null, text] = counts.map(Some);
    [zero, six, eight, negative, null, text, None]
}

#[tokio::test]
async fn what_a_4xx_does_not_list_is_written_only_where_its_count_bears_that_out() {
    for count in odd_counts() {
        let world = World::start().await;
        world.break_puts(1, lists_one("a-i03", count.clone()));

        let answered = world.batch(batch(8)).await;

        assert_eq!(answered.failures(), NOTHING, "{count:?}");
        assert_eq!(world.setting_keys().len(), 8, "{count:?}");
        assert_eq!(answered.stats.settings_written, 8, "{count:?}");
    }
    // This count supports the claim: only the listed key is sent again.
    let world = World::start().await;
    world.break_puts(1, lists_one("a-i03", Some(json!(7))));
    assert_eq!(world.batch(batch(8)).await.failures(), NOTHING);
    assert_eq!(world.setting_keys(), ["a-i03"]);
}

/// A world in which so many query configs were removed, and the records that say so.
async fn removed_query_configs(count: u32) -> (World, Vec<Value>) {
    let world = World::start().await;
    let query = |number| format!("q{number:02}");
    world.settled_with((1..=count).map(|n| query_config("a", "i", &query(n), n))).await;
    for number in 1..=count {
        world.stack.table.delete("a", &format!("INDEX#i#QUERY#{}", query(number)));
    }
    let records = world.new_records();
    (world, records)
}

#[tokio::test]
async fn what_a_4xx_does_not_list_is_deleted_only_where_its_count_bears_that_out() {
    for count in odd_counts() {
        let (world, records) = removed_query_configs(8).await;
        let listed = lists_one(&query_config_key("a", "i", "q03"), count.clone());
        world.stack.kv.faults().add(Rule::on("POST", "/bulk/delete", listed));

        let answered = world.batch(records).await;

        assert_eq!(answered.failures(), NOTHING, "{count:?}");
        assert_eq!(world.query_config_keys(), NOTHING, "{count:?}");
    }
}

/// The statuses of refusals that one pair among many can cause.
const REFUSALS: [u16; 5] = [400, 405, 409, 414, 422];

#[tokio::test]
async fn a_pair_that_kv_refuses_fails_alone() {
    for status in REFUSALS {
        let world = World::start().await;
        let refuse = Rule::naming("PUT", "/bulk", "a-i07", Fault::status(status)).forever();
        world.stack.kv.faults().add(refuse);

        let answered = world.batch(batch(40)).await;

        assert_eq!(answered.failures(), ["7"], "{status}");
        assert_eq!(world.setting_keys().len(), 39, "{status}");
        let alone = world.puts(SETTINGS).into_iter().filter(|put| put.keys == ["a-i07"]).count();
        assert_eq!(alone, 1, "alone it is refused for good: {status}");
    }
}

#[tokio::test]
async fn a_key_whose_delete_kv_refuses_fails_alone() {
    for status in REFUSALS {
        let (world, records) = removed_query_configs(40).await;
        let poisoned = query_config_key("a", "i", "q07");
        let refuse = Rule::naming("POST", "/bulk/delete", &poisoned, Fault::status(status));
        world.stack.kv.faults().add(refuse.forever());

        let answered = world.batch(records.clone()).await;

        let number = testbed::stream::sequence_number(&records[6]).unwrap();
        assert_eq!(answered.failures(), [number], "{status}");
        assert_eq!(world.query_config_keys(), [poisoned], "{status}");
    }
}

#[tokio::test]
async fn a_key_that_kv_refuses_to_read_fails_alone() {
    for status in REFUSALS {
        let world = World::start().await;
        world.settled_with((1..=40).map(|n| index("a", &format!("i{n:02}")))).await;
        for number in 1..=40 {
            world.stack.table.delete("a", &format!("INDEX#i{number:02}"));
        }
        let refuse = Rule::naming("POST", "/bulk/get", "a-i07", Fault::status(status)).forever();
        world.stack.kv.faults().add(refuse);
        let records = world.new_records();

        let answered = world.batch(records.clone()).await;

        let number = testbed::stream::sequence_number(&records[6]).unwrap();
        assert_eq!(answered.failures(), [number], "{status}");
        assert_eq!(world.setting_keys(), ["a-i07"], "{status}");
    }
}

#[tokio::test]
async fn a_refusal_that_is_no_pairs_fault_is_not_halved() {
    for (status, requests) in [(401, 2), (403, 2), (404, 1), (408, 4), (429, 4)] {
        let world = World::start().await;
        world.break_puts(100, Fault::status(status));
        let all: Vec<String> = (1..=8).map(|number| number.to_string()).collect();

        assert_eq!(world.batch(batch(8)).await.failures(), all, "{status}");
        let sizes: Vec<usize> = world.puts(SETTINGS).iter().map(|put| put.pairs).collect();
        assert_eq!(sizes, vec![8; requests], "{status}");

        let (world, records) = removed_query_configs(8).await;
        let path = format!("/{QUERY_CONFIGS}/bulk/delete");
        world.stack.kv.faults().add(Rule::on("POST", path, Fault::status(status)).forever());
        assert_eq!(world.batch(records).await.failures().len(), 8, "{status}");
        let deletes = world.stack.kv.log_of(KvVerb::DeleteBulk);
        let sizes: Vec<usize> = deletes.iter().map(|delete| delete.pairs).collect();
        assert_eq!(sizes, vec![8; requests], "{status}");

        let world = World::start().await;
        world.settled_with((1..=8).map(|n| index("a", &format!("i{n}")))).await;
        (1..=8).for_each(|n| world.stack.table.delete("a", &format!("INDEX#i{n}")));
        world.stack.kv.faults().add(Rule::on("POST", "/bulk/get", Fault::status(status)).forever());
        assert_eq!(world.deliver().await.failures().len(), 8, "{status}");
        let reads = world.stack.kv.log_of(KvVerb::GetBulk);
        let sizes: Vec<usize> = reads.iter().map(|read| read.pairs).collect();
        assert_eq!(sizes, vec![8; requests], "{status}");
    }
}
