//! Records that are so old that KV may hold something newer: the table decides.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::stack::{QUERY_CONFIGS, SETTINGS};
use testbed::stream::event;

use crate::helpers::*;

/// The start of an invocation whose clock is stopped, in seconds since the epoch.
const BEGAN: u64 = 1_795_183_205;

/// An index and its query config. Each holds the number of its version.
fn version(account: &str, number: u32) -> [Value; 2] {
    let pixel = json!({"pixel_id": number.to_string()});
    [index_with(account, "i", pixel), query_config(account, "i", "q", number)]
}

/// The records of a version, `number` the first's sequence number.
fn records(account: &str, version_number: u32, number: u32) -> Vec<Value> {
    (number..).zip(version(account, version_number)).map(|(n, item)| written(n, &item)).collect()
}

/// The versions that KV holds of the index and of its query config.
fn held(world: &World, account: &str) -> [Option<u32>; 2] {
    let setting = world.setting(&format!("{account}-i"));
    let config = world.query_config(account, "i", "q");
    [
        setting.map(|value| value["pixel_id"].as_str().unwrap().parse().unwrap()),
        config.map(|value| u32::try_from(value["boost"].as_u64().unwrap()).unwrap()),
    ]
}

#[tokio::test]
async fn a_record_is_late_when_it_is_more_than_a_minute_old_as_the_invocation_begins() {
    for (age, late) in
        [(-3_600, false), (0, false), (59, false), (60, false), (61, true), (86_400_000, true)]
    {
        let world = World::start().await;
        world.clock.stop_at(UNIX_EPOCH + Duration::from_secs(BEGAN));
        world.load(version("a", 2));
        // The time after the start does not count.
        let clock = world.clock.clone();
        let run_on = move || clock.stop_at(UNIX_EPOCH + Duration::from_secs(BEGAN + 3_600));
        world.stack.api_keys.faults().add(Rule::any(Fault::before(run_on)));
        let created = i64::try_from(BEGAN).unwrap() - age;
        let records = records("a", 1, 1).into_iter();

        world.batch_ok(records.map(|record| created_at(record, json!(created)))).await;
        assert_eq!(held(&world, "a"), [Some(if late { 2 } else { 1 }); 2], "{age} s");
        assert_eq!(world.stack.table.log().is_empty(), !late, "{age} s");
    }
}

#[tokio::test]
async fn the_deciding_record_says_whether_an_item_is_late() {
    for (first, second, is_late) in [(600, 0, false), (0, 600, true)] {
        let world = World::start().await;
        world.load(version("a", 3));
        let old = records("a", 1, 1).into_iter().map(|record| ago(first, record));
        let new = records("a", 2, 3).into_iter().map(|record| ago(second, record));

        let answered = world.batch_ok(old.chain(new)).await;
        assert_eq!(held(&world, "a"), [Some(if is_late { 3 } else { 2 }); 2]);
        assert_eq!(world.stack.table.log().is_empty(), !is_late);
        assert_eq!((answered.stats.superseded, answered.stats.exported), (2, 2));
    }
}

#[tokio::test]
async fn the_shop_ids_of_late_records_that_the_table_no_longer_asks_for_are_settled() {
    let world = World::start().await;
    for key in ["a-i", "first.example", "second.example"] {
        world.hold(SETTINGS, key, &held_settings("a", "i"), Writer::Ours);
    }
    world.hold(SETTINGS, "stranger.example", &held_settings("z", "i"), Writer::OtherEnvironment);
    world.load([index_with("a", "i", json!({"shop_id": "third.example", "pixel_id": "new"}))]);
    let shop_ids = ["stranger.example", "first.example", "second.example"];
    let records = (1..)
        .zip(shop_ids)
        .map(|(number, shop_id)| late(written(number, &shop("a", "i", shop_id))));

    world.batch_ok(records).await;
    assert_eq!(world.setting_keys(), ["a-i", "stranger.example", "third.example"]);
    for key in ["a-i", "third.example"] {
        assert_eq!(world.setting(key).unwrap()["pixel_id"], "new");
    }
}

#[tokio::test]
async fn the_shop_ids_of_a_late_records_gone_item_are_settled_and_its_index_id_waits() {
    for (alias, withheld) in [(json!({}), 0), (json!({"read_alias": "a-i"}), 1)] {
        let world = World::start().await;
        world.settled_with([shop("a", "i", "s.example")]).await;
        world.load([index_with("b", "live", alias)]);
        world.stack.table.delete("a", "INDEX#i");
        let removal = world.new_records();

        let answered = world.batch_ok([late(written(1, &shop("a", "i", "s.example")))]).await;
        assert_eq!(world.setting("s.example").is_some(), withheld > 0);
        assert!(world.setting("a-i").is_some());
        assert_eq!(answered.stats.deletes_withheld, withheld);
        assert_eq!(answered.stats.superseded, 1);

        world.batch_ok(removal.into_iter().map(late)).await;
        assert_eq!(world.setting("a-i").is_some(), withheld > 0);
    }
}

#[tokio::test]
async fn where_the_tables_version_lacks_the_cell_that_it_needs_the_late_image_decides() {
    // The image says which cell to ask, and the table no longer does.
    let world = World::with_env(&[("DEFAULT_CELL", "")]).await;
    world.load([version("a", 2)[0].clone()]);
    let image = index_with("a", "i", json!({"cell": "c1", "pixel_id": "1"}));

    let answered = world.batch_ok([late(written(1, &image))]).await;
    assert_eq!(held(&world, "a"), [Some(1), None]);
    assert_eq!((answered.stats.exported, answered.stats.rejected), (1, 0));
}

#[tokio::test]
async fn where_the_table_cannot_be_read_the_late_image_decides_with_a_warning() {
    for fault in
        [denied(), Fault::throttled(), Fault::Unprocessed(0), Fault::WrongJson, Fault::Hang]
    {
        let world = World::impatient().await;
        world.load(version("a", 2));
        world.load(version("b", 2));
        world.break_table(item_reads(fault).forever());
        let records = records("a", 1, 1).into_iter().chain(records("b", 1, 3));

        world.batch_ok(records.map(late)).await;
        assert_eq!(held(&world, "a"), [Some(1), Some(1)]);
        assert_eq!(held(&world, "b"), [Some(1), Some(1)]);
        assert!(!world.logs.warnings().is_empty(), "{:?}", world.logs.lines());
    }
}

#[tokio::test]
async fn a_thousand_late_records_of_five_hundred_items_take_ten_reads_and_one_write_a_key() {
    let world = World::start().await;
    let items = |version: u32| {
        (0..250).flat_map(move |n| {
            let name = format!("i{n}");
            let more = json!({"shop_id": format!("s{n}.example"), "pixel_id": version.to_string()});
            [index_with("a", &name, more), query_config("a", &name, "q", version)]
        })
    };
    world.load(items(3));
    let records = (1..).zip(items(1).chain(items(2)));
    let records = records.map(|(number, item)| late(written(number, &item)));

    let answered = world.batch_ok(records).await;
    assert_eq!((answered.stats.superseded, answered.stats.exported), (500, 500));
    assert!(world.stack.table.log().iter().all(|read| read.consistent));
    let operations = world.stack.table.operations();
    assert_eq!(operations.keys().collect::<Vec<_>>(), ["BatchGetItem"]);
    assert!(operations["BatchGetItem"] <= 10, "{operations:?}");
    for (namespace, count) in [(SETTINGS, 500), (QUERY_CONFIGS, 250)] {
        let mut keys: Vec<String> =
            world.puts(namespace).into_iter().flat_map(|put| put.keys).collect();
        let sent = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!((sent, keys.len()), (count, count), "{namespace}");
    }
    let newest = |stored: &testbed::kv::Stored| {
        stored.json()["pixel_id"] == "3" || stored.json()["boost"] == 3
    };
    for namespace in [SETTINGS, QUERY_CONFIGS] {
        assert!(world.stack.kv.snapshot(namespace).values().all(newest), "{namespace}");
    }
}

#[tokio::test]
async fn a_creation_time_that_cannot_be_read_counts_as_in_time_and_rejects_nothing() {
    let unreadable = [
        r#""2026-11-20T14:00:00Z""#,
        r#""1795183201""#,
        "{}",
        r#"{"N":"1795183201"}"#,
        "[]",
        "[1795183201]",
        "true",
        "null",
        "-1",
        "-1795183201",
        "-1e300",
        "-1e400",
        "253402300800",
        "99999999999999999999999",
        "1e300",
        "1e400",
    ];
    for time in unreadable {
        let world = World::start().await;
        world.load(version("a", 2));
        let records = records("a", 1, 1).into_iter();
        let event = event(records.map(|record| created_at(record, json!("CREATED")))).to_string();

        let answered = world.handle_text(&event.replace(r#""CREATED""#, time)).await;

        assert_eq!(answered.failures(), NOTHING, "{time}");
        assert_eq!((answered.stats.exported, answered.stats.rejected), (2, 0), "{time}");
        assert_eq!(held(&world, "a"), [Some(1), Some(1)], "{time}");
        assert!(world.stack.table.log().is_empty(), "{time}");
        for namespace in [SETTINGS, QUERY_CONFIGS] {
            for stored in world.stack.kv.snapshot(namespace).into_values() {
                let metadata = stored.metadata.unwrap();
                assert_eq!(metadata["environment"], "local");
                assert_eq!(metadata.get("changed_at"), None, "{time}");
            }
        }
    }
}
