//! The table and KV change while a reconcile runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Request;
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::drift::*;
use crate::helpers::*;

/// A version of an index, each with another address.
fn version(number: u32) -> Value {
    let version =
        json!({"shop_id": "s.example", "index_endpoint": format!("https://v{number}.example.com")});
    index_with("a", "i", version)
}

#[tokio::test]
async fn a_change_between_the_scan_and_the_write_is_not_left_overwritten() {
    for (moment, rounds) in
        [("before the read", 1), ("before the write", 2), ("after the write", 2)]
    {
        let world = World::start().await;
        load(&world, [version(1), query_config("a", "i", "q", 1)]);
        let (table, kv) = (world.stack.table.clone(), world.stack.kv.clone());
        let change = move || {
            for item in [version(2), query_config("a", "i", "q", 2)] {
                table.put(&item);
            }
            kv.put(SETTINGS, "a-i", "the stream's", None);
        };
        match moment {
            "before the read" => {
                // A single item is read by another operation than several items.
                let reads = |request: &Request| {
                    matches!(request.operation(), Some("GetItem" | "BatchGetItem"))
                };
                world.stack.table.faults().add(Rule::when(reads, Fault::before(change)));
            }
            "before the write" => {
                world.stack.kv.faults().add(Rule::on("PUT", "/bulk", Fault::before(change)));
            }
            _ => world.stack.kv.faults().add(Rule::on("PUT", "/bulk", Fault::after(change))),
        }

        let report = world.handle(&repair()).await.ok().clone();

        for key in ["a-i", "s.example"] {
            let expected = "https://v2.example.com";
            assert_eq!(world.url_under(key).as_deref(), Some(expected), "{moment}");
        }
        let stored = world.stack.kv.get(QUERY_CONFIGS, &query_config_key("a", "i", "q")).unwrap();
        assert_eq!(stored.json()["boost"], 2, "{moment}");
        assert_eq!(world.puts_done(SETTINGS).len(), rounds, "{moment}");
        assert_eq!(report["settings"]["written"], 2, "{moment}");
        assert_eq!(report["settings"]["failed"], 0, "{moment}");
    }
}

#[tokio::test]
async fn what_still_changes_after_five_rounds_counts_as_failed() {
    let world = World::start().await;
    load(&world, [version(0), index("a", "quiet")]);
    let (table, count) = (world.stack.table.clone(), Arc::new(AtomicU32::new(0)));
    let change = move || table.put(&version(count.fetch_add(1, Ordering::Relaxed) + 1));
    world.stack.kv.faults().add(Rule::on("PUT", "/bulk", Fault::before(change)).forever());

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(world.puts_done(SETTINGS).len(), 5);
    assert_eq!(report["settings"]["failed"], 2);
    assert_eq!(report["settings"]["written"], 1);
    assert_eq!(report["examples"]["failed"], json!(["a-i", "s.example"]));
    let failed = world.logs.of("a key could not be compared or repaired");
    assert_eq!(failed.len(), 2);
    assert!(failed.iter().all(|line| line["error"].as_str().unwrap().contains("still changes")));
}

#[tokio::test]
async fn keys_that_were_written_for_an_item_that_goes_or_moves_meanwhile_are_settled() {
    let world = World::start().await;
    load(&world, [shop("a", "goes", "goes.example"), shop("a", "moves", "moves.example")]);
    let table = world.stack.table.clone();
    let change = move || {
        table.delete("a", "INDEX#goes");
        table.put(&shop("a", "moves", "moved.example"));
    };
    world.stack.kv.faults().add(Rule::on("PUT", "/bulk", Fault::before(change)));

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(world.setting_keys(), ["a-moves"]);
    assert_eq!(world.setting("a-moves").unwrap()["shop_id"], "moved.example");
    assert_eq!(report["settings"]["deleted"], 3);
    assert_eq!(report["settings"]["written"], 1);
    assert_eq!(world.handle(&repair()).await.ok()["settings"]["missing"], 1);
    assert_eq!(world.setting_keys(), ["a-moves", "moved.example"]);
}

#[tokio::test]
async fn a_stale_listing_harms_nothing_that_is_right() {
    let world = World::start().await;
    world
        .settled_with([
            shop("a", "changed", "changed.example"),
            shop("a", "removed", "removed.example"),
            shop("a", "moved", "from.example"),
            query_config("a", "changed", "changed", 1),
            query_config("a", "changed", "removed", 1),
        ])
        .await;
    for namespace in [SETTINGS, QUERY_CONFIGS] {
        world.stack.kv.freeze_listing(namespace);
    }
    world.stack.table.put(&index_with(
        "a",
        "changed",
        json!({"shop_id": "changed.example", "pixel_id": "new"}),
    ));
    world.stack.table.put(&query_config("a", "changed", "changed", 2));
    world.stack.table.put(&shop("a", "new", "new.example"));
    world.stack.table.put(&query_config("a", "changed", "new", 1));
    world.stack.table.delete("a", "INDEX#removed");
    world.stack.table.delete("a", "INDEX#changed#QUERY#removed");
    assert_eq!(world.deliver().await.failures(), NOTHING);
    let right = [SETTINGS, QUERY_CONFIGS].map(|namespace| values(&world, namespace));
    world.forget();

    let report = world.handle(&repair()).await.ok().clone();

    let now = [SETTINGS, QUERY_CONFIGS].map(|namespace| values(&world, namespace));
    assert_eq!(now, right);
    assert_eq!(report["settings"]["deleted"], 0);
    assert_eq!(report["query_configs"]["deleted"], 0);
    assert!(world.stack.kv.log_of(KvVerb::DeleteBulk).is_empty());
    for namespace in [SETTINGS, QUERY_CONFIGS] {
        world.stack.kv.catch_up(namespace);
    }
    assert_eq!(world.handle(&audit()).await.stats.drifted_keys, Some(0));
}

#[tokio::test]
async fn a_listing_that_shows_a_key_before_its_item_was_written_deletes_nothing() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example"), query_config("a", "i", "q", 1)]).await;
    let items = [version(1), query_config("a", "i", "q", 1)];
    world.stack.table.delete("a", "INDEX#i");
    world.stack.table.delete("a", "INDEX#i#QUERY#q");
    let table = world.stack.table.clone();
    let back = move || items.iter().for_each(|item| table.put(item));
    world.stack.kv.faults().add(Rule::on("GET", "/keys", Fault::before(back)));

    let report = world.handle(&repair()).await.ok().clone();

    assert!(world.stack.kv.log_of(KvVerb::DeleteBulk).is_empty());
    assert_eq!(world.setting_keys(), ["a-i", "s.example"]);
    assert_eq!(report["settings"]["orphaned"], 0);
    assert_eq!(report["query_configs"]["deleted"], 0);
}

#[tokio::test]
async fn an_orphan_that_is_asked_for_again_between_look_and_delete_is_written() {
    let world = World::start().await;
    let items = [shop("a", "i", "s.example"), query_config("a", "i", "q", 1), index("z", "other")];
    world.settled_with(items).await;
    world.stack.table.delete("a", "INDEX#i");
    world.stack.table.delete("a", "INDEX#i#QUERY#q");
    for (namespace, item) in
        [(SETTINGS, version(2)), (QUERY_CONFIGS, query_config("a", "i", "q", 2))]
    {
        let table = world.stack.table.clone();
        let path = format!("/{namespace}/bulk/delete");
        let claim = Fault::before(move || table.put(&item));
        world.stack.kv.faults().add(Rule::on("POST", path, claim));
    }

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(world.url_under("a-i").unwrap(), "https://v2.example.com");
    assert_eq!(world.url_under("s.example").unwrap(), "https://v2.example.com");
    let stored = world.stack.kv.get(QUERY_CONFIGS, &query_config_key("a", "i", "q")).unwrap();
    assert_eq!(stored.json()["boost"], 2);
    assert_eq!(report["settings"]["orphaned"], 2);
    assert_eq!(report["settings"]["deleted"], 0);
    assert_eq!(report["query_configs"]["deleted"], 0);
}

#[tokio::test]
async fn an_orphan_that_an_alias_points_at_between_look_and_delete_is_put_back() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example"), index("z", "other")]).await;
    let held = world.stack.kv.snapshot(SETTINGS);
    world.stack.table.delete("a", "INDEX#i");
    let table = world.stack.table.clone();
    let point = move || table.put(&index_with("a", "live", json!({"read_alias": "a-i"})));
    world.stack.kv.faults().add(Rule::on("POST", "/bulk/delete", Fault::before(point)));

    let answered = world.handle(&repair()).await;

    assert_eq!(world.stack.kv.snapshot(SETTINGS), held);
    assert_eq!(answered.stats.deletes_restored, 2);
    assert_eq!(answered.ok()["settings"]["deleted"], 0);
}

#[tokio::test]
async fn an_orphan_that_the_repairs_own_writes_move_to_the_next_page_of_the_listing_is_settled() {
    let world = World::start().await;
    world.hold(SETTINGS, "z-gone", &held_settings("z", "gone"), Writer::Ours);
    for number in 0..999 {
        world.stack.kv.put(SETTINGS, &format!("m-stranger-{number:04}"), "x", None);
    }
    world.stack.kv.put(SETTINGS, "zz-stranger", "x", None);
    load(&world, [index("a", "missing")]);

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(report["settings"]["deleted"], 1, "{report}");
    assert_eq!(world.setting("z-gone"), None);
}

#[tokio::test]
async fn an_orphan_that_was_not_counted_is_not_deleted_however_late_the_listing_shows_it() {
    let world = World::start().await;
    let held = held_settings("a", "gone");
    world.hold(SETTINGS, "a-gone", &held, Writer::Ours);
    let stored = world.stack.kv.get(SETTINGS, "a-gone").unwrap();
    let (kv, listings) = (world.stack.kv.clone(), AtomicU32::new(0));
    // It is listed, then not when its name is asked for, then again.
    let next = move || match listings.fetch_add(1, Ordering::Relaxed) {
        1 => drop(kv.delete(SETTINGS, "a-gone")),
        _ => kv.put(SETTINGS, "a-gone", &stored.value, stored.metadata.clone()),
    };
    world.stack.kv.faults().add(Rule::on("GET", "/settings/keys", Fault::before(next)).forever());

    world.handle(&repair()).await.ok();

    assert!(world.stack.kv.log_of(KvVerb::DeleteBulk).is_empty(), "the table has no index item");
}

#[tokio::test]
async fn what_is_written_after_the_orphans_were_looked_at_is_settled_if_its_item_moves_meanwhile() {
    let world = World::start().await;
    let slow = |shop_id: &str| index_with("a", "slow", json!({"shop_id": shop_id, "cell": "slow"}));
    load(&world, [slow("s1.example"), index("b", "quick")]);
    let late = Fault::Delay(Duration::from_millis(1_500));
    world.stack.api_keys.break_cell("slow", late);
    let table = world.stack.table.clone();
    let moves = move || table.put(&slow("s2.example"));
    let written = Rule::naming("PUT", "/settings/bulk", "s1.example", Fault::after(moves));
    world.stack.kv.faults().add(written);

    world.handle(&repair()).await.ok();

    assert_eq!(world.setting("s1.example"), None);
}
