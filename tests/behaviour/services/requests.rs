//! How many requests the work takes.

use serde_json::{Value, json};
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use crate::helpers::*;

#[tokio::test]
async fn a_thousand_records_of_500_items_take_twelve_reads_and_one_write_of_each_namespace() {
    let world = World::start().await;
    let items = || {
        (0..250).flat_map(|n| {
            let name = format!("i{n}");
            [shop("a", &name, &format!("s{n}.example")), query_config("a", &name, "q", n)]
        })
    };
    world.load(items());
    let records: Vec<Value> = items().chain(items()).collect();

    world.batch_ok(all_written(&records)).await;

    assert_eq!([world.pairs(SETTINGS), world.pairs(QUERY_CONFIGS)], [[500], [250]]);
    assert_eq!(world.table_requests("BatchGetItem"), 12, "a hundred of a namespace, twice");
    assert_eq!(world.stack.kv.log().len(), 2);
    assert_eq!(world.stack.api_keys.log().len(), 1);
}

#[tokio::test]
async fn fifty_removals_take_two_passes_without_query_configs_and_large_attributes() {
    let world = World::start().await;
    let large = json!({"search_config": {"x": "x".repeat(100_000)}});
    world.load((0..20).map(|n| index_with("b", &format!("i{n}"), large.clone())));
    world.load((0..200).map(|n| query_config("b", "i0", &format!("q{n}"), n)));
    let shops = || (0..50).map(|n| shop("a", &format!("i{n}"), &format!("s{n}.example")));
    world.settled_with(shops()).await;
    shops().for_each(|item| world.remove(&item));

    world.deliver().await;

    assert_eq!(world.setting_keys(), NOTHING);
    assert_eq!(world.passes(), 2);
    let log = world.stack.table.log();
    let scans: Vec<_> = log.iter().filter(|request| request.operation == "Scan").collect();
    assert_eq!(scans.iter().map(|scan| scan.items).sum::<usize>(), 20 * 2);
    assert!(scans.iter().map(|scan| scan.reply_bytes).sum::<usize>() < 100_000);
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
    let reads = "of the batch, before the delete, and after it";
    assert_eq!(world.table_requests("BatchGetItem"), 9, "{reads}");
    assert!(world.stack.table.log().iter().all(|read| read.consistent));
    assert_eq!(world.passes(), 0);
}
