//! One odd item or record does not fail its neighbours.

use serde_json::{Value, json};
use testbed::stack::{QUERY_CONFIGS, SETTINGS};
use testbed::table::to_item;

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

    let answered = world.batch(records).await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.query_config_keys(), [query_config_key("a", "i", "new")]);
    let asked = world.stack.kv.log();
    assert!(asked.iter().flat_map(|request| &request.keys).all(|key| key.len() <= 512));
}

#[tokio::test]
async fn an_alias_of_an_item_that_is_no_index_protects_its_target_and_counts_as_dangling() {
    for sk in ["INDEX#DEFAULT_CONFIG", "SETTINGS", "INDEX#a#b", "INDEX#", "index#small", "NOTE#1"] {
        let target = json!([{"index_id": "a-old"}]);
        let alias = json!({"pk": "b", "sk": sk, "index_aliases": {
            "doc_writes": {"enabled": true, "targets": target},
            "analytics": {"enabled": true, "index_id": "z-gone"},
        }});
        let world = World::start().await;
        world.settled_with([shop("a", "old", "old.example"), index("a", "other")]).await;
        let held = world.stack.kv.snapshot(SETTINGS);
        world.stack.table.load([to_item(&alias)]);
        world.stack.table.delete("a", "INDEX#old");

        let answered = world.deliver().await;

        assert_eq!(answered.failures(), NOTHING, "{sk}");
        assert_eq!(world.stack.kv.snapshot(SETTINGS), held, "{sk}");
        assert_eq!(answered.stats.deletes_withheld, 2, "{sk}");

        let payload = json!({"reconcile": {"apply": true}});
        let report = world.handle(&payload).await.ok().clone();
        assert_eq!(world.stack.kv.snapshot(SETTINGS), held, "{sk}");
        assert_eq!(report["settings"]["withheld"], 2, "{sk}");
        for payload in [payload, json!({"reconcile": {"system_account_id": "b"}})] {
            let report = world.handle(&payload).await.ok().clone();
            assert_eq!(report["examples"]["dangling"], json!(["z-gone"]), "{sk}: {payload}");
        }
    }
}

#[tokio::test]
async fn a_record_without_the_cell_that_it_needs_does_not_hide_the_good_one_before_it() {
    let world = World::with(Default::default(), PATIENT, &[("DEFAULT_CELL", "")]).await;
    let good = index_with("a", "i", json!({"cell": "c1", "pixel_id": "good"}));
    let lacking = index_with("a", "i", json!({"pixel_id": "without a cell"}));

    let answered = world.batch([written(1, &good), written(2, &lacking)]).await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.setting("a-i").unwrap()["pixel_id"], "good");
    let counts = &answered.stats;
    assert_eq!((counts.exported, counts.rejected, counts.superseded), (1, 1, 0));
    let [line] = &world.logs.of("record rejected")[..] else { panic!("{:?}", world.logs.lines()) };
    assert_eq!((&line["path"], &line["sequence_number"]), (&json!("cell"), &json!("2")));
}

fn with_targets(targets: Value) -> Value {
    let reads = json!({"enabled": true, "targets": targets});
    index_with("a", "i", json!({"index_aliases": {"doc_reads": reads}}))
}

#[tokio::test]
async fn a_targets_own_enabled_is_exported_where_it_is_there() {
    let world = World::start().await;
    let targets = json!([
        {"index_id": "a-1", "enabled": true, "weight": 1},
        {"index_id": "a-2", "enabled": false, "weight": 0.5, "internal": true},
        {"index_id": "a-3", "enabled": null, "weight": 0},
        {"index_id": "a-4", "weight": 0},
    ]);

    world.batch([written(1, &with_targets(targets))]).await;

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
}

#[tokio::test]
async fn a_disabled_target_does_not_count_for_the_sum_of_the_weights() {
    for (own, warnings) in [(json!(false), 1), (json!(true), 0), (json!(null), 0)] {
        let world = World::start().await;
        let targets = json!([
            {"index_id": "a-1", "weight": 0.5},
            {"index_id": "a-2", "weight": 0.5, "enabled": own},
        ]);

        world.batch([written(1, &with_targets(targets))]).await;

        assert!(world.setting("a-i").is_some());
        assert_eq!(world.logs.warnings().len(), warnings, "{own}");
    }
}

#[tokio::test]
async fn a_targets_enabled_of_another_type_rejects_its_record() {
    let world = World::start().await;
    let targets = json!([{"index_id": "a-1"}, {"index_id": "a-2", "enabled": "yes"}]);

    let answered = world.batch([written(1, &with_targets(targets))]).await;

    assert_eq!(answered.failures(), NOTHING);
    let [line] = &world.logs.of("record rejected")[..] else { panic!("{:?}", world.logs.lines()) };
    assert_eq!(line["path"], "index_aliases.doc_reads.targets[1].enabled");
    assert!(world.stack.kv.keys(QUERY_CONFIGS).is_empty() && world.setting_keys().is_empty());
}
