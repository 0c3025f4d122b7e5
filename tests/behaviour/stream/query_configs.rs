//! Query configs that are removed, and those that come back.

use testbed::faults::Fault;

use crate::helpers::*;

/// A world from whose table a/i's query config q was removed, and the record of that.
async fn removal() -> (World, Vec<serde_json::Value>) {
    let world = World::start().await;
    let item = query_config("a", "i", "q", 1);
    world.settled_with([item.clone()]).await;
    world.remove(&item);
    let records = world.new_records();
    (world, records)
}

#[tokio::test]
async fn removed_query_configs_are_read_in_hundreds_before_and_behind_their_delete() {
    let world = World::start().await;
    let items = || (0..250).map(|n| query_config("a", "i", &format!("q{n}"), n));
    world.settled_with(items()).await;
    items().for_each(|item| world.remove(&item));

    let answered = world.deliver().await;

    assert_eq!(world.query_config_keys(), NOTHING);
    assert_eq!(answered.counted("QueryConfigKeysDeleted"), 250);
    assert_eq!(world.deletes().concat().len(), 250);
    let reads = "of the batch, before the delete, and behind it";
    assert_eq!(world.table_requests("BatchGetItem"), 9, "{reads}");
    assert!(world.stack.table.log().iter().all(|read| read.consistent));
    assert_eq!(world.passes(), 0);
}

#[tokio::test]
async fn one_that_is_back_behind_its_delete_is_written_again() {
    let (world, records) = removal().await;
    world.break_kv(deletes(world.after(|table| table.put(&query_config("a", "i", "q", 2)))));

    world.batch_ok(records).await;

    assert_eq!(world.query_config("a", "i", "q").unwrap()["boost"], 2);
}

#[tokio::test]
async fn one_that_the_table_cannot_be_asked_about_fails_and_stays() {
    for (name, fault) in [("throttled", Fault::throttled()), ("unprocessed", Fault::Unprocessed(0))]
    {
        let _row = row(name);
        let (world, records) = removal().await;
        world.break_table(item_reads(fault).forever());

        let answered = world.batch(records.clone()).await;

        assert_eq!(answered.failures(), [number_of(&records[0])]);
        assert_eq!(world.query_config_keys().len(), 1);
        assert!(world.deletes().is_empty());
    }
}
