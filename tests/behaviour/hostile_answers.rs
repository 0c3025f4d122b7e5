//! Answers that no service should give: too long, with odd headers, or contradicting themselves.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Reply;
use testbed::kv::KvVerb;
use testbed::stack::{ACCOUNT, DEFAULT_CELL, SETTINGS};

use crate::helpers::*;

/// The longest answer that is read from the API keys service, in bytes.
const API_KEYS_BOUND: usize = 64 * 1_024;
/// The longest answer that is read from any other service, in bytes.
const BOUND: usize = 64 * 1_024 * 1_024;

/// So many indexes of one account, without shop ids.
fn indexes(count: u32) -> Vec<Value> {
    (1..=count).map(|number| index("a", &format!("i{number:02}"))).collect()
}

fn batch(count: u32) -> Vec<Value> {
    all_written(&indexes(count))
}

fn query_configs(count: u32) -> Vec<Value> {
    (1..=count).map(|number| query_config("a", "i", &format!("q{number:02}"), 1)).collect()
}

/// A world in which these items were removed, and the records that say so.
async fn removed(items: Vec<Value>) -> (World, Vec<Value>) {
    let world = World::start().await;
    world.settled_with(items.clone()).await;
    items.iter().for_each(|item| world.remove(item));
    let records = world.new_records();
    (world, records)
}

/// KV's answer to a bulk request that it carried out whole.
fn all_done(keys: usize) -> Reply {
    let result = json!({"successful_key_count": keys, "unsuccessful_keys": []});
    Reply::json(200, &json!({"success": true, "errors": [], "messages": [], "result": result}))
}

#[tokio::test]
async fn a_retry_after_is_waited_for_if_it_fits_and_survived_if_it_is_no_time() {
    // How many requests there are, and after how many seconds the last one comes.
    for (value, tries, waited) in [
        ("1", 2, 1),
        ("3600", 1, 0),
        ("18446744073709551615", 1, 0),
        ("9223372036854775807", 1, 0),
        ("-1", 2, 0),
        ("-18446744073709551615", 2, 0),
        ("0.5", 2, 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 2, 0),
        ("", 2, 0),
        ("soon", 2, 0),
    ] {
        let asks_to_wait = || {
            Fault::Answer(Reply::json(429, &json!({"success": false})).with("retry-after", value))
        };
        let failures: &[&str] = if tries == 1 { &["1"] } else { &[] };
        for of_kv in [true, false] {
            let _row = row(format!("{value:?} of {}", if of_kv { "KV" } else { "API keys" }));
            let world = World::start().await;
            match of_kv {
                true => world.break_puts(1, asks_to_wait()),
                false => world.stack.api_keys.faults().next(asks_to_wait()),
            }
            assert_eq!(world.batch(batch(1)).await.failures(), failures);
            let times: Vec<_> = match of_kv {
                true => world.puts(SETTINGS).iter().map(|put| put.received_at).collect(),
                false => world.stack.api_keys.log().iter().map(|key| key.received_at).collect(),
            };
            assert_eq!(times.len(), tries);
            let between = times[tries - 1] - times[0];
            assert!(between >= Duration::from_secs(waited), "{between:?}");
        }
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let world = World::start().await;
    let elsewhere = World::start().await;
    let seen = [elsewhere.stack.kv.faults(), elsewhere.stack.api_keys.faults()].map(spy);
    let kv = elsewhere.stack.kv.url_template();
    let kv = kv.replace("{account_id}", ACCOUNT).replace("{namespace_id}", SETTINGS);
    let api_keys = elsewhere.stack.api_keys.url_template().replace("{cell}", "c");
    for status in [301, 302, 307, 308] {
        let to = |url: &str| Fault::Answer(Reply::new(status, "", "").with("location", url));
        world.break_puts(1, to(&format!("{kv}/bulk")));
        assert_eq!(world.batch(batch(1)).await.failures(), ["1"], "KV: {status}");
        world.stack.api_keys.faults().next(to(&api_keys));
        assert_eq!(world.batch(batch(1)).await.failures(), ["1"], "API keys: {status}");
    }
    assert!(seen.iter().all(|spy| spy.requests().is_empty()));
}

#[tokio::test]
async fn an_answer_of_the_api_keys_service_over_its_bound_is_not_that_services() {
    for (length, api_key, tries) in
        [(API_KEYS_BOUND, "padded", 1), (API_KEYS_BOUND + 1, "key-a", 2), (BOUND, "key-a", 2)]
    {
        let world = World::start().await;
        let padded = Fault::Padded(Reply::json(200, &json!({"api_key": "padded"})), length);
        world.stack.api_keys.faults().next(padded);

        world.batch_ok([written(1, &index("a", "i"))]).await;

        assert_eq!(world.setting("a-i").unwrap()["marqo_api_key"], api_key, "{length}");
        assert_eq!(world.stack.api_keys.log().len(), tries, "{length}");
    }
}

#[tokio::test]
async fn an_answer_to_a_write_over_its_bound_is_not_kvs() {
    for (length, tries) in [(BOUND, 1), (BOUND + 1, 2)] {
        let world = World::start().await;
        world.break_puts(1, Fault::Padded(all_done(1), length));

        world.batch_ok(batch(1)).await;

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
    world.break_api_keys(Fault::status(503));
    world.break_kv(reads(nothing(json!({"values": {"a-i": null}}))));
    let changed = index_with("a", "i", json!({"pixel_id": "new"}));
    world.batch_ok([written(1, &changed)]).await;
    assert_eq!(world.setting("a-i").unwrap()["pixel_id"], "new", "with the API key in KV");

    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    world.break_kv(listings(nothing(json!([]))));
    let report = world.handle(&audit()).await.ok().clone();
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
    world.load([query_config("a", "i", "q", 2)]);
    let nothing = Reply::json(200, &json!({"Responses": {}, "UnprocessedKeys": {}}))
        .with("content-type", "application/x-amz-json-1.0");
    world.break_table(item_reads(Fault::Padded(nothing, BOUND + 1)));

    world.batch_ok(removal).await;

    assert_eq!(world.query_config_keys().len(), 1);
    assert!(world.deletes().is_empty());
}

#[tokio::test]
async fn an_api_key_is_one_to_1024_visible_ascii_characters() {
    let longest = "k".repeat(1_024);
    for usable in ["k", "!~", r#"\"{}'"#, &longest] {
        let world = World::start().await;
        world.stack.api_keys.set("a", usable);

        world.batch_ok([written(1, &index("a", "i"))]).await;
        assert_eq!(world.setting("a-i").unwrap()["marqo_api_key"], usable);
    }
    // The unit tests have all that is unusable.
    for unusable in ["schlüssel", &"k".repeat(1_025)] {
        let _row = row(unusable);
        let world = World::start().await;
        world.settled_with([index("a", "i")]).await;
        world.stack.api_keys.set("a", unusable);
        world.stack.api_keys.set("b", unusable);

        let changed = index_with("a", "i", json!({"pixel_id": "new"}));
        let answered = world.batch([written(1, &changed), written(2, &index("b", "i"))]).await;

        assert_eq!(answered.failures(), ["2"]);
        assert_eq!(world.stack.api_keys.count(DEFAULT_CELL, "b"), 4, "tried again");
        let value = world.setting("a-i").unwrap();
        assert_eq!([&value["pixel_id"], &value["marqo_api_key"]], ["new", "key-a"]);
        assert_eq!(world.setting_keys(), ["a-i"]);
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
    let counts = json!([0, 6, 8, -7, null, "7"]);
    std::array::from_fn(|place| counts.get(place).cloned())
}

#[tokio::test]
async fn what_a_4xx_does_not_list_is_done_only_where_its_count_bears_that_out() {
    for count in odd_counts() {
        let _row = row(format!("{count:?}"));
        let world = World::start().await;
        world.break_puts(1, lists_one("a-i03", count.clone()));
        let answered = world.batch_ok(batch(8)).await;
        assert_eq!(world.setting_keys().len(), 8);
        assert_eq!(answered.stats.settings_written, 8);

        let (world, records) = removed(query_configs(8)).await;
        world.break_kv(deletes(lists_one(&query_config_key("a", "i", "q03"), count.clone())));
        world.batch_ok(records).await;
        assert_eq!(world.query_config_keys(), NOTHING);
    }
    // This count supports the claim: only the listed key is sent again.
    let world = World::start().await;
    world.break_puts(1, lists_one("a-i03", Some(json!(7))));
    world.batch_ok(batch(8)).await;
    assert_eq!(world.setting_keys(), ["a-i03"]);
}

/// The statuses of refusals that one pair among many can cause.
const REFUSALS: [u16; 5] = [400, 405, 409, 414, 422];

#[tokio::test]
async fn what_kv_refuses_to_write_delete_or_read_fails_alone() {
    for status in REFUSALS {
        let _row = row(status);
        let refuse = |method: &'static str, path: &str, key: &str| {
            Rule::naming(method, path, key, Fault::status(status)).forever()
        };
        let world = World::start().await;
        world.break_kv(refuse("PUT", "/bulk", "a-i07"));
        assert_eq!(world.batch(batch(40)).await.failures(), ["7"]);
        assert_eq!(world.setting_keys().len(), 39);
        let alone = world.puts(SETTINGS).into_iter().filter(|put| put.keys == ["a-i07"]).count();
        assert_eq!(alone, 1, "alone it is refused for good");

        let (world, records) = removed(query_configs(40)).await;
        let poisoned = query_config_key("a", "i", "q07");
        world.break_kv(refuse("POST", "/bulk/delete", &poisoned));
        assert_eq!(world.batch(records.clone()).await.failures(), [number_of(&records[6])]);
        assert_eq!(world.query_config_keys(), [poisoned]);

        let (world, records) = removed(indexes(40)).await;
        world.break_kv(refuse("POST", "/bulk/get", "a-i07"));
        assert_eq!(world.batch(records.clone()).await.failures(), [number_of(&records[6])]);
        assert_eq!(world.setting_keys(), ["a-i07"]);
    }
}

#[tokio::test]
async fn a_refusal_that_is_no_pairs_fault_is_not_halved() {
    for (status, requests) in [(401, 2), (403, 2), (404, 1), (408, 4), (429, 4)] {
        let _row = row(status);
        let sizes = |world: &World, verb: KvVerb| -> Vec<usize> {
            world.stack.kv.log_of(verb).iter().map(|request| request.pairs).collect()
        };
        let world = World::start().await;
        world.break_puts(100, Fault::status(status));
        assert_eq!(world.batch(batch(8)).await.failures().len(), 8);
        assert_eq!(sizes(&world, KvVerb::PutBulk), vec![8; requests]);

        let (world, records) = removed(query_configs(8)).await;
        world.break_kv(deletes(Fault::status(status)).forever());
        assert_eq!(world.batch(records).await.failures().len(), 8);
        assert_eq!(sizes(&world, KvVerb::DeleteBulk), vec![8; requests]);

        let (world, records) = removed(indexes(8)).await;
        world.break_kv(reads(Fault::status(status)).forever());
        assert_eq!(world.batch(records).await.failures().len(), 8);
        assert_eq!(sizes(&world, KvVerb::GetBulk), vec![8; requests]);
    }
}
