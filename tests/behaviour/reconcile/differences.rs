//! What differs between KV and the table, and how it is repaired.

use serde_json::json;
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::drift::*;
use crate::helpers::*;

/// A world with every class of drift.
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
async fn an_audit_names_every_class_of_drift_and_writes_nothing() {
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
    assert_eq!(answered.stats.drifted_keys, Some(8));
    assert_eq!(answered.stats.dangling_aliases, Some(1));
    assert_eq!(writes_of(&world), []);
    assert_eq!(world.snapshots(), before);
}

#[tokio::test]
async fn a_repair_mends_exactly_what_differs_and_the_next_run_finds_nothing() {
    let world = drifted().await;

    let report = world.handle(&repair()).await.ok().clone();

    let query_config = |query| query_config_key("a", "right", query);
    let mut lost_and_old = [query_config("lost"), query_config("old")];
    lost_and_old.sort();
    assert_eq!(
        writes_of(&world),
        [
            write(KvVerb::PutBulk, QUERY_CONFIGS, &lost_and_old.each_ref().map(String::as_str)),
            write(KvVerb::PutBulk, SETTINGS, &["a-old", "edited.example", "lost.example"]),
            write(KvVerb::DeleteBulk, QUERY_CONFIGS, &[&query_config("orphan")]),
            write(KvVerb::DeleteBulk, SETTINGS, &["a-orphan", "orphan.example"]),
        ]
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
    assert_eq!(
        counts(again.ok(), "settings"),
        json!({
            "desired": 13, "listed": 19, "withheld": 2, "dangling": 1, "foreign": 2,
            "conflicting": 1, "rejected": 1,
        })
    );
    assert_eq!(
        counts(again.ok(), "query_configs"),
        json!({"desired": 3, "listed": 4, "foreign": 1})
    );
    assert_eq!(again.stats.drifted_keys, Some(0));
    assert_eq!(writes_of(&world), []);
}

#[tokio::test]
async fn empty_namespaces_are_filled_with_what_the_stream_would_have_written() {
    let items = || {
        let shops = (0..30).map(|n| shop("a", &format!("i{n}"), &format!("s{n}.example")));
        let overrides = (0..30).map(|n| query_config("a", "i0", &format!("q{n}"), n));
        shops.chain(overrides).chain([index("b", "direct")])
    };
    let streamed = World::start().await;
    streamed.settled_with(items()).await;
    let world = World::start().await;
    world.load(items());

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(world.values(), streamed.values());
    assert_eq!([world.pairs(SETTINGS), world.pairs(QUERY_CONFIGS)], [[61], [30]]);
    assert_eq!(counts(&report, "settings"), json!({"desired": 61, "missing": 61, "written": 61}));
    assert_eq!(
        counts(&report, "query_configs"),
        json!({"desired": 30, "missing": 30, "written": 30})
    );
}

#[tokio::test]
async fn an_item_that_cannot_be_exported_keeps_its_keys_as_they_are() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;
    world.stack.api_keys.remove("c");
    let held = world.stack.kv.snapshot(SETTINGS);
    world.load([
        // Its shop id is not readable any more, but what KV holds under it stays.
        index_with("a", "i", json!({"shop_id": 7})),
        // The first by account and index, so the next one has to wait.
        with(broken("b", "broken"), json!({"shop_id": "t.example"})),
        shop("b", "good", "t.example"),
        index("c", "keyless"),
    ]);

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(
        counts(&report, "settings"),
        json!({"desired": 2, "listed": 2, "missing": 1, "conflicting": 1, "rejected": 3, "written": 1})
    );
    let held_now = world.stack.kv.snapshot(SETTINGS);
    assert!(held.iter().all(|(key, stored)| held_now.get(key) == Some(stored)));
    assert_eq!(world.setting_keys(), ["a-i", "b-good", "s.example"]);
    let lines = world.logs.of("an item can't be exported: what KV holds of it stays");
    for (name, path) in
        [("i", "shop_id"), ("broken", "index_endpoint"), ("keyless", "system_account_id")]
    {
        let told = lines.iter().any(|line| line["index_name"] == name && line["path"] == path);
        assert!(told, "{name}: {lines:?}");
    }
}
