//! A run of one account.

use std::time::Duration;

use serde_json::json;
use testbed::faults::{Fault, Rule};
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::drift::*;
use crate::helpers::*;

#[tokio::test]
async fn a_run_of_one_account_touches_no_key_of_another() {
    let world = World::start().await;
    let accounts = ["a", "a-b", "b"];
    let names = |account: &str| [format!("{account}.lost"), format!("{account}.orphan")];
    let items = accounts.into_iter().flat_map(|account| {
        let [lost, orphan] = names(account);
        [
            shop(account, "lost", &lost),
            shop(account, "orphan", &orphan),
            query_config(account, "lost", "lost", 1),
            query_config(account, "lost", "orphan", 1),
        ]
    });
    world.settled_with(items).await;
    for account in accounts {
        let [lost, _] = names(account);
        world.stack.kv.delete(SETTINGS, &lost);
        edit(&world, SETTINGS, &format!("{account}-lost"), false);
        world.stack.kv.delete(QUERY_CONFIGS, &query_config_key(account, "lost", "lost"));
        world.stack.table.delete(account, "INDEX#orphan");
        world.stack.table.delete(account, "INDEX#lost#QUERY#orphan");
    }
    world.stack.kv.put(SETTINGS, "stranger", "x", None);
    world.forget();

    let answered = world.handle(&of_account("a", true)).await;

    let lost = query_config_key("a", "lost", "lost");
    let orphan = query_config_key("a", "lost", "orphan");
    assert_eq!(
        writes(&world),
        [
            write(KvVerb::PutBulk, QUERY_CONFIGS, &[lost.as_str()]),
            write(KvVerb::PutBulk, SETTINGS, &["a-lost", "a.lost"]),
            write(KvVerb::DeleteBulk, QUERY_CONFIGS, &[orphan.as_str()]),
            write(KvVerb::DeleteBulk, SETTINGS, &["a-orphan", "a.orphan"]),
        ]
    );
    assert_eq!(
        counts(answered.ok(), "settings"),
        json!({"desired": 2, "listed": 6, "missing": 1, "stale": 1, "orphaned": 2, "written": 2, "deleted": 2}),
        "a-b's keys begin like a's, and are listed with them"
    );
    assert_eq!(
        counts(answered.ok(), "query_configs"),
        json!({"desired": 1, "listed": 2, "missing": 1, "orphaned": 1, "written": 1, "deleted": 1})
    );
}

/// So many shops of `a` whose keys are all stale, and one of `b`.
async fn with_stale_shops_of_a(count: usize) -> World {
    let world = World::start().await;
    let names: Vec<String> = (0..count).map(|number| format!("i{number:03}")).collect();
    let shops = names.iter().map(|name| shop("a", name, &format!("{name}.example")));
    world.settled_with(shops.chain([shop("b", "j", "s.example")])).await;
    for key in names.iter().flat_map(|name| [format!("a-{name}"), format!("{name}.example")]) {
        edit(&world, SETTINGS, &key, false);
    }
    world
}

#[tokio::test]
async fn a_repair_of_one_account_counts_what_it_has_rewritten_once() {
    let world = with_stale_shops_of_a(300).await;
    // The key is contested: KV still names the other account for it.
    load(&world, [shop("a", "more", "s.example"), index("b", "j")]);

    for apply in [false, true] {
        let report = world.handle(&of_account("a", apply)).await.ok().clone();
        assert_eq!(report["settings"]["stale"], 601, "{report}");
        assert_eq!(report.get("refused"), None, "{report}");
    }
    assert_eq!(world.url_under("s.example").unwrap(), "https://more.example.com");
}

#[tokio::test]
async fn a_run_of_one_account_leaves_a_contested_key_with_the_account_that_kv_names() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example"), shop("b", "j", "s.example")]).await;
    assert_eq!(world.url_under("s.example").unwrap(), "https://j.example.com");

    for apply in [false, true] {
        let report = world.handle(&of_account("a", apply)).await.ok().clone();
        assert_eq!(
            counts(&report, "settings"),
            json!({"desired": 2, "listed": 2, "conflicting": 1})
        );
    }
    assert_eq!(writes(&world), []);

    // Once the other account no longer asks for it, it belongs to this one.
    load(&world, [index("b", "j")]);
    let report = world.handle(&of_account("a", false)).await.ok().clone();
    assert_eq!(report["examples"]["stale"], json!(["s.example"]));
    assert_eq!(writes(&world), []);
    let report = world.handle(&of_account("a", true)).await.ok().clone();
    assert_eq!(
        counts(&report, "settings"),
        json!({"desired": 2, "listed": 2, "stale": 1, "written": 1})
    );
    assert_eq!(writes(&world), [write(KvVerb::PutBulk, SETTINGS, &["s.example"])]);
    assert_eq!(world.url_under("s.example").unwrap(), "https://i.example.com");
}

#[tokio::test]
async fn a_key_that_a_run_of_one_account_could_not_read_is_left_alone() {
    let world = World::start().await;
    world.settled_with([shop("b", "j", "s.example")]).await;
    load(&world, [shop("a", "i", "s.example")]);
    let unreadable = Rule::on("POST", "/settings/bulk/get", Fault::status(503)).forever();
    world.stack.kv.faults().add(unreadable);

    for apply in [false, true] {
        let report = world.handle(&of_account("a", apply)).await.ok().clone();
        assert_eq!(report["settings"]["failed"], 1, "{report}");
        assert_eq!(report["examples"]["missing"], json!(["a-i"]), "{report}");
    }
    assert_eq!(world.url_under("s.example").unwrap(), "https://j.example.com");
}

#[tokio::test]
async fn a_shop_id_that_was_given_up_is_found_however_late_the_api_key_comes() {
    let world = World::start().await;
    world.settled_with([shop("a", "moved", "old.example")]).await;
    load(&world, [shop("a", "moved", "new.example")]);
    let late = Fault::Delay(Duration::from_millis(1_500));
    world.stack.api_keys.faults().add(Rule::any(late));

    world.handle(&of_account("a", true)).await.ok();

    assert_eq!(world.setting_keys(), ["a-moved", "new.example"]);
}

#[tokio::test]
async fn a_target_that_no_table_can_hold_hides_no_other_that_dangles() {
    let world = World::start().await;
    let long = format!("x-{}", "y".repeat(1_100));
    let pointing = [("i", "a-gone"), ("j", long.as_str())];
    let items = pointing.map(|(name, target)| index_with("a", name, json!({"read_alias": target})));
    world.settled_with(items).await;

    let report = world.handle(&of_account("a", false)).await.ok().clone();

    assert_eq!(report["complete"], true, "{report}");
    assert_eq!(report["examples"]["dangling"], json!(["a-gone", long]), "{report}");
}

#[tokio::test]
async fn what_leads_to_a_shop_id_that_was_given_up_stays_while_it_cannot_be_read() {
    let world = World::start().await;
    world.settled_with([shop("a", "moved", "old.example")]).await;
    load(&world, [shop("a", "moved", "new.example")]);
    let reads = |key: &'static str| {
        Rule::naming("POST", "/settings/bulk/get", key, Fault::status(503)).forever()
    };
    for unreadable in ["a-moved", "old.example"] {
        world.stack.kv.faults().add(reads(unreadable));
        let report = world.handle(&of_account("a", true)).await.ok().clone();
        assert_ne!(report["settings"]["failed"], 0, "{unreadable}: {report}");
        world.stack.kv.faults().clear();
    }

    world.handle(&of_account("a", true)).await.ok();

    assert_eq!(world.setting_keys(), ["a-moved", "new.example"]);
}

#[tokio::test]
async fn contested_keys_are_not_rewritten_where_the_stale_ones_are_refused() {
    let world = with_stale_shops_of_a(501).await;
    load(&world, [shop("a", "more", "s.example"), index("b", "j")]);

    for apply in [false, true] {
        let report = world.handle(&of_account("a", apply)).await.ok().clone();
        assert_eq!(report["refused"], json!({"delete": 0, "rewrite": 1_003}), "{report}");
    }
    assert_eq!(world.url_under("s.example").unwrap(), "https://j.example.com");
}

#[tokio::test]
async fn a_run_of_one_account_counts_strangers_under_its_prefix_as_foreign() {
    let world = World::start().await;
    world.settled_with([index("a", "i"), index("a-b", "i")]).await;
    world.stack.kv.put(SETTINGS, "a-stranger", "x", None);
    // Another account's item asks for it, though the predecessor wrote it.
    edit(&world, SETTINGS, "a-b-i", false);

    let report = world.handle(&of_account("a", true)).await.ok().clone();

    let expected = json!({"desired": 1, "listed": 3, "foreign": 1});
    assert_eq!(counts(&report, "settings"), expected, "{report}");
    assert_eq!(report["examples"]["foreign"], json!(["a-stranger"]));
    assert_eq!(writes(&world), []);
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
        let report = world.handle(&of_account("a", apply)).await.ok().clone();
        assert_eq!(report["settings"]["orphaned"], 6_000, "{report}");
        assert_eq!(report["refused"], json!({"delete": 6_000, "rewrite": 0}), "{report}");
    }
    assert!(world.stack.kv.log_of(KvVerb::DeleteBulk).is_empty());
}
