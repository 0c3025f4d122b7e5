//! A chain compares every key and mends all of it, whatever happens beside it.

use std::collections::BTreeSet;
use std::future::pending;
use std::rc::Rc;
use std::time::Duration;

use ecom_settings_exporter::kv::Namespace::{QueryConfigs, Settings};
use serde_json::{Value, json};

use super::chain::{Chain, INVOCATION, audit, follow, repair};
use super::items::{ItemId, Size, Version};
use super::memory::HTTP_TIMEOUT;
use super::services::{Found, World, process};

/// 6,000 keys, 400 of them settings'.
pub const SIZE: Size = Size {
    accounts: 40,
    indexes: 5,
    query_configs: 28,
    drift: 100,
    settings_bytes: 100,
    query_config_bytes: 50,
};

/// Runs a chain that nothing kills.
pub async fn run(world: &Rc<World>, request: Value, time: Duration) -> Chain {
    follow(|| process(world), request, time, pending).await.unwrap()
}

/// Checks that KV is what the table asks for.
pub fn assert_mended(world: &World) {
    for namespace in [Settings, QueryConfigs] {
        let Found { missing, stale, orphaned, .. } = world.compare(namespace);
        assert_eq!((missing, stale, orphaned), (0, 0, 0), "{namespace:?}");
    }
}

/// What an invocation has, so that a chain over [`slow_listings`] has several runs.
pub const SHORT: Duration = Duration::from_secs(150);

/// A fleet with listings so slow that an invocation of [`SHORT`] compares a part of it.
pub fn slow_listings(size: Size) -> World {
    let mut world = World::new(size);
    world.page_keys = 200;
    world.pace.list = Duration::from_secs(6);
    world
}

#[tokio::test(start_paused = true)]
async fn a_chain_compares_every_key_once_and_mends_exactly_the_drift() {
    for (time, world) in [
        (INVOCATION, World::new(SIZE)),
        (SHORT, slow_listings(SIZE)),
        (2 * SHORT, slow_listings(SIZE)),
    ] {
        let world = Rc::new(world);
        let expected = [Settings, QueryConfigs].map(|namespace| world.compare(namespace));
        for request in [audit(), repair()] {
            let chain = run(&world, request.clone(), time).await;
            assert_eq!(chain.runs > 1, time < INVOCATION, "{} runs", chain.runs);
            let found = [Settings, QueryConfigs].map(|namespace| chain.found(namespace));
            assert_eq!(found, expected, "{request} in {time:?}");
            let mends = u64::from(request == repair());
            let drift = chain.total("missing") + chain.total("stale");
            assert_eq!(chain.total("written"), mends * drift);
            assert_eq!(chain.total("deleted"), mends * chain.total("orphaned"));
            assert_eq!(chain.total("failed") + chain.total("conflicting"), 0);
            assert!(chain.is_complete());
        }
        assert_mended(&world);
        let drift = |chain: &Chain| {
            ["missing", "stale", "orphaned"].map(|class| chain.total(class)).iter().sum::<u64>()
        };
        assert_eq!(drift(&run(&world, audit(), time).await), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn each_namespace_has_brakes_of_its_own_for_a_whole_chain() {
    // A third of the items is missing, a third stale, a third orphaned.
    let size = Size { drift: 1, ..SIZE };
    for time in [INVOCATION, SHORT] {
        let world = Rc::new(slow_listings(size));
        let before = [Settings, QueryConfigs].map(|namespace| world.compare(namespace));
        let chain = run(&world, repair(), time).await;
        assert!(before[0].orphaned < 100 && before[1].orphaned > 1_000, "{before:?}");
        assert_eq!(chain.count(Settings, "deleted"), before[0].orphaned);
        assert_eq!(chain.count(QueryConfigs, "deleted"), 0);
        // A part goes through whole or not at all.
        let rewritten = chain.count(QueryConfigs, "written") - before[1].missing;
        assert_eq!(chain.refused(), [before[1].orphaned, before[1].stale - rewritten]);
        assert!(rewritten <= 1_000.max(before[1].desired * 30 / 100), "{rewritten}");
        assert!(!chain.is_complete());
    }
}

#[tokio::test(start_paused = true)]
async fn items_that_are_imported_at_any_moment_of_a_run_are_no_orphans() {
    for requests in 1..7 {
        let size = Size { drift: 0, query_configs: 5, ..SIZE };
        let world = Rc::new(slow_listings(size));
        let later = world.size.items().filter(|id| (50..80).contains(&id.index));
        let later: Vec<ItemId> = later.collect();
        world.lose(50..80);
        world
            .kv
            .borrow_mut()
            .retain(|(_, key), _| !later.iter().any(|id| world.size.kv_keys(*id).contains(key)));
        let importing = async {
            while world.asked.borrow().kv.len() < requests {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            for id in later {
                let function = process(&world);
                world.put(Version { id, version: 0 });
                let index = world.size.item_ref(id).index;
                let payload = json!({
                    "system_account_id": index.account,
                    "index_name": index.name,
                    "include_query_configs": true,
                });
                if id.query.is_some_and(|query| query + 1 == size.query_configs) {
                    let (answer, _) = function.handle(payload.to_string(), INVOCATION).await;
                    answer.unwrap();
                }
            }
        };
        let (chain, ()) = tokio::join!(run(&world, repair(), SHORT), importing);
        assert_eq!((chain.total("orphaned"), chain.refused()), (0, [0, 0]), "{requests} requests");
        assert!(chain.is_complete(), "{requests} requests: {}", chain.report);
        assert_mended(&world);
    }
}

#[tokio::test(start_paused = true)]
async fn a_throttled_table_ends_no_run() {
    let world = Rc::new(World::new(SIZE));
    world.throttled.set(6);
    let chain = run(&world, repair(), INVOCATION).await;
    assert_eq!(world.throttled.get(), 0);
    assert!(chain.is_complete());
    assert_mended(&world);
}

#[tokio::test(start_paused = true)]
async fn a_run_makes_two_requests_a_second_after_the_first_hundred() {
    let mut world = World::new(SIZE);
    world.page_keys = 10;
    world.pace.list = Duration::from_millis(20);
    let world = Rc::new(world);
    let chain = run(&world, repair(), INVOCATION).await;
    assert!(chain.is_complete());
    let asked = world.asked.borrow();
    assert!(asked.kv.len() > 600, "{} requests", asked.kv.len());
    for within in asked.kv[100..].windows(101) {
        let took = within[100] - within[0];
        assert!(took >= Duration::from_secs(49), "101 requests in {took:?}");
    }
    let took = asked.kv[99] - asked.kv[0];
    assert!(took < Duration::from_secs(30), "the first hundred took {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_of_one_account_reads_its_keys_and_items_alone() {
    let world = Rc::new(World::new(Size { accounts: 400, drift: 0, ..SIZE }));
    let id = ItemId { index: 700, query: None };
    let account = world.size.item_ref(id).index.account;
    for key in world.size.kv_keys(id) {
        world.kv.borrow_mut().remove(&(Settings, key));
    }
    let request = json!({"apply": true, "system_account_id": account});
    let chain = run(&world, request, INVOCATION).await;
    assert_eq!((chain.count(Settings, "written"), chain.total("desired")), (2, 5 * 30));
    let asked = world.asked.borrow();
    assert_eq!((&asked.accounts, asked.passes), (&BTreeSet::from([account]), 1));
    // Two listings, a read of shop ids and a write.
    assert!(asked.kv.len() <= 4, "{} requests to KV", asked.kv.len());
}

#[tokio::test(start_paused = true)]
async fn a_cell_that_gives_nothing_costs_its_own_accounts_only() {
    for gives_up_after in [HTTP_TIMEOUT, Duration::from_millis(20)] {
        let mut world = World::new(Size { query_configs: 0, accounts: 500, drift: 20, ..SIZE });
        world.silent_cells.insert("cell-1".to_owned(), gives_up_after);
        let world = Rc::new(world);
        let size = world.size;
        let (dead, healthy): (Vec<ItemId>, Vec<ItemId>) =
            size.items().partition(|id| size.cell(*id) == "cell-1");
        let chain = run(&world, repair(), INVOCATION).await;
        assert_eq!(chain.runs, 1, "{gives_up_after:?}");
        assert_eq!(chain.total("failed"), 2 * dead.len() as u64, "{gives_up_after:?}");
        let kv = world.kv.borrow();
        for id in healthy {
            let keys = size.kv_keys(id);
            assert!(keys.iter().all(|key| kv.contains_key(&(Settings, key.clone()))), "{id:?}");
            let previous = keys[1].replace("example", "previous");
            assert!(!kv.contains_key(&(Settings, previous)), "{id:?}");
        }
    }
}
