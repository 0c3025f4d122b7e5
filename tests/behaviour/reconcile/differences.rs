//! Each class of difference between KV and the table, and how it is repaired.

use serde_json::json;
use testbed::kv::KvVerb::{DeleteBulk, PutBulk};
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::*;

/// A world with every class of difference.
async fn drifted() -> World {
    let world = World::start().await;
    world
        .settled_with([
            shop("a", "right", "right.example"),
            shop("a", "lost", "lost.example"),
            shop("a", "old", "old.example"),
            shop("a", "edited", "edited.example"),
            shop("a", "orphan", "orphan.example"),
            shop("a", "kept", "kept.example"),
            shop("a", "first", "shared.example"),
            shop("b", "second", "shared.example"),
            shop("a", "broken", "broken.example"),
            pointing("b", "live", "a-kept"),
            pointing("b", "lonely", "z-gone"),
            query_config("a", "right", "right", 1),
            query_config("a", "right", "lost", 1),
            query_config("a", "right", "old", 1),
            query_config("a", "right", "orphan", 1),
        ])
        .await;
    let kv = &world.stack.kv;
    kv.delete(SETTINGS, "lost.example");
    kv.delete(QUERY_CONFIGS, &query_config_key("a", "right", "lost"));
    edit(&world, SETTINGS, "a-old", true);
    edit(&world, QUERY_CONFIGS, &query_config_key("a", "right", "old"), true);
    edit(&world, SETTINGS, "edited.example", false);
    kv.put(SETTINGS, "stranger", "a stranger's", None);
    kv.put(SETTINGS, "stranger with metadata", "{}", Some(json!({"by": "another tool"})));
    kv.put(QUERY_CONFIGS, "stranger", "a stranger's", None);
    world.load([with(broken("a", "broken"), json!({"shop_id": "broken.example"}))]);
    for sk in ["INDEX#orphan", "INDEX#kept", "INDEX#right#QUERY#orphan"] {
        world.stack.table.delete("a", sk);
    }
    world.forget();
    world
}

#[tokio::test]
async fn an_audit_names_every_class_and_writes_nothing() {
    let world = drifted().await;
    let before = world.snapshots();

    let answered = world.handle(&audit()).await;

    let report = answered.ok();
    assert_eq!(
        counts(report, "settings"),
        json!({
            "desired": 13, "listed": 20, "missing": 1, "stale": 2, "orphaned": 2, "withheld": 2,
            "dangling": 1, "foreign": 2, "conflicting": 1, "rejected": 1,
        })
    );
    assert_eq!(
        counts(report, "query_configs"),
        json!({"desired": 3, "listed": 4, "missing": 1, "stale": 1, "orphaned": 1, "foreign": 1})
    );
    let query_config = |query| query_config_key("a", "right", query);
    assert_eq!(
        report["examples"],
        json!({
            "missing": ["lost.example", query_config("lost")],
            "stale": ["a-old", "edited.example", query_config("old")],
            "orphaned": ["a-orphan", "orphan.example", query_config("orphan")],
            "withheld": ["a-kept", "kept.example"],
            "dangling": ["z-gone"],
            "foreign": ["stranger", "stranger with metadata"],
            "conflicting": ["shared.example"],
            "rejected": ["a-broken"],
        })
    );
    assert_eq!((&report["apply"], &report["complete"]), (&json!(false), &json!(true)));
    let found = ["DriftedKeys", "DanglingAliases", "KeysConflicting", "KeysWithheld"];
    assert_eq!(found.map(|name| answered.found(name)), [Some(8), Some(1), Some(1), Some(2)]);
    assert_eq!(world.changes(), changes([]));
    assert_eq!(world.snapshots(), before);
    assert_eq!(world.passes(), 1, "orphans are counted without a pass of their own");
}

#[tokio::test]
async fn a_repair_mends_exactly_what_differs_and_the_next_one_finds_nothing() {
    let world = drifted().await;

    let report = world.report(&repair()).await;

    let query_config = |query| query_config_key("a", "right", query);
    assert_eq!(
        world.changes(),
        changes([
            (PutBulk, SETTINGS, &["a-old", "edited.example", "lost.example"]),
            (PutBulk, QUERY_CONFIGS, &[&query_config("lost"), &query_config("old")]),
            (DeleteBulk, SETTINGS, &["a-orphan", "orphan.example"]),
            (DeleteBulk, QUERY_CONFIGS, &[&query_config("orphan")]),
        ])
    );
    for (namespace, mended) in [("settings", [3, 2, 0]), ("query_configs", [2, 1, 0])] {
        let counts = ["written", "deleted", "failed"].map(|class| &report[namespace][class]);
        assert_eq!(counts, mended, "{namespace}");
    }
    assert_eq!(world.url_under("a-old").unwrap(), "https://old.example.com");
    let metadata = world.stack.kv.get(SETTINGS, "edited.example").unwrap().metadata.unwrap();
    assert_eq!(metadata["source"], "reconcile");

    world.forget();
    let again = world.handle(&repair()).await;
    assert_eq!(again.found("DriftedKeys"), Some(0));
    assert_eq!(world.changes(), changes([]));
}

#[tokio::test]
async fn an_audit_that_finds_nothing_warns_of_nothing() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;

    let answered = world.handle(&audit()).await;

    assert_eq!(answered.found("DriftedKeys"), Some(0));
    assert!(world.logs.warnings().is_empty(), "{:?}", world.logs.warnings());
}
