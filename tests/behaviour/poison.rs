//! One odd item or record does not fail its neighbours.

use serde_json::{Value, json};
use testbed::stack::SETTINGS;

use crate::helpers::*;

#[tokio::test]
async fn the_removal_of_a_query_config_whose_key_kv_cannot_hold_fails_nothing() {
    let long = "x".repeat(500);
    assert!(query_config_key("a", &long, "q").len() > 512);
    let world = World::start().await;
    world.settled_with([query_config("a", "i", "gone", 1)]).await;
    world.stack.table.delete("a", "INDEX#i#QUERY#gone");
    let mut records = vec![
        removed(1, "a", &format!("INDEX#{long}#QUERY#q")),
        written(2, &query_config("a", "i", "new", 1)),
    ];
    records.extend(world.new_records());

    world.batch_ok(records).await;

    assert_eq!(world.query_config_keys(), [query_config_key("a", "i", "new")]);
    let asked = world.stack.kv.log();
    assert!(asked.iter().flat_map(|request| &request.keys).all(|key| key.len() <= 512));
}

#[tokio::test]
async fn an_alias_of_an_item_that_is_no_index_protects_its_target_and_counts_as_dangling() {
    for sk in ["INDEX#DEFAULT_CONFIG", "SETTINGS", "INDEX#a#b", "INDEX#", "index#small", "NOTE#1"] {
        let _row = row(sk);
        let target = json!([{"index_id": "a-old"}]);
        let alias = json!({"pk": "b", "sk": sk, "index_aliases": {
            "doc_writes": {"enabled": true, "targets": target},
            "analytics": {"enabled": true, "index_id": "z-gone"},
        }});
        let world = World::start().await;
        world.settled_with([shop("a", "old", "old.example"), index("a", "other")]).await;
        let held = world.stack.kv.snapshot(SETTINGS);
        world.load([alias]);
        world.stack.table.delete("a", "INDEX#old");

        let answered = world.deliver_ok().await;

        assert_eq!(world.stack.kv.snapshot(SETTINGS), held);
        assert_eq!(answered.stats.deletes_withheld, 2);

        let report = world.handle(&repair()).await.ok().clone();
        assert_eq!(world.stack.kv.snapshot(SETTINGS), held);
        assert_eq!(report["settings"]["withheld"], 2);
        for payload in [repair(), of_account("b", false)] {
            let report = world.handle(&payload).await.ok().clone();
            assert_eq!(report["examples"]["dangling"], json!(["z-gone"]), "{payload}");
        }
    }
}

#[tokio::test]
async fn targets_are_exported_as_they_are_with_a_warning_where_the_weights_do_not_sum_to_one() {
    let world = World::start().await;
    let with_targets = |targets: Value| {
        let reads = json!({"enabled": true, "targets": targets});
        index_with("a", "i", json!({"index_aliases": {"doc_reads": reads}}))
    };
    let targets = json!([
        {"index_id": "a-1", "enabled": true, "weight": 1},
        {"index_id": "a-2", "enabled": false, "weight": 0.5, "internal": true},
        {"index_id": "a-3", "enabled": null, "weight": 0},
        {"index_id": "a-4", "weight": 0},
    ]);

    world.batch_ok([written(1, &with_targets(targets))]).await;

    let value = world.stack.kv.get(SETTINGS, "a-i").unwrap().value;
    let expected = concat!(
        r#""doc_reads":{"enabled":true,"targets":["#,
        r#"{"enabled":true,"index_id":"a-1","internal":false,"weight":1.0},"#,
        r#"{"enabled":false,"index_id":"a-2","internal":true,"weight":0.5},"#,
        r#"{"index_id":"a-3","internal":false,"weight":0.0},"#,
        r#"{"index_id":"a-4","internal":false,"weight":0.0}]}"#,
    );
    assert!(value.contains(expected), "{value}");
    assert_eq!(world.logs.warnings().len(), 0, "{:?}", world.logs.warnings());

    let odd = with_targets(json!([{"index_id": "a-j", "weight": 0.7}]));
    world.load([odd.clone()]);
    for payload in [testbed::stream::event([written(2, &odd)]), re_export("a", "i")] {
        world.logs.clear();
        world.handle(&payload).await.ok();
        let reads = &world.setting("a-i").unwrap()["index_aliases"]["doc_reads"];
        assert_eq!(reads["targets"][0]["weight"], 0.7);
        let line = world.logs.only("an index is exported as it is, and is worth a look");
        assert_eq!(line["level"], "WARN");
        assert!(line["warning"].as_str().unwrap().contains("the weights sum to 0.7"), "{line}");
    }
}
