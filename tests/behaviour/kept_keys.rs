//! Keys that a removal leaves alone: somebody still needs them, or they are foreign.

use serde_json::{Value, json};
use testbed::stack::SETTINGS;
use testbed::table::to_item;

use crate::helpers::*;

/// Every way in which an item can point at a/old, whose shop id is old.example.
fn pointers() -> Vec<(&'static str, Value)> {
    let target = json!([{"index_id": "a-old"}]);
    let unweighted = json!([{"index_id": "a-old", "weight": 0.0}]);
    let block = |name: &str, block: Value| json!({"index_aliases": {name: block}});
    let write_alias = |entry: Value| json!({"add_docs_config": {"index_write_aliases": [entry]}});
    let of_account = json!({"system_account_id": "a", "index_name": "old"});
    vec![
        ("doc_reads", block("doc_reads", json!({"enabled": true, "targets": unweighted}))),
        ("doc_writes", block("doc_writes", json!({"enabled": true, "targets": target}))),
        ("analytics", block("analytics", json!({"enabled": true, "index_id": "a-old"}))),
        ("read_alias", json!({"read_alias": "a-old"})),
        ("write alias by index id", write_alias(json!({"index_id": "a-old"}))),
        ("write alias by the index id as shop id", write_alias(json!({"shop_id": "a-old"}))),
        ("write alias by shop id", write_alias(json!({"shop_id": "old.example"}))),
        ("write alias by account and name", write_alias(of_account)),
        ("undecodable otherwise", json!({"read_alias": "a-old", "index_endpoint": 7})),
    ]
}

#[tokio::test]
async fn a_key_that_an_active_alias_points_at_stays_with_a_warning_and_a_count() {
    for (way, alias) in pointers() {
        let world = World::start().await;
        world.settled_with([shop("a", "old", "old.example")]).await;
        let kept = world.stack.kv.snapshot(SETTINGS);
        // Past the stream: the table decides.
        world.load([index_with("b", "live", alias)]);

        world.stack.table.delete("a", "INDEX#old");
        let answered = world.deliver_ok().await;
        assert_eq!(world.stack.kv.snapshot(SETTINGS), kept, "{way}");
        assert_eq!(answered.stats.deletes_withheld, 2, "{way}");
        let warnings = world.logs.warnings();
        let mut keys: Vec<&Value> = warnings.iter().map(|warning| &warning["key"]).collect();
        keys.sort_by_key(|key| key.to_string());
        assert_eq!(keys, ["a-old", "old.example"], "{way}");
        assert!(warnings.iter().all(|warning| warning["pointers"] == "b/live"), "{warnings:?}");
    }
}

#[tokio::test]
async fn what_looks_like_an_alias_in_a_query_config_keeps_nothing() {
    let aliases = pointers().into_iter().map(|(_, alias)| alias).reduce(with).unwrap();
    for payload in [None, Some(repair()), Some(of_account("a", true))] {
        let _row = row(format!("{payload:?}"));
        let world = World::start().await;
        world.settled_with([shop("a", "old", "old.example"), index("b", "live")]).await;
        world.load([with(query_config("b", "live", "q", 1), aliases.clone())]);

        world.stack.table.delete("a", "INDEX#old");
        match payload {
            None => drop(world.deliver_ok().await),
            Some(payload) => assert_eq!(world.handle(&payload).await.ok()["complete"], true),
        }
        assert_eq!(world.setting_keys(), ["b-live"]);
    }
}

#[tokio::test]
async fn a_key_whose_index_or_claimant_cannot_be_exported_stays_as_it_is() {
    for claim in [json!({}), json!({"shop_id": "s.example"})] {
        let _row = row(&claim);
        let world = World::with_old_images().await;
        world.settled_with([shop("a", "i", "s.example")]).await;
        let before = world.stack.kv.get(SETTINGS, "s.example");
        world.load([with(broken("a", "i"), claim.clone()), shop("b", "gone", "s.example")]);

        world.stack.table.delete("b", "INDEX#gone");
        world.deliver_ok().await;
        assert_eq!(world.stack.kv.get(SETTINGS, "s.example"), before);
        let errors = world.logs.at("ERROR");
        assert!(errors.iter().any(|line| line["path"] == "index_endpoint"), "{errors:?}");
    }
}

#[tokio::test]
async fn a_strangers_key_is_left_alone_whoever_points_at_it() {
    let values = ["plain text", "{}", r#"{"system_account_id":"a"}"#, "[1]", ""];
    for value in values {
        let world = World::with_old_images().await;
        world.stack.table.load([
            to_item(&shop("a", "gone", "s.example")),
            to_item(&pointing("b", "live", "a-gone")),
        ]);
        world.stack.kv.put(SETTINGS, "s.example", value, Some(json!({"owner": "another"})));
        world.stack.kv.put(SETTINGS, "a-gone", value, None);
        let before = world.stack.kv.snapshot(SETTINGS);

        world.stack.table.delete("a", "INDEX#gone");
        let answered = world.deliver_ok().await;
        assert_eq!(world.stack.kv.snapshot(SETTINGS), before, "{value}");
        assert_eq!(answered.stats.deletes_withheld, 0);
    }
}
