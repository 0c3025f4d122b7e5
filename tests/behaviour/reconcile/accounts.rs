//! A run of one account.

use testbed::kv::KvVerb::{DeleteBulk, PutBulk};
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::*;

#[tokio::test]
async fn the_shop_ids_of_an_account_are_read_from_all_pages_of_its_items() {
    let world = World::start().await;
    // DynamoDB returns 1 MB at a time.
    let large = || json!({"search_config": {"x": "x".repeat(300_000)}});
    let item = |n| with(shop("a", &format!("i{n}"), &format!("s{n}.example")), large());
    world.settled_with((0..5).map(item)).await;

    let report = world.report(&of_account("a", false)).await;

    assert_eq!(world.table_requests("Query"), 2);
    let counts = ["desired", "listed", "missing"].map(|class| &report["settings"][class]);
    assert_eq!(counts, [10, 10, 0]);
}

#[tokio::test]
async fn a_run_of_one_account_touches_no_key_of_another() {
    let world = World::start().await;
    // a-b's keys begin like a's, and are listed with them.
    let accounts = ["a", "a-b", "b"];
    let items = accounts.into_iter().flat_map(|account| {
        [
            shop(account, "lost", &format!("{account}.lost")),
            index(account, "orphan"),
            query_config(account, "lost", "lost", 1),
            query_config(account, "lost", "orphan", 1),
        ]
    });
    world.settled_with(items).await;
    for account in accounts {
        world.stack.kv.delete(SETTINGS, &format!("{account}.lost"));
        edit(&world, SETTINGS, &format!("{account}-lost"), true);
        world.stack.kv.delete(QUERY_CONFIGS, &query_config_key(account, "lost", "lost"));
        world.stack.table.delete(account, "INDEX#orphan");
        world.stack.table.delete(account, "INDEX#lost#QUERY#orphan");
    }
    world.stack.kv.put(SETTINGS, "a-stranger", "x", None);
    world.forget();

    let report = world.report(&of_account("a", true)).await;

    let [lost, orphan] = ["lost", "orphan"].map(|query| query_config_key("a", "lost", query));
    assert_eq!(
        world.changes(),
        changes([
            (PutBulk, SETTINGS, &["a-lost", "a.lost"]),
            (PutBulk, QUERY_CONFIGS, &[&lost]),
            (DeleteBulk, SETTINGS, &["a-orphan"]),
            (DeleteBulk, QUERY_CONFIGS, &[&orphan]),
        ])
    );
    let classes = ["desired", "missing", "stale", "orphaned", "foreign", "written", "deleted"];
    assert_eq!(classes.map(|class| &report["settings"][class]), [2, 1, 1, 1, 1, 2, 1]);
    assert_eq!(classes.map(|class| &report["query_configs"][class]), [1, 1, 0, 1, 0, 1, 1]);
}
