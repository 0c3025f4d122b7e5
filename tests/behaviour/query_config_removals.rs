//! Query configs that are removed, and those that come back.

use testbed::faults::{Fault, Rule};
use testbed::kv::KvVerb;
use testbed::stack::QUERY_CONFIGS;

use crate::helpers::*;

#[tokio::test]
async fn a_removed_query_config_is_deleted() {
    let world = World::start().await;
    world
        .settled_with([query_config("a", "i", "gone", 1), query_config("a", "i", "kept", 2)])
        .await;

    world.stack.table.delete("a", "INDEX#i#QUERY#gone");
    let answered = world.deliver().await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.query_config_keys(), [query_config_key("a", "i", "kept")]);
    assert_eq!(answered.stats.query_configs_deleted, 1);
}

#[tokio::test]
async fn a_query_config_that_is_there_again_is_not_deleted() {
    let world = World::start().await;
    world.settled_with([query_config("a", "i", "q", 1)]).await;
    world.stack.table.delete("a", "INDEX#i#QUERY#q");
    let removal = world.new_records();
    world.stack.table.put(&query_config("a", "i", "q", 2));

    let answered = world.batch(removal).await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.query_config_keys().len(), 1);
    assert!(world.stack.kv.log_of(KvVerb::DeleteBulk).is_empty());
    let reads = world.stack.table.log();
    assert!(!reads.is_empty() && reads.iter().all(|read| read.consistent), "{reads:?}");
}

#[tokio::test]
async fn a_query_config_that_comes_back_during_its_delete_is_exported() {
    let world = World::start().await;
    world.settled_with([query_config("a", "i", "q", 1)]).await;
    world.stack.table.delete("a", "INDEX#i#QUERY#q");
    let table = world.stack.table.clone();
    let back = move || table.put(&query_config("a", "i", "q", 2));
    world.stack.kv.faults().add(Rule::on("POST", "/bulk/delete", Fault::before(back)));

    let answered = world.batch(world.new_records()).await;

    assert_eq!(answered.failures(), NOTHING);
    let stored = world.stack.kv.get(QUERY_CONFIGS, &query_config_key("a", "i", "q")).unwrap();
    assert_eq!(stored.json()["boost"], 2);
}

#[tokio::test]
async fn a_query_config_that_is_removed_and_put_again_in_one_batch_is_written() {
    let world = World::start().await;
    world.settled_with([query_config("a", "i", "q", 1)]).await;

    world.stack.table.delete("a", "INDEX#i#QUERY#q");
    world.stack.table.put(&query_config("a", "i", "q", 2));
    let answered = world.deliver().await;

    assert_eq!(answered.failures(), NOTHING);
    let stored = world.stack.kv.get(QUERY_CONFIGS, &query_config_key("a", "i", "q")).unwrap();
    assert_eq!(stored.json()["boost"], 2);
    assert!(world.stack.kv.log_of(KvVerb::DeleteBulk).is_empty());
    assert!(world.stack.table.log().is_empty());
}

#[tokio::test]
async fn removals_are_read_in_batches() {
    let world = World::start().await;
    world.settled_with((0..250).map(|n| query_config("a", "i", &format!("q{n}"), n))).await;
    for n in 0..250 {
        world.stack.table.delete("a", &format!("INDEX#i#QUERY#q{n}"));
    }

    let answered = world.deliver().await;

    assert_eq!(answered.failures(), NOTHING);
    assert_eq!(world.query_config_keys(), NOTHING);
    let operations = world.stack.table.operations();
    assert_eq!(operations.into_iter().collect::<Vec<_>>(), [("BatchGetItem".to_owned(), 6)]);
    assert_eq!(world.stack.kv.log_of(KvVerb::DeleteBulk).len(), 1);
}

#[tokio::test]
async fn a_delete_of_query_configs_that_fails_names_their_records() {
    let world = World::start().await;
    world.settled_with([query_config("a", "i", "q1", 1), query_config("a", "i", "q2", 2)]).await;
    world.stack.table.delete("a", "INDEX#i#QUERY#q1");
    world.stack.table.delete("a", "INDEX#i#QUERY#q2");
    let stuck = query_config_key("a", "i", "q2");
    let stays = stuck.clone();
    let fault = Fault::unsuccessful(move |key| key == stays, 200);
    world.stack.kv.faults().add(Rule::on("POST", "/bulk/delete", fault).forever());

    let records = world.new_records();
    let answered = world.batch(records.clone()).await;

    let second = testbed::stream::sequence_number(&records[1]).unwrap();
    assert_eq!(answered.failures(), [second]);
    assert_eq!(world.query_config_keys(), [stuck]);
}
