//! Query configs that are removed, and those that come back.

use std::sync::atomic::{AtomicU32, Ordering};

use testbed::faults::Fault;
use testbed::kv::KvVerb;
use testbed::stack::QUERY_CONFIGS;

use crate::helpers::*;

#[tokio::test]
async fn a_query_config_that_is_there_again_is_not_deleted() {
    let world = World::start().await;
    world.settled_with([query_config("a", "i", "q", 1)]).await;
    world.stack.table.delete("a", "INDEX#i#QUERY#q");
    let removal = world.new_records();
    world.stack.table.put(&query_config("a", "i", "q", 2));

    world.batch_ok(removal).await;
    assert_eq!(world.query_config_keys().len(), 1);
    assert!(world.deletes().is_empty());
    let reads = world.stack.table.log();
    assert!(!reads.is_empty() && reads.iter().all(|read| read.consistent), "{reads:?}");
}

#[tokio::test]
async fn removals_are_read_in_batches() {
    let world = World::start().await;
    world.settled_with((0..250).map(|n| query_config("a", "i", &format!("q{n}"), n))).await;
    for n in 0..250 {
        world.stack.table.delete("a", &format!("INDEX#i#QUERY#q{n}"));
    }

    world.deliver_ok().await;
    assert_eq!(world.query_config_keys(), NOTHING);
    let operations = world.stack.table.operations();
    assert_eq!(operations.into_iter().collect::<Vec<_>>(), [("BatchGetItem".to_owned(), 6)]);
    assert_eq!(world.stack.kv.log_of(KvVerb::DeleteBulk).len(), 1);
}

/// A world that holds so many query configs of a/i, and the removals of the first of them.
async fn world_without(removals: u32, of: u32) -> (World, Vec<serde_json::Value>) {
    let world = World::start().await;
    for query in (0..of).map(|n| format!("q{n}")) {
        let value = held_query_config("a", "i", &query);
        world.hold(QUERY_CONFIGS, &query_config_key("a", "i", &query), &value, Writer::Ours);
    }
    let removal = |n| removed(n, "a", &format!("INDEX#i#QUERY#q{n}"));
    (world, (0..removals).map(removal).collect())
}

#[tokio::test]
async fn many_are_told_from_other_environments_by_a_listing() {
    let (world, mut removals) = world_without(300, 300).await;
    let theirs = query_config_key("a", "i", "q7");
    let value = held_query_config("a", "i", "q7");
    world.hold(QUERY_CONFIGS, &theirs, &value, Writer::OtherEnvironment);
    let predecessors = query_config_key("a", "i", "q8");
    world.stack.kv.put(QUERY_CONFIGS, &predecessors, "{}", None);
    // One that the listing lacks is deleted all the same.
    let unlisted = query_config_key("a", "i", "unlisted");
    world.stack.kv.freeze_listing(QUERY_CONFIGS);
    world.stack.kv.put(QUERY_CONFIGS, &unlisted, "{}", None);
    removals.push(removed(999, "a", "INDEX#i#QUERY#unlisted"));

    world.batch_ok(removals).await;

    assert_eq!(world.query_config_keys(), [theirs]);
    assert_eq!(world.verbs(), [KvVerb::ListKeys, KvVerb::GetBulk, KvVerb::DeleteBulk]);
    assert_eq!(world.stack.kv.log()[1].keys, [predecessors]);
}

#[tokio::test]
async fn where_the_listing_cannot_be_read_nothing_is_deleted() {
    for status in [500, 400] {
        let (world, removals) = world_without(101, 101).await;
        world.break_kv(listings(Fault::status(status)).forever());

        let answered = world.batch(removals.into_iter().map(late)).await;

        assert_eq!(answered.failures().len(), 101, "{status}");
        assert_eq!(world.query_config_keys().len(), 101, "{status}");
    }
}

#[tokio::test]
async fn a_few_of_an_index_with_many_are_read_by_their_names() {
    let (world, removals) = world_without(101, 3_000).await;

    world.batch_ok(removals).await;

    assert_eq!(world.query_config_keys().len(), 3_000 - 101);
    assert_eq!(world.stack.kv.log_of(KvVerb::ListKeys).len(), 1);
    assert_eq!(world.stack.kv.log().len(), 3);
}

#[tokio::test]
async fn one_that_changes_as_fast_as_it_is_followed_fails_after_five_rounds() {
    let world = World::start().await;
    world.settled_with([query_config("a", "i", "q", 0)]).await;
    world.stack.table.delete("a", "INDEX#i#QUERY#q");
    let version = AtomicU32::new(1);
    let change = world.before(move |table| {
        table.put(&query_config("a", "i", "q", version.fetch_add(1, Ordering::Relaxed)));
    });
    world.break_table(item_reads(change).after(1).forever());

    let answered = world.deliver().await;

    assert_eq!(answered.failures().len(), 1);
    assert_eq!(world.puts_done(QUERY_CONFIGS).len(), 4, "after the delete, in four rounds");
    let failed = world.logs.only("record failed");
    assert!(failed["error"].as_str().unwrap().contains("still changes"), "{failed}");
}
