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

/// A world that holds so many query configs of a/i, and the removals of the first of them.
async fn world_without(removals: u32, of: u32) -> (World, Vec<serde_json::Value>) {
    let world = World::start().await;
    let ours = r#"{"system_account_id":"a","index_name":"i","environment":"local"}"#;
    let ours: serde_json::Value = serde_json::from_str(ours).unwrap();
    for n in 0..of {
        let key = query_config_key("a", "i", &format!("q{n}"));
        world.stack.kv.put(QUERY_CONFIGS, &key, "{}", Some(ours.clone()));
    }
    let removal = |n| removed(n, "a", &format!("INDEX#i#QUERY#q{n}"));
    (world, (0..removals).map(removal).collect())
}

#[tokio::test]
async fn many_are_told_from_other_environments_by_a_listing() {
    let (world, mut removals) = world_without(300, 300).await;
    let theirs = query_config_key("a", "i", "q7");
    let metadata = serde_json::json!({
        "system_account_id": "a", "index_name": "i", "environment": "other",
    });
    world.stack.kv.put(QUERY_CONFIGS, &theirs, "{}", Some(metadata));
    let predecessors = query_config_key("a", "i", "q8");
    world.stack.kv.put(QUERY_CONFIGS, &predecessors, "{}", None);
    // One that the listing lacks is deleted all the same.
    let unlisted = query_config_key("a", "i", "unlisted");
    world.stack.kv.freeze_listing(QUERY_CONFIGS);
    world.stack.kv.put(QUERY_CONFIGS, &unlisted, "{}", None);
    removals.push(removed(999, "a", "INDEX#i#QUERY#unlisted"));

    assert_eq!(world.batch(removals).await.failures(), NOTHING);

    assert_eq!(world.query_config_keys(), [theirs]);
    let verbs: Vec<KvVerb> = world.stack.kv.log().iter().map(|request| request.verb).collect();
    assert_eq!(verbs, [KvVerb::ListKeys, KvVerb::GetBulk, KvVerb::DeleteBulk]);
    assert_eq!(world.stack.kv.log()[1].keys, [predecessors]);
}

#[tokio::test]
async fn where_the_listing_cannot_be_read_nothing_is_deleted() {
    for status in [500, 400] {
        let (world, removals) = world_without(101, 101).await;
        world.stack.kv.faults().add(Rule::on("GET", "/keys", Fault::status(status)).forever());

        let answered = world.batch(removals.into_iter().map(late)).await;

        assert_eq!(answered.failures().len(), 101, "{status}");
        assert_eq!(world.query_config_keys().len(), 101, "{status}");
    }
}

#[tokio::test]
async fn a_few_of_an_index_with_many_are_read_by_their_names() {
    let (world, removals) = world_without(101, 3_000).await;

    assert_eq!(world.batch(removals).await.failures(), NOTHING);

    assert_eq!(world.query_config_keys().len(), 3_000 - 101);
    assert_eq!(world.stack.kv.log_of(KvVerb::ListKeys).len(), 1);
    assert_eq!(world.stack.kv.log().len(), 3);
}
