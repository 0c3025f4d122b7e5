//! A record says which item changed. The table says what the item is now.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::Fault;
use testbed::stack::SETTINGS;

use crate::helpers::*;

/// An index and its query config. Each holds the number of its version.
fn version(number: u32) -> [Value; 2] {
    let pixel = json!({"pixel_id": number.to_string()});
    [index_with("a", "i", pixel), query_config("a", "i", "q", number)]
}

/// The records of a version.
fn records(number: u32) -> Vec<Value> {
    all_written(&version(number))
}

/// The versions that KV holds of the index and of its query config.
fn held(world: &World) -> [Option<u32>; 2] {
    let setting = world.setting("a-i").map(|value| value["pixel_id"].as_str().unwrap().parse());
    let config = world.query_config("a", "i", "q").map(|value| value["boost"].as_u64().unwrap());
    [setting.map(Result::unwrap), config.map(|boost| u32::try_from(boost).unwrap())]
}

#[tokio::test]
async fn the_table_wins_where_it_differs_from_the_image() {
    let world = World::start().await;
    world.load(version(2));

    let answered = world.batch_ok(records(1)).await;

    assert_eq!(held(&world), [Some(2); 2]);
    assert_eq!(answered.counted("RecordsExported"), 2);
    assert!(world.stack.table.log().iter().all(|read| read.consistent));
    assert!(world.logs.warnings().is_empty());
}

#[tokio::test]
async fn the_image_stands_in_with_a_warning_where_the_table_cannot_be_read() {
    let world = World::start().await;
    world.load(version(2));
    world.break_table(item_reads(denied()).forever());

    world.batch_ok(records(1)).await;

    assert_eq!(held(&world), [Some(1); 2]);
    let warnings = "of each namespace's first read and second";
    assert_eq!(world.logs.warnings().len(), 4, "{warnings}: {}", world.logs.text());
}

#[tokio::test]
async fn the_image_stands_in_after_5_s_for_a_table_that_answers_after_20_s() {
    let world = World::start().await;
    world.load(version(2));
    world.break_table(item_reads(Fault::Delay(Duration::from_secs(20))).times(1));

    world.batch_ok([records(1).remove(0)]).await;

    // The second read is quick: what the table has is written over the image.
    assert_eq!(world.pairs_done(SETTINGS), [1, 1]);
    assert_eq!(held(&world)[0], Some(2));
}

#[tokio::test]
async fn a_second_read_that_fails_leaves_the_item_exported_with_a_warning() {
    let world = World::start().await;
    world.load(version(1));
    world.break_table(item_reads(denied()).after(1).forever());

    let answered = world.batch_ok([records(1).remove(0)]).await;

    assert_eq!(held(&world)[0], Some(1));
    assert_eq!(answered.counted("RecordsExported"), 1);
    assert_eq!(world.logs.warnings().len(), 1, "{}", world.logs.text());
}
