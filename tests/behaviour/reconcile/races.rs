//! The table and KV change while a reconcile runs.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use crate::helpers::*;

/// A version of an index, each with another address.
fn version(number: u32) -> Value {
    let address = json!({"index_endpoint": format!("https://v{number}.example.com")});
    with(shop("a", "i", "s.example"), address)
}

/// Expects the second version of the index and of its query config in KV.
#[track_caller]
fn assert_second_version(world: &World) {
    for key in ["a-i", "s.example"] {
        assert_eq!(world.url_under(key).as_deref(), Some("https://v2.example.com"), "{key}");
    }
    assert_eq!(world.query_config("a", "i", "q").unwrap()["boost"], 2);
}

#[tokio::test]
async fn a_change_between_the_scan_and_the_write_is_not_left_overwritten() {
    for (moment, rounds) in
        [("before the read", 1), ("before the write", 2), ("after the write", 2)]
    {
        let _row = row(moment);
        let world = World::start().await;
        world.load([version(1), query_config("a", "i", "q", 1)]);
        let kv = world.stack.kv.clone();
        let change = move |table: &testbed::table::Table| {
            table.put(&version(2));
            table.put(&query_config("a", "i", "q", 2));
            kv.put(SETTINGS, "a-i", "the stream's", None);
        };
        match moment {
            "before the read" => world.break_table(item_reads(world.before(change))),
            "before the write" => world.break_kv(writes(world.before(change))),
            _ => world.break_kv(writes(world.after(change))),
        }

        let report = world.handle(&repair()).await.ok().clone();

        assert_second_version(&world);
        assert_eq!(world.puts_done(SETTINGS).len(), rounds);
        assert_eq!(report["settings"]["written"], 2);
        assert_eq!(report["settings"]["failed"], 0);
    }
}

#[tokio::test]
async fn what_still_changes_after_five_rounds_counts_as_failed() {
    let world = World::start().await;
    world.load([version(0), index("a", "quiet")]);
    let count = AtomicU32::new(1);
    let change = world.before(move |table| {
        table.put(&version(count.fetch_add(1, Ordering::Relaxed)));
    });
    world.break_kv(writes(change).forever());

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
    for item in [
        with(shop("a", "changed", "changed.example"), json!({"pixel_id": "new"})),
        query_config("a", "changed", "changed", 2),
        shop("a", "new", "new.example"),
        query_config("a", "changed", "new", 1),
    ] {
        world.stack.table.put(&item);
    }
    world.stack.table.delete("a", "INDEX#removed");
    world.stack.table.delete("a", "INDEX#changed#QUERY#removed");
    world.deliver_ok().await;
    let right = world.values();
    world.forget();

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(world.values(), right);
    assert_eq!(report["settings"]["deleted"], 0);
    assert_eq!(report["query_configs"]["deleted"], 0);
    assert!(world.deletes().is_empty());
    for namespace in [SETTINGS, QUERY_CONFIGS] {
        world.stack.kv.catch_up(namespace);
    }
    assert_eq!(world.handle(&audit()).await.stats.drifted_keys, Some(0));
}

/// A world that has lost a/i and its query config, and still holds their keys.
async fn with_orphans() -> World {
    let world = World::start().await;
    let items = [shop("a", "i", "s.example"), query_config("a", "i", "q", 1), index("z", "other")];
    world.settled_with(items).await;
    world.stack.table.delete("a", "INDEX#i");
    world.stack.table.delete("a", "INDEX#i#QUERY#q");
    world
}

#[tokio::test]
async fn a_listing_that_shows_a_key_before_its_item_was_written_deletes_nothing() {
    let world = with_orphans().await;
    let back = world.before(|table| {
        table.put(&version(1));
        table.put(&query_config("a", "i", "q", 1));
    });
    world.break_kv(listings(back));

    let report = world.handle(&repair()).await.ok().clone();

    assert!(world.deletes().is_empty());
    assert_eq!(world.setting_keys(), ["a-i", "s.example", "z-other"]);
    assert_eq!(report["settings"]["orphaned"], 0);
    assert_eq!(report["query_configs"]["deleted"], 0);
}

#[tokio::test]
async fn an_orphan_that_is_asked_for_again_before_the_look_is_left_to_its_own_record() {
    let world = with_orphans().await;
    let back = world.before(|table| table.put(&query_config("a", "i", "q", 2)));
    world.break_table(item_reads(back));

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(world.query_config("a", "i", "q").unwrap()["boost"], 1);
    assert_eq!(report["query_configs"]["orphaned"], 1, "{report}");
    for class in ["written", "deleted", "failed"] {
        assert_eq!(report["query_configs"][class], 0, "{report}");
    }
}

#[tokio::test]
async fn an_orphan_that_is_asked_for_again_between_look_and_delete_is_written() {
    let world = with_orphans().await;
    for (namespace, item) in
        [(SETTINGS, version(2)), (QUERY_CONFIGS, query_config("a", "i", "q", 2))]
    {
        let claim = world.before(move |table| table.put(&item));
        world.break_kv(Rule::on("POST", format!("/{namespace}/bulk/delete"), claim));
    }

    let report = world.handle(&repair()).await.ok().clone();

    assert_second_version(&world);
    assert_eq!(report["settings"]["orphaned"], 2);
    assert_eq!(report["settings"]["deleted"], 0);
    assert_eq!(report["query_configs"]["deleted"], 0);
}

#[tokio::test]
async fn an_orphan_that_an_alias_points_at_between_look_and_delete_is_put_back() {
    let world = with_orphans().await;
    let held = world.stack.kv.snapshot(SETTINGS);
    let point = world.before(|table| table.put(&pointing("a", "live", "a-i")));
    world.break_kv(Rule::on("POST", format!("/{SETTINGS}/bulk/delete"), point));

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
    world.load([index("a", "missing")]);

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(report["settings"]["deleted"], 1, "{report}");
    assert_eq!(world.setting("z-gone"), None);
}

#[tokio::test]
async fn an_orphan_that_was_not_counted_is_not_deleted_however_late_the_listing_shows_it() {
    let world = World::start().await;
    world.hold(SETTINGS, "a-gone", &held_settings("a", "gone"), Writer::Ours);
    let stored = world.stack.kv.get(SETTINGS, "a-gone").unwrap();
    let (kv, listing) = (world.stack.kv.clone(), AtomicU32::new(0));
    // It is listed, then not when its name is asked for, then again.
    let next = move || match listing.fetch_add(1, Ordering::Relaxed) {
        1 => drop(kv.delete(SETTINGS, "a-gone")),
        _ => kv.put(SETTINGS, "a-gone", &stored.value, stored.metadata.clone()),
    };
    world.break_kv(Rule::on("GET", "/settings/keys", Fault::before(next)).forever());

    world.handle(&repair()).await.ok();

    assert!(world.deletes().is_empty(), "the table has no index item");
}

#[tokio::test]
async fn what_is_written_after_the_orphans_were_looked_at_is_settled_if_its_item_moves_meanwhile() {
    let world = World::start().await;
    let slow = |shop_id: &str| with(in_cell("a", "slow", "slow"), json!({"shop_id": shop_id}));
    world.load([slow("s1.example"), index("b", "quick")]);
    world.stack.api_keys.break_cell("slow", Fault::Delay(Duration::from_millis(1_500)));
    let moves = world.after(move |table| table.put(&slow("s2.example")));
    world.break_kv(Rule::naming("PUT", "/settings/bulk", "s1.example", moves));

    world.handle(&repair()).await.ok();

    assert_eq!(world.setting("s1.example"), None);
}

#[tokio::test]
async fn what_a_repair_wrote_goes_with_its_item_unless_that_is_more_than_the_brake_lets_through() {
    for (query_configs, refused) in [(100, 0), (101, 101)] {
        let _row = row(query_configs);
        let world = World::start().await;
        let configs = || (0..query_configs).map(|n| query_config("a", "i", &n.to_string(), 1));
        world.load(configs().chain([index("a", "i")]));
        let gone: Vec<Value> = configs().collect();
        let delete = world.after(move |table| {
            for item in &gone {
                table.delete("a", item["sk"].as_str().unwrap());
            }
        });
        world.break_kv(Rule::on("PUT", "/query-configs/bulk", delete));

        let report = world.handle(&repair()).await.ok().clone();

        assert_eq!(world.query_config_keys().len(), refused, "{report}");
        let refused = (refused > 0).then(|| json!({"delete": refused, "rewrite": 0}));
        assert_eq!(report.get("refused").cloned(), refused);
        assert_eq!(report["complete"], refused.is_none());
    }
}

#[tokio::test]
async fn an_item_that_becomes_invalid_while_it_is_written_is_rejected_and_keeps_its_keys() {
    let world = World::start().await;
    world.load([version(1)]);
    world.break_kv(writes(world.after(|table| table.put(&broken("a", "i")))));

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(report["settings"]["rejected"], 1, "{report}");
    assert_eq!(report["examples"]["rejected"], json!(["a-i"]));
    assert_eq!(world.url_under("a-i").as_deref(), Some("https://v1.example.com"));
}
