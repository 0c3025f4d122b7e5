//! Each verdict, and what an index or a key is taken for.

use serde_json::json;
use testbed::faults::Fault;
use testbed::stack::SETTINGS;

use super::asking::*;
use crate::helpers::*;

#[tokio::test]
async fn a_right_key_is_told_with_when_and_by_what_it_was_written() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;

    let report = asked(&world, &explain_index("a", "i")).await;

    let stored = world.stack.kv.get(SETTINGS, "a-i").unwrap().metadata.unwrap();
    assert!(stored["changed_at"].is_string());
    let key = |key: &str| {
        json!({
            "key": key, "verdict": "right", "named": named("a", "i"), "environment": "local",
            "exported_at": stored["exported_at"], "changed_at": stored["changed_at"],
            "source": "stream", "differs": [], "claimed_by": [named("a", "i")],
        })
    };
    assert_eq!(
        report,
        json!({
            "system_account_id": "a", "index_name": "i", "item": "exportable",
            "keys": [key("s.example"), key("a-i")], "pointed_at_by": [],
        })
    );
    for name in ["s.example", "a-i"] {
        assert_eq!(asked(&world, &explain_key(name)).await, report, "{name}");
    }
}

/// What has happened to a/i, whose shop id is s.example, and the verdicts on its keys then.
type Case = (&'static str, fn(&World), [&'static str; 2]);

#[tokio::test]
async fn what_happened_to_an_index_shows_in_the_verdicts_of_its_keys() {
    let cases: [Case; 4] = [
        (
            "the item is broken",
            |world| world.load([with(broken("a", "i"), json!({"shop_id": "s.example"}))]),
            ["rejected"; 2],
        ),
        ("no API key", |world| world.stack.api_keys.remove("a"), ["rejected"; 2]),
        ("another API key", |world| world.stack.api_keys.set("a", "rotated"), ["stale"; 2]),
        (
            "the digest is lost",
            |world| {
                let text = world.stack.kv.get(SETTINGS, "a-i").unwrap().value;
                world.stack.kv.put(SETTINGS, "a-i", &text, None);
            },
            ["right", "stale"],
        ),
    ];
    for (name, change, [by_shop_id, by_index_id]) in cases {
        let _row = row(name);
        let world = World::start().await;
        world.settled_with([shop("a", "i", "s.example")]).await;
        change(&world);

        let report = asked(&world, &explain_index("a", "i")).await;

        assert_eq!(verdicts(&report), [("s.example", by_shop_id), ("a-i", by_index_id)]);
        let rejected = by_shop_id == "rejected";
        assert_eq!(report["item"], if rejected { "rejected" } else { "exportable" });
        assert_eq!(report.get("path").is_some(), rejected, "{report}");
    }
}

#[tokio::test]
async fn a_stale_key_tells_the_paths_that_differ_and_not_the_api_key_that_cannot_be_had() {
    let world = World::start().await;
    let item = |limit: u32, weight: f64| {
        let targets = json!([{"index_id": "a-v2", "weight": weight}]);
        let reads = json!({"doc_reads": {"enabled": true, "targets": targets}});
        let config = json!({"limit": limit, "same": {"deep": [1, 2]}});
        index_with("a", "i", json!({"search_config": config, "index_aliases": reads}))
    };
    world.settled_with([item(10, 0.5)]).await;
    world.load([item(20, 1.0)]);
    world.stack.api_keys.set("a", "rotated");
    let paths =
        ["index_aliases.doc_reads.targets[0].weight", "marqo_api_key", "search_config.limit"];

    let report = asked(&world, &explain_index("a", "i")).await;
    assert_eq!(verdicts(&report), [("a-i", "stale")]);
    assert_eq!(key(&report, "a-i")["differs"], json!(paths));

    world.break_api_keys(Fault::status(503));
    let report = asked(&world, &explain_index("a", "i")).await;
    assert_eq!(verdicts(&report), [("a-i", "failed")]);
    assert_eq!(report["api_key_unavailable"], true);
    assert_eq!(key(&report, "a-i")["differs"], json!([paths[0], paths[2]]));
}

#[tokio::test]
async fn a_withheld_key_says_who_points_at_it_and_so_does_one_that_is_there() {
    let world = World::start().await;
    world.settled_with([shop("a", "old", "s.example"), pointing("a", "i", "a-i")]).await;
    world.stack.table.delete("a", "INDEX#old");
    let defaults = json!({"pk": "c", "sk": "INDEX#DEFAULT_CONFIG", "read_alias": "a-old"});
    world.load([pointing("b", "live", "a-old"), defaults, pointing("b", "too", "a-i")]);

    let report = asked(&world, &explain_index("a", "old")).await;
    assert_eq!(verdicts(&report), [("s.example", "withheld"), ("a-old", "withheld")]);
    let pointers = json!([named("b", "live"), named("c", "INDEX#DEFAULT_CONFIG")]);
    assert_eq!(report["pointed_at_by"], pointers);

    // An item's alias to itself does not count.
    let report = asked(&world, &explain_index("a", "i")).await;
    assert_eq!(report["pointed_at_by"], json!([named("b", "too")]));
}

#[tokio::test]
async fn a_key_that_only_an_alias_names_is_known_by_who_points_at_it() {
    let world = World::start().await;
    let write_aliases = json!({"index_write_aliases": [{"shop_id": "gone.example"}]});
    let defaults =
        json!({"pk": "c", "sk": "INDEX#DEFAULT_CONFIG", "add_docs_config": write_aliases});
    world.settled_with([pointing("b", "live", "b-gone-2"), defaults]).await;

    for payload in [explain_key("b-gone-2"), explain_index("b", "gone-2")] {
        let report = asked(&world, &payload).await;
        assert_eq!(report["item"], "absent");
        assert_eq!(report["pointed_at_by"], json!([named("b", "live")]));
    }
    // Nothing says which index a shop id is of that only an alias names.
    let report = asked(&world, &explain_key("gone.example")).await;
    assert_eq!(report["pointed_at_by"], json!([named("c", "INDEX#DEFAULT_CONFIG")]));
    assert!(report.get("system_account_id").is_none(), "{report}");
}
