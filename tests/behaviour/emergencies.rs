//! The days on which everything goes wrong at once, from end to end.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::stack::{QUERY_CONFIGS, SETTINGS};
use testbed::stream::event;
use testbed::table::to_item;

use crate::helpers::*;
use crate::printed::Printed;
use crate::process;

#[tokio::test]
async fn a_repair_pointed_at_an_emptied_table_changes_nothing_and_says_how_to_go_on() {
    let stack = process::stack().await;
    let shops = (0..1_000).map(|n| shop("a", &format!("i{n}"), &format!("s{n}.example")));
    let queries = (0..2_001).map(|n| query_config("a", "direct", &format!("q{n}"), n));
    let items: Vec<Value> = shops.chain(queries).chain([index("a", "direct")]).collect();
    stack.table.load(items.iter().map(to_item));
    let function = process::function(&stack, &[]).await;
    let repair = |more: Value| {
        let mut payload = json!({"reconcile": {"apply": true}});
        let fields = payload["reconcile"].as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        payload
    };
    process::invoke(&function, &repair(json!({}))).await.result.unwrap();
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
        let invocation = process::invoke(&function, &repair(more.clone())).await;

        assert!(snapshots() == before, "{more}");
        let printed = Printed::by(&invocation);
        let report = invocation.result.unwrap();
        assert_eq!(report["complete"], false, "{more}: {report}");
        assert!(report["refused"]["delete"].as_u64().unwrap() > 0, "{more}: {report}");
        let errors = printed.at("ERROR");
        let named = errors.iter().any(|line| line.to_string().contains("delete_up_to"));
        assert!(named, "{more}: {errors:?}");
        if more.get("system_account_id").is_none() {
            assert_eq!(report["refused"], json!({"delete": 4_002, "rewrite": 0}));
            assert_eq!(printed.counts()["RepairRefused"], 4_002.0);
        }
    }

    stack.table.load(items.iter().map(to_item));
    let audit = process::invoke(&function, &json!({"reconcile": {}})).await.result.unwrap();
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
    let re_export =
        json!({"system_account_id": "a", "index_name": "i", "include_query_configs": true});
    for by_hand in [re_export, json!({"reconcile": {"apply": true}})] {
        let world = World::start().await;
        world.clock.stop_at(began);
        let load = |items: [Value; 2]| world.stack.table.load(items.iter().map(to_item));
        let held = || {
            let setting = |key| world.setting(key).unwrap()["pixel_id"].clone();
            let config = world.stack.kv.get(QUERY_CONFIGS, &query_config_key("a", "i", "q"));
            (setting("a-i"), setting("s.example"), config.unwrap().json()["boost"].clone())
        };
        let holds =
            |number: u32| (json!(number.to_string()), json!(number.to_string()), json!(number));
        // One key that KV doesn't take holds the shard up.
        world.stack.table.load([to_item(&index("b", "stuck"))]);
        let stuck = Fault::unsuccessful(|key| key == "b-stuck", 200);
        world.stack.kv.faults().add(Rule::on("PUT", "/bulk", stuck).forever());
        load(version(1));
        let records = std::iter::once(index("b", "stuck")).chain(version(1));
        let records = (1..)
            .zip(records)
            .map(|(number, item)| created_at(written(number, &item), json!(1_795_183_200)));
        let batch = event(records);
        assert_eq!(world.handle(&batch).await.failures(), ["1"]);
        assert_eq!(held(), holds(1));

        // Its own record waits behind the stuck batch.
        load(version(2));
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
