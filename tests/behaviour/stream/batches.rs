//! Which requests a batch becomes, in which order, and what the answer names.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::Fault;
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use crate::helpers::*;

#[tokio::test]
async fn records_of_any_shape_take_no_other_down() {
    let world = World::start().await;
    // This one succeeds, so that its sequence number is not needed.
    let mut unnumbered = written(1, &index("a", "good"));
    unnumbered["dynamodb"].as_object_mut().unwrap().remove("SequenceNumber");
    let records = [
        json!(null),
        json!(7),
        json!({}),
        json!({"eventName": "INSERT", "dynamodb": {"Keys": {"pk": {"S": "a"}}}}),
        json!({"eventName": "INSERT", "dynamodb": null}),
        json!("DEEP"),
        json!({"dynamodb": {"Keys": "DEEP"}}),
        written(2, &index_with("a", "deep", json!({"search_config": "DEEP"}))),
        unnumbered,
    ];
    let deep = format!("{}{}", r#"{"L":["#.repeat(100_000), "]}".repeat(100_000));
    let event = testbed::stream::event(records).to_string();
    let event = event.replace(r#"{"S":"DEEP"}"#, &deep).replace(r#""DEEP""#, &deep);

    let answered = world.handle_text(&event).await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.setting_keys(), ["a-good"]);
    assert_eq!(answered.counted("RecordsRejected"), 8);
}

#[tokio::test]
async fn failed_records_are_named_in_batch_order_and_the_others_are_exported() {
    let world = World::start().await;
    world.break_puts(100, Fault::unsuccessful(|key| key.contains("fail"), 200));
    let names = ["fail-c", "ok-b", "fail-a", "ok-a", "fail-b"];
    let records = names.iter().zip(1..).flat_map(|(name, number)| {
        let config = query_config("fail", name, "q", 1);
        [written(number * 10, &index("z", name)), written(number * 10 + 1, &config)]
    });

    let answered = world.batch(records).await;

    assert_eq!(answered.failures(), ["10", "11", "21", "30", "31", "41", "50", "51"]);
    assert_eq!(world.setting_keys(), ["z-ok-a", "z-ok-b"]);
    assert_eq!(answered.counted("RecordsFailed"), 8);
    assert_eq!(world.logs.of("record failed").len(), 8);
}

#[tokio::test]
async fn weights_that_do_not_sum_to_one_are_exported_with_a_warning() {
    let world = World::start().await;
    let targets = json!([{"index_id": "a-v2", "weight": 0.5}]);
    let aliases = json!({"index_aliases": {"doc_reads": {"enabled": true, "targets": targets}}});

    world.batch_ok([written(1, &index_with("a", "i", aliases))]).await;

    let exported = world.setting("a-i").unwrap();
    assert_eq!(exported["index_aliases"]["doc_reads"]["targets"][0]["weight"], 0.5);
    let [line] = &world.logs.warnings()[..] else { panic!("{}", world.logs.text()) };
    assert_eq!((&line["system_account_id"], &line["index_name"]), (&json!("a"), &json!("i")));
    assert!(line["warning"].to_string().contains("sum to 0.5"), "{line}");
}

#[tokio::test]
async fn a_failed_record_without_a_sequence_number_fails_the_invocation() {
    let world = World::start().await;
    world.break_puts(100, Fault::status(503));
    for number in [json!(null), json!("")] {
        let mut unnamed = written(2, &index("a", "i"));
        unnamed["dynamodb"]["SequenceNumber"] = number.clone();

        let answered = world.batch([written(1, &index("b", "i")), unnamed]).await;

        let LambdaError { kind, message } = answered.error();
        assert_eq!(kind, "MissingSequenceNumber", "{number}");
        assert!(message.starts_with("1 failed records"), "{message}");
    }
}

#[tokio::test]
async fn writes_come_before_deletes() {
    let world = World::start().await;
    let old = [shop("a", "old", "old.example"), query_config("a", "old", "q", 1)];
    world.settled_with(old.clone()).await;
    old.iter().for_each(|item| world.remove(item));
    world.stack.table.put(&shop("a", "new", "new.example"));
    world.stack.table.put(&query_config("a", "new", "q", 1));

    world.deliver().await;

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
    world.break_puts(2, Fault::Delay(Duration::from_secs(1)));

    world.batch([written(1, &index("a", "i")), written(2, &query_config("a", "i", "q", 1))]).await;

    let [one, other] = [SETTINGS, QUERY_CONFIGS].map(|namespace| world.puts(namespace).remove(0));
    assert!(one.received_at < other.finished_at.unwrap());
    assert!(other.received_at < one.finished_at.unwrap());
}

#[tokio::test]
async fn chunks_of_a_namespace_go_one_after_another_and_keep_to_the_limit() {
    let world = World::with_env(&[("KV_BULK_MAX_PAIRS", "4")]).await;

    let records = (1..=10).map(|number| written(number, &index("a", &format!("i{number:02}"))));
    world.batch_ok(records).await;

    assert_eq!(world.pairs(SETTINGS), [4, 4, 2]);
    for pair in world.puts(SETTINGS).windows(2) {
        assert!(pair[0].finished_at.unwrap() <= pair[1].received_at);
    }
    assert_eq!(world.setting_keys().len(), 10);
}

#[tokio::test]
async fn an_item_beyond_the_limits_of_kv_is_rejected_before_anything_is_sent() {
    let world = World::start().await;
    let long = "x".repeat(600);
    let endpoint = json!({"index_endpoint": "https://h.example"});
    let items = [
        (shop("a", "i1", &long), "shop_id"),
        (shop("a", "i2", ".."), "shop_id"),
        (index("a", &long), "index_name"),
        (query_config("a", &long, "q", 1), "index_name"),
        // 202 bytes fit a key, but not the metadata, where each takes six.
        (index_with("a", &"\u{1}".repeat(200), endpoint), "index_name"),
    ];

    let answered = world.batch_ok(all_written(items.iter().map(|(item, _)| item))).await;

    assert_eq!(answered.counted("RecordsRejected"), 5);
    let rejected = world.logs.of("record rejected");
    let paths: Vec<&Value> = rejected.iter().map(|line| &line["path"]).collect();
    assert_eq!(paths, items.each_ref().map(|(_, path)| *path));
    assert!(world.stack.kv.log().is_empty());
}
