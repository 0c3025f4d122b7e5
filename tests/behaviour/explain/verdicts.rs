//! Each verdict, and what an index or a key is taken for.

use serde_json::json;
use testbed::stack::SETTINGS;

use super::asking::*;
use crate::helpers::*;

#[tokio::test]
async fn right_keys_are_told_with_when_and_by_what_they_were_written() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;

    let report = asked(&world, &of_index("a", "i")).await;

    let stored = world.stack.kv.get(SETTINGS, "a-i").unwrap().metadata.unwrap();
    let key = |key: &str| {
        json!({
            "key": key, "verdict": "right", "named": named("a", "i"), "environment": "local",
            "exported_at": stored["exported_at"], "changed_at": stored["changed_at"],
            "source": "stream", "differs": [], "claimed_by": [named("a", "i")],
        })
    };
    assert!(stored["changed_at"].is_string());
    assert_eq!(
        report,
        json!({
            "system_account_id": "a", "index_name": "i", "item": "exportable",
            "keys": [key("s.example"), key("a-i")], "pointed_at_by": [],
            "advice": "Nothing is to be done: KV holds what the table asks for, and the edge shows it within a minute.",
        })
    );
    for name in ["s.example", "a-i"] {
        assert_eq!(asked(&world, &of_key(name)).await, report, "{name}");
    }
}

#[tokio::test]
async fn a_missing_key_is_found_by_the_item_that_asks_for_it() {
    let world = World::start().await;
    world.stack.table.put(&shop("a", "i", "s.example"));

    for payload in [of_index("a", "i"), of_key("s.example"), of_key("a-i")] {
        let report = asked(&world, &payload).await;

        assert_eq!(verdicts(&report), [("s.example", "missing"), ("a-i", "missing")], "{payload}");
        assert_eq!(report["item"], "exportable");
        let key = key(&report, "s.example");
        assert_eq!(key["claimed_by"], json!([named("a", "i")]));
        assert_eq!(key["differs"], json!([]));
        for absent in ["named", "environment", "exported_at", "changed_at", "source"] {
            assert!(key.get(absent).is_none(), "{absent} in {key}");
        }
        assert!(advice(&report).contains("run make re-export ACCOUNT=a INDEX=i"), "{report}");
    }
}

/// What has happened to a/i, whose shop id is s.example, the verdicts then, and the advice.
type Case = (&'static str, fn(&World), &'static [(&'static str, &'static str)], &'static str);

#[tokio::test]
async fn what_has_happened_to_an_index_is_told_by_its_keys_and_in_the_advice() {
    let cases: [Case; 5] = [
        (
            "the item is broken",
            |world| world.load([with(broken("a", "i"), json!({"shop_id": "s.example"}))]),
            &[("s.example", "rejected"), ("a-i", "rejected")],
            "The field index_endpoint must be",
        ),
        (
            "the account has lost its API key",
            |world| world.stack.api_keys.remove("a"),
            &[("s.example", "rejected"), ("a-i", "rejected")],
            "the account has no API key",
        ),
        (
            "the account has another API key",
            |world| world.stack.api_keys.set("a", "rotated"),
            &[("s.example", "stale"), ("a-i", "stale")],
            "run make reconcile APPLY=true ACCOUNT=a,",
        ),
        (
            // Stale as for a reconcile, though the value is right.
            "the digest is lost",
            |world| {
                let text = world.stack.kv.get(SETTINGS, "a-i").unwrap().value;
                world.stack.kv.put(SETTINGS, "a-i", &text, None);
            },
            &[("s.example", "right"), ("a-i", "stale")],
            "run make re-export ACCOUNT=a INDEX=i",
        ),
        (
            // The value under the index id leads to the old one.
            "the shop id has changed",
            |world| world.load([shop("a", "i", "new.example")]),
            &[("new.example", "missing"), ("a-i", "stale"), ("s.example", "orphaned")],
            "KV lacks new.example",
        ),
    ];
    for (what, change, expected, says) in cases {
        let _row = row(what);
        let world = World::start().await;
        world.settled_with([shop("a", "i", "s.example")]).await;
        change(&world);

        let report = asked(&world, &of_index("a", "i")).await;

        assert_eq!(verdicts(&report), expected);
        assert!(advice(&report).contains(says), "{report}");
        let rejected = expected[0].1 == "rejected";
        assert_eq!(report["item"], if rejected { "rejected" } else { "exportable" });
        assert_eq!(report.get("path").is_some(), rejected, "{report}");
        assert!(key(&report, "a-i")["exported_at"].is_string() || what.contains("digest"));
    }
}

#[tokio::test]
async fn a_stale_key_tells_the_paths_that_differ() {
    let world = World::start().await;
    let reads = |weight: f64| {
        let targets = json!([{"index_id": "a-v2", "weight": weight}]);
        json!({"doc_reads": {"enabled": true, "targets": targets}})
    };
    let item = |limit: u32, weight: f64| {
        let config = json!({"limit": limit, "same": {"deep": [1, 2]}});
        index_with("a", "i", json!({"search_config": config, "index_aliases": reads(weight)}))
    };
    world.settled_with([item(10, 0.5)]).await;
    world.stack.table.put(&item(20, 1.0));

    let report = asked(&world, &of_index("a", "i")).await;

    assert_eq!(verdicts(&report), [("a-i", "stale")]);
    assert_eq!(
        key(&report, "a-i")["differs"],
        json!(["index_aliases.doc_reads.targets[0].weight", "search_config.limit"])
    );
    assert!(advice(&report).contains("run make re-export ACCOUNT=a INDEX=i"), "{report}");
}

#[tokio::test]
async fn a_key_that_an_alias_needs_is_withheld_and_says_who_points_at_it() {
    let world = World::start().await;
    world.settled_with([shop("a", "old", "s.example")]).await;
    world.stack.table.delete("a", "INDEX#old");
    world.stack.table.put(&pointing("b", "live", "a-old"));
    let defaults = json!({"pk": "c", "sk": "INDEX#DEFAULT_CONFIG", "read_alias": "a-old"});
    world.stack.table.put(&defaults);

    let report = asked(&world, &of_index("a", "old")).await;

    assert_eq!(verdicts(&report), [("a-old", "withheld"), ("s.example", "withheld")]);
    assert_eq!(
        report["pointed_at_by"],
        json!([named("b", "live"), named("c", "INDEX#DEFAULT_CONFIG")])
    );
    assert!(advice(&report).contains("b/live"), "{report}");
}

#[tokio::test]
async fn who_points_at_an_index_that_is_there_is_told_too_but_not_itself() {
    let world = World::start().await;
    world.settled_with([pointing("a", "i", "a-i"), pointing("b", "live", "a-i")]).await;

    let report = asked(&world, &of_index("a", "i")).await;

    assert_eq!(verdicts(&report), [("a-i", "right")]);
    assert_eq!(report["pointed_at_by"], json!([named("b", "live")]));
}

#[tokio::test]
async fn an_alias_that_points_at_nothing_is_dangling() {
    let world = World::start().await;
    world.settled_with([pointing("b", "live", "b-gone-2")]).await;

    let by_key = asked(&world, &of_key("b-gone-2")).await;

    assert_eq!(verdicts(&by_key), [("b-gone-2", "dangling")]);
    assert_eq!((&by_key["item"], &by_key["index_name"]), (&json!("absent"), &json!("gone-2")));
    assert_eq!(by_key["pointed_at_by"], json!([named("b", "live")]));
    assert!(advice(&by_key).contains("active aliases of b/live"), "{by_key}");
    assert_eq!(asked(&world, &of_index("b", "gone-2")).await, by_key);

    // Nothing says of which index a shop id is that only an alias names.
    let write_aliases = json!({"index_write_aliases": [{"shop_id": "gone.example"}]});
    let defaults =
        json!({"pk": "c", "sk": "INDEX#DEFAULT_CONFIG", "add_docs_config": write_aliases});
    world.stack.table.put(&defaults);
    let by_shop_id = asked(&world, &of_key("gone.example")).await;
    assert_eq!(verdicts(&by_shop_id), [("gone.example", "dangling")]);
    assert_eq!(by_shop_id["pointed_at_by"], json!([named("c", "INDEX#DEFAULT_CONFIG")]));
}

#[tokio::test]
async fn a_key_that_another_environment_has_written_is_conflicting_where_an_item_asks_for_it() {
    let world = World::start().await;
    world.stack.table.put(&shop("a", "i", "s.example"));
    world.hold(SETTINGS, "s.example", &held_settings("z", "z"), Writer::OtherEnvironment);

    let report = asked(&world, &of_key("s.example")).await;

    assert_eq!((&report["system_account_id"], &report["index_name"]), (&json!("a"), &json!("i")));
    assert_eq!(verdicts(&report), [("s.example", "conflicting"), ("a-i", "missing")]);
    let key = key(&report, "s.example");
    assert_eq!((&key["environment"], &key["named"]), (&json!("another"), &named("z", "z")));
    assert!(advice(&report).contains("Environment another has written s.example"), "{report}");
}

#[tokio::test]
async fn what_nobody_asks_for_and_is_not_ours_is_foreign() {
    let world = World::start().await;
    world.hold(SETTINGS, "a-theirs", &held_settings("a", "theirs"), Writer::OtherEnvironment);
    world.hold(SETTINGS, "a-old", &held_settings("a", "old"), Writer::Predecessor);
    world.stack.kv.put(SETTINGS, "stranger", "MARKED", Some(json!({"source": "MARKED"})));

    for key in ["a-theirs", "a-old", "stranger"] {
        let report = asked(&world, &of_key(key)).await;
        assert_eq!(verdicts(&report), [(key, "foreign")], "{report}");
        assert_eq!(report["item"], "absent");
        assert!(advice(&report).starts_with("Nothing is to be done"), "{report}");
        assert!(!report.to_string().contains("MARKED"));
    }
    let stranger = asked(&world, &of_key("stranger")).await;
    assert!(stranger.get("system_account_id").is_none(), "nothing says whose it is: {stranger}");
}

#[tokio::test]
async fn an_index_that_nobody_knows_is_not_found() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;

    for payload in [of_index("a", "j"), of_key("t.example"), of_key("a-j"), of_key("plain")] {
        let answered = world.handle(&payload).await;
        assert_eq!(answered.error().kind, "IndexNotFound", "{payload}");
    }
    assert_eq!(world.handle(&of_index("a", "i")).await.result.map(drop), Ok(()));
}

#[tokio::test]
async fn a_dash_in_a_name_gives_two_indexes_one_key() {
    let world = World::start().await;
    world.stack.table.put(&index("a", "b-c"));
    world.stack.table.put(&index("a-b", "c"));
    let both = json!([named("a", "b-c"), named("a-b", "c")]);

    // The first has the key, whether KV lacks it or names it.
    for _ in 0..2 {
        for payload in [of_index("a", "b-c"), of_index("a-b", "c"), of_key("a-b-c")] {
            let report = asked(&world, &payload).await;

            assert_eq!(verdicts(&report), [("a-b-c", "conflicting")]);
            assert_eq!(key(&report, "a-b-c")["claimed_by"], both);
            assert!(advice(&report).contains("Items a/b-c and a-b/c ask for a-b-c"), "{report}");
        }
        world.settled_with([index("a", "b-c")]).await;
    }
    assert_eq!(key(&asked(&world, &of_key("a-b-c")).await, "a-b-c")["named"], named("a", "b-c"));
}
