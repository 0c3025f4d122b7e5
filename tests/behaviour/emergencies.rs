//! The days on which everything goes wrong at once, from end to end.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use testbed::faults::Fault;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};
use testbed::stream::event;
use testbed::table::to_item;

use crate::helpers::*;
use crate::printed::Printed;
use crate::process;

#[tokio::test]
async fn a_repair_pointed_at_an_emptied_table_changes_nothing_and_says_how_to_go_on() {
    let (stack, function) = process::start().await;
    let shops = (0..1_000).map(|n| shop("a", &format!("i{n}"), &format!("s{n}.example")));
    let queries = (0..2_001).map(|n| query_config("a", "direct", &format!("q{n}"), n));
    let items: Vec<Value> = shops.chain(queries).chain([index("a", "direct")]).collect();
    stack.table.load(items.iter().map(to_item));
    process::invoke(&function, &repair()).await.result.unwrap();
    let snapshots = || [SETTINGS, QUERY_CONFIGS].map(|namespace| stack.kv.snapshot(namespace));
    let before = snapshots();
    assert_eq!(before.iter().map(std::collections::BTreeMap::len).sum::<usize>(), 4_002);

    for item in &items {
        stack.table.delete(item["pk"].as_str().unwrap(), item["sk"].as_str().unwrap());
    }
    for more in [
        json!({}),
        json!({"delete_up_to": 1_000_000, "rewrite_up_to": 1_000_000}),
        json!({"system_account_id": "a"}),
        json!({"system_account_id": "a", "delete_up_to": 1_000_000}),
    ] {
        let invocation = process::invoke(&function, &repair_with(more.clone())).await;

        assert!(snapshots() == before, "{more}");
        let printed = Printed::by(&invocation);
        let report = invocation.result.unwrap();
        assert_eq!(report["complete"], false, "{more}: {report}");
        assert!(report["refused"]["delete"].as_u64().unwrap() > 0, "{more}: {report}");
        let errors = json!(printed.at("ERROR")).to_string();
        assert!(errors.contains("delete_up_to"), "{more}: {errors}");
        if more.get("system_account_id").is_none() {
            assert_eq!(report["refused"], json!({"delete": 4_002, "rewrite": 0}));
            assert_eq!(printed.counts()["RepairRefused"], 4_002.0);
        }
    }

    stack.table.load(items.iter().map(to_item));
    let audit = process::invoke(&function, &audit()).await.result.unwrap();
    for namespace in ["settings", "query_configs"] {
        for class in ["missing", "stale", "orphaned"] {
            assert_eq!(audit[namespace][class], 0, "{namespace} {class}");
        }
    }
}

#[tokio::test]
async fn what_was_written_during_a_stuck_batch_is_still_there_after_each_redelivery() {
    let began = UNIX_EPOCH + Duration::from_secs(1_795_183_205);
    let version = |number: u32| {
        let more = json!({"shop_id": "s.example", "pixel_id": number.to_string()});
        [index_with("a", "i", more), query_config("a", "i", "q", number)]
    };
    for by_hand in [re_export_all("a", "i"), repair()] {
        let world = World::start().await;
        world.clock.stop_at(began);
        let held = || {
            let setting = |key| world.setting(key).unwrap()["pixel_id"].clone();
            let config = world.query_config("a", "i", "q").unwrap();
            (setting("a-i"), setting("s.example"), config["boost"].clone())
        };
        let holds =
            |number: u32| (json!(number.to_string()), json!(number.to_string()), json!(number));
        // One key that KV doesn't take holds the shard up.
        world.break_kv(writes(Fault::unsuccessful(|key| key == "b-stuck", 200)).forever());
        let [setting, config] = version(1);
        let items = [index("b", "stuck"), setting, config];
        world.load(items.clone());
        let records = all_written(&items).into_iter();
        let batch = event(records.map(|record| created_at(record, json!(1_795_183_200))));
        assert_eq!(world.handle(&batch).await.failures(), ["1"]);
        assert_eq!(held(), holds(1));

        // Its own record waits behind the stuck batch.
        world.load(version(2));
        world.handle(&by_hand).await.ok();
        assert_eq!(held(), holds(2), "{by_hand}");

        // Within a minute the image is trusted. A later delivery brings back what that undoes.
        world.clock.stop_at(began + Duration::from_secs(30));
        assert_eq!(world.handle(&batch).await.failures(), ["1"]);
        for minutes in 1..=3 {
            world.clock.stop_at(began + Duration::from_secs(61 * minutes));
            assert_eq!(world.handle(&batch).await.failures(), ["1"]);
            assert_eq!(held(), holds(2), "{by_hand}, {minutes} minutes later");
        }
        world.stack.kv.faults().clear();
        assert_eq!(world.handle(&batch).await.failures(), NOTHING);
        assert_eq!(held(), holds(2));
    }
}
