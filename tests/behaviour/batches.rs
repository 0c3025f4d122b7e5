//! Stream batches: which record decides, what is sent in which order, what the answer holds.

use std::time::Duration;

use serde_json::json;
use testbed::faults::Fault;
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use crate::helpers::*;

#[tokio::test]
async fn a_malformed_record_takes_no_other_down_and_is_logged_with_its_path() {
    let world = World::start().await;

    let answered = world.handle(&sample_event("stream-malformed-record.json")).await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.setting_keys(), ["acct2-products", "luma-home.myshopify.com"]);
    let rejected = world.logs.of("record rejected");
    assert_eq!(rejected.len(), 1);
    assert_eq!(rejected[0]["level"], "ERROR");
    assert_eq!(rejected[0]["system_account_id"], "acct3");
    assert_eq!(rejected[0]["index_name"], "catalog");
    assert_eq!(rejected[0]["path"], "search_config");
    assert_eq!(answered.stats.rejected, 1);
}

#[tokio::test]
async fn records_of_any_shape_take_no_other_down() {
    let world = World::start().await;
    let mut records = vec![
        json!(null),
        json!(7),
        json!("text"),
        json!({}),
        json!({"eventName": "INSERT", "dynamodb": {"Keys": {"pk": {"S": "a"}}}}),
        json!({"eventName": "INSERT", "dynamodb": null}),
    ];
    records.push(written(1, &index("a", "good")));

    let answered = world.batch(records).await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.setting_keys(), ["a-good"]);
    assert_eq!(answered.stats.rejected, 6);
}

#[tokio::test]
async fn a_rejected_record_leaves_what_kv_had() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;

    let broken = index_with("a", "i", json!({"index_endpoint": 7, "shop_id": "s.example"}));
    let answered = world.batch([written(9, &broken)]).await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.url_under("a-i").unwrap(), "https://i.example.com");
    assert_eq!(world.url_under("s.example").unwrap(), "https://i.example.com");
}

#[tokio::test]
async fn the_last_good_record_of_an_item_decides() {
    let world = World::start().await;
    let version = |text: &str| index_with("a", "i", json!({"pixel_id": text}));
    let broken = index_with("a", "i", json!({"pixel_id": 3}));

    let answered = world
        .batch([written(1, &version("first")), written(2, &version("second")), written(3, &broken)])
        .await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.setting("a-i").unwrap()["pixel_id"], "second");
    let counts = answered.stats.clone();
    assert_eq!((counts.superseded, counts.exported, counts.rejected), (1, 1, 1));
}

#[tokio::test]
async fn the_later_of_two_items_that_claim_one_shop_id_has_it_with_a_warning() {
    let world = World::start().await;

    let answered = world
        .batch([
            written(1, &shop("b", "one", "s.example")),
            written(2, &shop("a", "two", "s.example")),
        ])
        .await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.url_under("s.example").unwrap(), "https://two.example.com");
    assert_eq!(world.url_under("b-one").unwrap(), "https://one.example.com");
    let warnings = world.logs.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert_eq!(warnings[0]["key"], "s.example");
    assert_eq!(warnings[0]["system_account_id"], "a");
    assert_eq!(warnings[0]["loser"], "b/one");
}

#[tokio::test]
async fn a_key_is_never_twice_in_a_batch_and_each_namespace_gets_one_write() {
    let world = World::start().await;
    let mut records = Vec::new();
    for round in 0..5 {
        for item in 0..4 {
            let name = format!("i{item}");
            let number = round * 100 + item * 2;
            records.push(written(number, &shop("a", &name, &format!("s{}.example", item / 2))));
            records.push(written(number + 1, &query_config("a", &name, "q", round)));
        }
    }

    let answered = world.batch(records).await;

    assert_eq!(answered.failures(), NOTHING);
    for (namespace, count) in [(SETTINGS, 6), (QUERY_CONFIGS, 4)] {
        let puts = world.puts(namespace);
        assert_eq!(puts.len(), 1, "{namespace}");
        let mut keys = puts[0].keys.clone();
        keys.sort();
        keys.dedup();
        assert_eq!((keys.len(), puts[0].pairs), (count, count), "{namespace}");
    }
}

#[tokio::test]
async fn failed_records_are_named_in_batch_order_and_the_others_are_exported() {
    let world = World::start().await;
    let fails = |key: &str| key.contains("fail");
    world.break_puts(100, Fault::unsuccessful(fails, 200));
    let names = ["fail-c", "ok-b", "fail-a", "ok-a", "fail-b"];
    let records = names.iter().zip(1..).flat_map(|(name, number)| {
        let number = number * 10;
        [
            written(number, &index("z", name)),
            written(number + 1, &query_config("fail", name, "q", 1)),
        ]
    });

    let answered = world.batch(records).await;

    assert_eq!(
        answered.failures(),
        ["10", "11", "21", "30", "31", "41", "50", "51"],
        "everything that failed, in the order of the batch"
    );
    assert_eq!(world.setting_keys(), ["z-ok-a", "z-ok-b"]);
    assert_eq!(answered.stats.failed, 8);
    assert_eq!(world.logs.of("record failed").len(), 8);
}

#[tokio::test]
async fn a_failed_record_without_a_sequence_number_fails_the_invocation() {
    let world = World::start().await;
    world.break_puts(100, Fault::status(503));
    for number in [json!(null), json!(""), json!(7)] {
        let mut unnamed = written(2, &index("a", "i"));
        unnamed["dynamodb"]["SequenceNumber"] = number.clone();

        let answered = world.batch([written(1, &index("b", "i")), unnamed]).await;

        if number == json!(7) {
            // Not a record: it is rejected, so there is nothing to name.
            assert_eq!(answered.failures(), ["1"]);
        } else {
            assert_eq!(answered.error().kind, "MissingSequenceNumber", "{number}");
        }
    }
}

#[tokio::test]
async fn a_record_without_a_sequence_number_that_succeeds_is_fine() {
    let world = World::start().await;
    let mut unnamed = written(2, &index("a", "i"));
    unnamed["dynamodb"].as_object_mut().unwrap().remove("SequenceNumber");

    assert_eq!(world.batch([unnamed]).await.failures(), NOTHING);
    assert_eq!(world.setting_keys(), ["a-i"]);
}

#[tokio::test]
async fn writes_come_before_deletes() {
    let world = World::start().await;
    world.settled_with([shop("a", "old", "old.example"), query_config("a", "old", "q", 1)]).await;

    world.stack.table.delete("a", "INDEX#old");
    world.stack.table.delete("a", "INDEX#old#QUERY#q");
    world.stack.table.put(&shop("a", "new", "new.example"));
    world.stack.table.put(&query_config("a", "new", "q", 1));
    let answered = world.deliver().await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.setting_keys(), ["a-new", "new.example"]);
    for namespace in [SETTINGS, QUERY_CONFIGS] {
        let log = world.stack.kv.log();
        let of = |verb: KvVerb| {
            log.iter().filter(move |call| call.verb == verb && call.namespace == namespace)
        };
        let last_put = of(KvVerb::PutBulk).filter_map(|put| put.finished_at).max().unwrap();
        let first_delete = of(KvVerb::DeleteBulk).map(|delete| delete.received_at).min().unwrap();
        assert!(last_put <= first_delete, "{namespace}");
    }
}

#[tokio::test]
async fn the_two_namespaces_are_written_at_the_same_time() {
    let world = World::start().await;
    world.break_puts(1, Fault::Delay(Duration::from_secs(1)));

    world.batch([written(1, &index("a", "i")), written(2, &query_config("a", "i", "q", 1))]).await;

    let puts = world.stack.kv.log();
    assert_eq!(puts.len(), 2);
    let last_arrival = puts.iter().map(|put| put.received_at).max().unwrap();
    let first_came = puts.iter().min_by_key(|put| put.received_at).unwrap();
    let first_answer = first_came.finished_at.unwrap();
    assert!(last_arrival < first_answer, "the second is sent before the first is answered");
}

#[tokio::test]
async fn chunks_of_a_namespace_go_one_after_another_and_stay_within_the_limit() {
    let world = World::with(Default::default(), PATIENT, &[("KV_BULK_MAX_PAIRS", "4")]).await;

    let records = (1..=10).map(|number| written(number, &index("a", &format!("i{number:02}"))));
    world.batch(records).await;

    let puts = world.puts(SETTINGS);
    assert_eq!(puts.iter().map(|put| put.pairs).collect::<Vec<_>>(), [4, 4, 2]);
    for pair in puts.windows(2) {
        assert!(pair[0].finished_at.unwrap() <= pair[1].received_at);
    }
    assert_eq!(world.setting_keys().len(), 10);
}

#[tokio::test]
async fn weights_that_do_not_sum_to_one_are_exported_with_a_warning() {
    let world = World::start().await;
    let target = json!({"index_id": "a-v2", "weight": 0.5});
    let item = index_with(
        "a",
        "i",
        json!({"index_aliases": {"doc_reads": {"enabled": true, "targets": [target]}}}),
    );

    assert_eq!(world.batch([written(1, &item)]).await.failures(), NOTHING);

    let aliases = &world.setting("a-i").unwrap()["index_aliases"];
    assert_eq!(aliases["doc_reads"]["targets"][0]["weight"], 0.5);
    let warnings = world.logs.warnings();
    assert_eq!(warnings.len(), 1);
    assert!(warnings[0]["warning"].as_str().unwrap().contains("0.5"), "{warnings:?}");
}
