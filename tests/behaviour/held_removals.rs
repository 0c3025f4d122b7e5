//! A flood of removals is held: none of them is begun, and everything else of the batch is done.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use testbed::faults::Fault;

use crate::helpers::*;

/// A world that carries out three removals in ten minutes, with five indexes that are gone from the
/// table.
async fn world() -> World {
    let world = World::with_env(&[("REMOVALS_UP_TO", "3")]).await;
    world.settled_with((1..=5).map(|n| index("a", &format!("i{n}")))).await;
    for n in 1..=5 {
        world.stack.table.delete("a", &format!("INDEX#i{n}"));
    }
    world.forget();
    world
}

fn removal(n: u32) -> Value {
    removed(n, "a", &format!("INDEX#i{n}"))
}

/// Delivers the removals; answers with how many were held.
async fn held(world: &World, removals: impl IntoIterator<Item = u32>) -> u64 {
    let answered = world.batch_ok(removals.into_iter().map(removal)).await;
    answered.counted("RemovalsHeld").unwrap()
}

#[tokio::test]
async fn a_batch_that_would_go_beyond_begins_none_of_its_removals_and_does_the_rest() {
    let world = world().await;
    let records = [
        removal(1),
        written(6, &index("a", "new")),
        removal(2),
        removal(3),
        removal(4),
        removed(7, "a", "INDEX#i1#QUERY#q"),
    ];

    let answered = world.batch_ok(records).await;

    assert_eq!(world.setting_keys(), ["a-i1", "a-i2", "a-i3", "a-i4", "a-i5", "a-new"]);
    assert_eq!(answered.counted("RemovalsHeld"), Some(4));
    assert_eq!(answered.counted("RecordsExported"), Some(2));
    let [line] = &world.logs.at("ERROR")[..] else { panic!("{}", world.logs.text()) };
    assert_eq!((&line["removals"], &line["items"]), (&json!(4), &json!("a/i1, a/i2, a/i3, a/i4")));
}

#[tokio::test]
async fn what_was_carried_out_in_ten_minutes_counts_once_each_however_often_it_is_delivered() {
    let world = world().await;
    let start = SystemTime::now();
    world.clock.stop_at(start);
    assert_eq!(held(&world, [1, 2]).await, 0);
    assert_eq!(held(&world, [1, 2]).await, 0);
    assert_eq!(held(&world, [3, 4]).await, 2, "that would be four");
    assert_eq!(held(&world, [2, 3]).await, 0, "and that is three");
    assert_eq!(world.setting_keys(), ["a-i4", "a-i5"]);
    world.clock.stop_at(start + Duration::from_secs(599));
    assert_eq!(held(&world, [4]).await, 1);
    world.clock.stop_at(start + Duration::from_secs(600));
    assert_eq!(held(&world, [4, 5]).await, 0, "ten minutes later");
    assert_eq!(world.setting_keys(), NOTHING);
}

#[tokio::test]
async fn a_removal_that_failed_counts_when_it_is_done() {
    let world = world().await;
    world.break_table(scans(Fault::status(403)).forever());
    assert_eq!(world.batch([1, 2, 3].map(removal)).await.failures().len(), 3);
    world.stack.table.faults().clear();
    assert_eq!(held(&world, [3, 4, 5]).await, 0);
    assert_eq!(held(&world, [1]).await, 1);
}

#[tokio::test]
async fn with_0_every_removal_is_held_and_names_are_up_to_20() {
    let world = World::with_env(&[("REMOVALS_UP_TO", "0")]).await;
    let answered = world.batch((10..35).map(removal)).await;

    assert_eq!(answered.counted("RemovalsHeld"), Some(25));
    let items = world.logs.lines()[0]["items"].as_str().unwrap().to_owned();
    assert_eq!((items.split(", ").count(), &items[..5]), (20, "a/i10"));
    assert!(world.stack.table.log().is_empty(), "nothing is looked at");
}

#[tokio::test]
async fn late_records_of_items_that_are_gone_remove_no_flood_either() {
    let world = World::with_env(&[("REMOVALS_UP_TO", "1")]).await;
    let shops = [1, 2].map(|n| shop("a", &format!("i{n}"), &format!("s{n}.example")));
    world.settled_with(shops.clone()).await;
    for n in 1..=2 {
        world.stack.table.delete("a", &format!("INDEX#i{n}"));
    }
    let records = (1..).zip(&shops).map(|(n, shop)| late(written(n, shop)));

    let answered = world.batch_ok(records).await;

    assert_eq!(answered.counted("RemovalsHeld"), Some(2));
    assert_eq!(world.setting_keys(), ["a-i1", "a-i2", "s1.example", "s2.example"]);

    let answered = world.batch([late(written(1, &shops[0])), removal(1)]).await;
    assert_eq!(answered.counted("RemovalsHeld"), Some(0), "one item counts once");
    assert_eq!(world.setting_keys(), ["a-i2", "s2.example"]);
}
