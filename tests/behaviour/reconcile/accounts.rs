//! A run of one account.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::drift::*;
use crate::helpers::*;

/// The report of a run of account `a`.
async fn run(world: &World, apply: bool) -> Value {
    world.handle(&of_account("a", apply)).await.ok().clone()
}

#[tokio::test]
async fn a_run_of_one_account_touches_no_key_of_another() {
    let world = World::start().await;
    let accounts = ["a", "a-b", "b"];
    let items = accounts.into_iter().flat_map(|account| {
        [
            shop(account, "lost", &format!("{account}.lost")),
            shop(account, "orphan", &format!("{account}.orphan")),
            query_config(account, "lost", "lost", 1),
            query_config(account, "lost", "orphan", 1),
        ]
    });
    world.settled_with(items).await;
    for account in accounts {
        world.stack.kv.delete(SETTINGS, &format!("{account}.lost"));
        edit(&world, SETTINGS, &format!("{account}-lost"), false);
        world.stack.kv.delete(QUERY_CONFIGS, &query_config_key(account, "lost", "lost"));
        world.stack.table.delete(account, "INDEX#orphan");
        world.stack.table.delete(account, "INDEX#lost#QUERY#orphan");
    }
    world.stack.kv.put(SETTINGS, "stranger", "x", None);
    world.forget();

    let report = run(&world, true).await;

    let [lost, orphan] = ["lost", "orphan"].map(|query| query_config_key("a", "lost", query));
    assert_eq!(
        writes_of(&world),
        [
            write(KvVerb::PutBulk, QUERY_CONFIGS, &[&lost]),
            write(KvVerb::PutBulk, SETTINGS, &["a-lost", "a.lost"]),
            write(KvVerb::DeleteBulk, QUERY_CONFIGS, &[&orphan]),
            write(KvVerb::DeleteBulk, SETTINGS, &["a-orphan", "a.orphan"]),
        ]
    );
    assert_eq!(
        counts(&report, "settings"),
        json!({"desired": 2, "listed": 6, "missing": 1, "stale": 1, "orphaned": 2, "written": 2, "deleted": 2}),
        "a-b's keys begin like a's, and are listed with them"
    );
    assert_eq!(
        counts(&report, "query_configs"),
        json!({"desired": 1, "listed": 2, "missing": 1, "orphaned": 1, "written": 1, "deleted": 1})
    );
}

#[tokio::test]
async fn a_contested_key_counts_once_as_rewritten_and_waits_where_rewriting_is_refused() {
    for (shops, refused, served) in [(300, None, "more"), (501, Some(1_003), "j")] {
        let _row = row(format!("{shops} shops with two stale keys each"));
        let world = World::start().await;
        let names: Vec<String> = (0..shops).map(|number| format!("i{number:03}")).collect();
        let items = names.iter().map(|name| shop("a", name, &format!("{name}.example")));
        world.settled_with(items.chain([shop("b", "j", "s.example")])).await;
        for key in names.iter().flat_map(|name| [format!("a-{name}"), format!("{name}.example")]) {
            edit(&world, SETTINGS, &key, false);
        }
        // KV still names the other account for the contested key.
        world.load([shop("a", "more", "s.example"), index("b", "j")]);

        for apply in [false, true] {
            let report = run(&world, apply).await;
            assert_eq!(report["settings"]["stale"], 2 * shops + 1, "{report}");
            let rewrites = refused.map(|rewrite| json!({"delete": 0, "rewrite": rewrite}));
            assert_eq!(report.get("refused"), rewrites.as_ref(), "{report}");
        }
        let url = format!("https://{served}.example.com");
        assert_eq!(world.url_under("s.example"), Some(url));
    }
}

#[tokio::test]
async fn a_run_of_one_account_leaves_a_contested_key_with_the_account_that_kv_names() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example"), shop("b", "j", "s.example")]).await;
    assert_eq!(world.url_under("s.example").unwrap(), "https://j.example.com");
    let conflicting = json!({"desired": 2, "listed": 2, "conflicting": 1});
    for apply in [false, true] {
        assert_eq!(counts(&run(&world, apply).await, "settings"), conflicting);
    }
    assert_eq!(writes_of(&world), []);

    // Once the other account no longer asks for it, it belongs to this one.
    world.load([index("b", "j")]);
    assert_eq!(run(&world, false).await["examples"]["stale"], json!(["s.example"]));
    assert_eq!(writes_of(&world), []);
    let mended = json!({"desired": 2, "listed": 2, "stale": 1, "written": 1});
    assert_eq!(counts(&run(&world, true).await, "settings"), mended);
    assert_eq!(writes_of(&world), [write(KvVerb::PutBulk, SETTINGS, &["s.example"])]);
    assert_eq!(world.url_under("s.example").unwrap(), "https://i.example.com");
}

#[tokio::test]
async fn a_key_that_a_run_of_one_account_could_not_read_is_left_alone() {
    let world = World::start().await;
    world.settled_with([shop("b", "j", "s.example")]).await;
    world.load([shop("a", "i", "s.example")]);
    world.break_kv(reads(Fault::status(503)).forever());

    for apply in [false, true] {
        let report = run(&world, apply).await;
        assert_eq!(report["settings"]["failed"], 1, "{report}");
        assert_eq!(report["examples"]["missing"], json!(["a-i"]), "{report}");
    }
    assert_eq!(world.url_under("s.example").unwrap(), "https://j.example.com");
}

/// A world in which a/moved has given up old.example.
async fn with_a_moved_shop_id() -> World {
    let world = World::start().await;
    world.settled_with([shop("a", "moved", "old.example")]).await;
    world.load([shop("a", "moved", "new.example")]);
    world
}

#[tokio::test]
async fn a_shop_id_that_was_given_up_is_found_however_late_the_api_key_comes() {
    let world = with_a_moved_shop_id().await;
    world.stack.api_keys.faults().add(Rule::any(Fault::Delay(Duration::from_millis(1_500))));

    run(&world, true).await;

    assert_eq!(world.setting_keys(), ["a-moved", "new.example"]);
}

#[tokio::test]
async fn what_leads_to_a_shop_id_that_was_given_up_stays_while_it_cannot_be_read() {
    let world = with_a_moved_shop_id().await;
    for unreadable in ["a-moved", "old.example"] {
        world.break_kv(Rule::naming("POST", "/bulk/get", unreadable, Fault::status(503)).forever());
        let report = run(&world, true).await;
        assert_ne!(report["settings"]["failed"], 0, "{unreadable}: {report}");
        world.stack.kv.faults().clear();
    }

    run(&world, true).await;

    assert_eq!(world.setting_keys(), ["a-moved", "new.example"]);
}

#[tokio::test]
async fn a_target_that_no_table_can_hold_hides_no_other_that_dangles() {
    let world = World::start().await;
    let long = format!("x-{}", "y".repeat(1_100));
    world.settled_with([pointing("a", "i", "a-gone"), pointing("a", "j", &long)]).await;

    let report = run(&world, false).await;

    assert_eq!(report["complete"], true, "{report}");
    assert_eq!(report["examples"]["dangling"], json!(["a-gone", long]), "{report}");
}

#[tokio::test]
async fn a_run_of_one_account_counts_strangers_under_its_prefix_as_foreign() {
    let world = World::start().await;
    world.settled_with([index("a", "i"), index("a-b", "i")]).await;
    world.stack.kv.put(SETTINGS, "a-stranger", "x", None);
    // Another account's item asks for it, though the predecessor wrote it.
    edit(&world, SETTINGS, "a-b-i", false);

    let report = run(&world, true).await;

    let expected = json!({"desired": 1, "listed": 3, "foreign": 1});
    assert_eq!(counts(&report, "settings"), expected, "{report}");
    assert_eq!(report["examples"]["foreign"], json!(["a-stranger"]));
    assert_eq!(writes_of(&world), []);
}

#[tokio::test]
async fn an_account_whose_orphans_need_several_looks_is_refused_all_of_them() {
    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    for number in 0..6_000 {
        let name = format!("gone-{number:04}");
        let held = held_settings("a", &name);
        world.hold(SETTINGS, &format!("a-{name}"), &held, Writer::Ours);
    }
    for apply in [false, true] {
        let report = run(&world, apply).await;
        assert_eq!(report["settings"]["orphaned"], 6_000, "{report}");
        assert_eq!(report["refused"], json!({"delete": 6_000, "rewrite": 0}), "{report}");
    }
    assert!(world.deletes().is_empty());
}
