//! A record says which item changed. The table says what the item is now.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
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
    for age in [0, 600] {
        let world = World::start().await;
        world.load(version(2));

        let answered = world.batch_ok(records(1).into_iter().map(|record| ago(age, record))).await;

        assert_eq!(held(&world), [Some(2); 2], "{age} s old");
        assert_eq!(answered.counted("RecordsExported"), 2);
        assert!(world.stack.table.log().iter().all(|read| read.consistent));
        assert!(world.logs.warnings().is_empty());
    }
}

#[tokio::test]
async fn the_image_stands_in_for_an_item_that_the_table_does_not_have() {
    let world = World::start().await;

    world.batch_ok(records(1).into_iter().chain(records(2))).await;

    assert_eq!(held(&world), [Some(2); 2], "the last image of each item");
    assert!(world.logs.warnings().is_empty());
}

#[tokio::test]
async fn the_image_stands_in_with_a_warning_where_the_table_cannot_be_read() {
    for (name, fault) in [
        ("denied", denied()),
        ("throttled", Fault::throttled()),
        ("left unprocessed", Fault::Unprocessed(0)),
        ("other JSON", Fault::WrongJson),
    ] {
        let _row = row(name);
        let world = World::start().await;
        world.load(version(2));
        world.break_table(item_reads(fault).forever());

        world.batch_ok(records(1)).await;

        assert_eq!(held(&world), [Some(1); 2]);
        assert!(!world.logs.warnings().is_empty());
    }
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
async fn a_removed_item_that_is_in_the_table_again_is_written() {
    let world = World::start().await;
    world.settled_with(version(1)).await;
    world.load(version(2));

    let removals = [removed(1, "a", "INDEX#i"), removed(2, "a", "INDEX#i#QUERY#q")];
    let answered = world.batch_ok(removals).await;

    assert_eq!(held(&world), [Some(2); 2]);
    assert_eq!(answered.counted("RecordsExported"), 2);
    assert!(world.deletes().is_empty());
}

#[tokio::test]
async fn a_malformed_record_is_exported_where_its_keys_can_be_read_and_the_table_has_its_item() {
    let malformed = || {
        records(1).into_iter().map(|mut record| {
            record["dynamodb"]["NewImage"] = json!({"pixel_id": 7});
            record
        })
    };
    for in_the_table in [true, false] {
        let world = World::start().await;
        if in_the_table {
            world.load(version(2));
        }

        let answered = world.batch_ok(malformed()).await;

        assert_eq!(held(&world), [in_the_table.then_some(2); 2]);
        let (exported, rejected) = if in_the_table { (2, 0) } else { (0, 2) };
        assert_eq!(answered.counted("RecordsExported"), exported);
        assert_eq!(answered.counted("RecordsRejected"), rejected);
    }
}

#[tokio::test]
async fn an_item_that_cannot_be_exported_is_rejected_whatever_its_image_and_kv_keeps_what_it_had() {
    let world = World::start().await;
    world.settled_with(version(1)).await;
    world.load([broken("a", "i")]);

    let answered = world.batch_ok([records(3).remove(0)]).await;

    assert_eq!(held(&world)[0], Some(1));
    assert_eq!(answered.counted("RecordsRejected"), 1);
    let line = world.logs.only("record rejected");
    let told = ["system_account_id", "index_name", "path"].map(|name| &line[name]);
    assert_eq!(told, ["a", "i", "index_endpoint"]);
}

#[tokio::test]
async fn an_item_that_keeps_changing_is_put_three_times_and_then_fails() {
    let world = World::start().await;
    world.load(version(0));
    let next = AtomicU32::new(1);
    let change = world.before(move |table| {
        table.put(&version(next.fetch_add(1, Ordering::Relaxed))[0]);
    });
    world.break_kv(writes(change).forever());

    let answered = world.batch([records(0).remove(0)]).await;

    assert_eq!(answered.failures(), ["1"]);
    assert_eq!(world.pairs_done(SETTINGS), [1, 1, 1]);
    let error = world.logs.only("record failed")["error"].to_string();
    assert!(error.contains("chang"), "{error}");
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

#[tokio::test]
async fn the_table_is_read_beside_the_request_for_the_api_key() {
    let slow = || Rule::any(Fault::Delay(Duration::from_millis(500))).forever();
    let world = World::start().await;
    world.load(version(1));
    world.break_table(slow());
    world.stack.api_keys.faults().add(slow());

    world.batch_ok([records(1).remove(0)]).await;

    let (read, asked) = (&world.stack.table.log()[0], &world.stack.api_keys.log()[0]);
    assert!(read.received_at < asked.finished_at.unwrap());
    assert!(asked.received_at < read.finished_at.unwrap());
}
