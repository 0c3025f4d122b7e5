//! Stream batches: which record decides, what is sent in which order, what the answer holds.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::Fault;
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use crate::helpers::*;

#[tokio::test]
async fn records_of_any_shape_take_no_other_down() {
    let world = World::start().await;
    // The last one succeeds, so that nobody asks for its sequence number.
    let mut unnumbered = written(1, &index("a", "good"));
    unnumbered["dynamodb"].as_object_mut().unwrap().remove("SequenceNumber");
    let records = [
        json!(null),
        json!(7),
        json!("text"),
        json!({}),
        json!({"eventName": "INSERT", "dynamodb": {"Keys": {"pk": {"S": "a"}}}}),
        json!({"eventName": "INSERT", "dynamodb": null}),
        unnumbered,
    ];

    let answered = world.batch_ok(records).await;

    assert_eq!(world.setting_keys(), ["a-good"]);
    assert_eq!(answered.stats.rejected, 6);
}

#[tokio::test]
async fn a_broken_record_hides_neither_the_good_one_before_it_nor_what_kv_had() {
    let version = |more: Value| with(shop("a", "i", "s.example"), more);
    let good = version(json!({"cell": "c1", "pixel_id": "good"}));
    for (wrong, path, says) in [
        (version(json!({"cell": "c1", "pixel_id": 3})), "pixel_id", "must be"),
        (version(json!({"pixel_id": "no cell"})), "cell", "DEFAULT_CELL"),
    ] {
        let _row = row(path);
        let world = World::with_env(&[("DEFAULT_CELL", "")]).await;

        let records = [version(json!({"cell": "c1"})), good.clone(), wrong.clone()];
        let answered = world.batch_ok(all_written(&records)).await;

        let counts = &answered.stats;
        assert_eq!((counts.superseded, counts.exported, counts.rejected), (1, 1, 1));
        let line = world.logs.only("record rejected");
        assert_eq!((&line["path"], &line["sequence_number"]), (&json!(path), &json!("3")));
        assert!(line["error"].as_str().unwrap().contains(says), "{line}");
        world.batch_ok([written(4, &wrong)]).await;
        for key in ["a-i", "s.example"] {
            assert_eq!(world.setting(key).unwrap()["pixel_id"], "good", "{key}");
        }
    }
}

#[tokio::test]
async fn the_later_of_two_items_that_claim_one_shop_id_has_it_with_a_warning() {
    let world = World::start().await;

    let items = [shop("b", "one", "s.example"), shop("a", "two", "s.example")];
    world.batch_ok(all_written(&items)).await;

    assert_eq!(world.url_under("s.example").unwrap(), "https://two.example.com");
    assert_eq!(world.url_under("b-one").unwrap(), "https://one.example.com");
    let [line] = &world.logs.warnings()[..] else { panic!("{}", world.logs.text()) };
    let told = ["key", "system_account_id", "loser"].map(|name| &line[name]);
    assert_eq!(told, ["s.example", "a", "b/one"]);
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

    world.batch_ok(records).await;

    for (namespace, count) in [(SETTINGS, 6), (QUERY_CONFIGS, 4)] {
        let puts = world.puts(namespace);
        assert_eq!(puts.len(), 1, "{namespace}");
        let keys: BTreeSet<&String> = puts[0].keys.iter().collect();
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
async fn writes_come_before_deletes() {
    let world = World::start().await;
    world.settled_with([shop("a", "old", "old.example"), query_config("a", "old", "q", 1)]).await;

    world.stack.table.delete("a", "INDEX#old");
    world.stack.table.delete("a", "INDEX#old#QUERY#q");
    world.stack.table.put(&shop("a", "new", "new.example"));
    world.stack.table.put(&query_config("a", "new", "q", 1));
    world.deliver_ok().await;

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
    let world = World::with_env(&[("KV_BULK_MAX_PAIRS", "4")]).await;

    let records = (1..=10).map(|number| written(number, &index("a", &format!("i{number:02}"))));
    world.batch(records).await;

    assert_eq!(world.pairs(SETTINGS), [4, 4, 2]);
    for pair in world.puts(SETTINGS).windows(2) {
        assert!(pair[0].finished_at.unwrap() <= pair[1].received_at);
    }
    assert_eq!(world.setting_keys().len(), 10);
}
