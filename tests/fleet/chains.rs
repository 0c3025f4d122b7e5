//! A chain compares every key once and mends all of it.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use ecom_settings_exporter::ports::Namespace;
use serde_json::json;

use crate::model::{
    Drift, Found, Held, INVOCATION, ItemId, Size, World, audit, follow, process, repair,
};
use crate::small::{NAMESPACES, SHORT, SIZE, SMALL, assert_mended, query_config_with, world};

#[tokio::test(start_paused = true)]
async fn a_chain_compares_every_key_once_and_a_repair_mends_exactly_the_drift() {
    let world = Rc::new(world(SIZE));
    let function = process(&world, "reconcile");
    let at_first = NAMESPACES.map(|namespace| world.compare(namespace));
    let (settings, query_configs) =
        (world.fleet.settings_found(), world.fleet.query_configs_found());
    assert_eq!(at_first, [settings, query_configs], "the model agrees with itself");

    for (request, applies) in [(audit(), false), (repair(), true)] {
        let chain = follow(&function, request, SHORT).await.unwrap();
        assert!(chain.runs.len() > 2, "{} runs", chain.runs.len());
        assert_eq!(NAMESPACES.map(|namespace| chain.found(namespace)), at_first);
        assert_eq!(chain.last()["complete"], true);
        let [missing, stale, orphaned] =
            ["missing", "stale", "orphaned"].map(|class| chain.total(class));
        let mended = if applies { (missing + stale, orphaned) } else { (0, 0) };
        assert_eq!((chain.total("written"), chain.total("deleted")), mended);
        assert_eq!(chain.total("failed") + chain.total("conflicting"), 0);
    }
    assert_mended(&world);
    let again = follow(&function, audit(), SHORT).await.unwrap();
    for namespace in NAMESPACES {
        assert_eq!(again.found(namespace), world.compare(namespace));
    }
}

#[tokio::test(start_paused = true)]
async fn the_brakes_hold_for_a_whole_chain() {
    // A third of all keys is missing, a third stale, a third orphaned.
    let mut world = world(Size { drift: 1, accounts: 80, ..SIZE });
    world.page_keys = 40;
    let world = Rc::new(world);
    let chain = follow(&process(&world, "reconcile"), repair(), SHORT).await.unwrap();
    assert!(chain.runs.len() > 2, "{} runs", chain.runs.len());
    let held = chain.found(Namespace::QueryConfigs);
    let of = |class: &str| chain.sum("query_configs", class);
    let deletes = 100.max(held.listed * 2 / 100);
    let rewrites = 1_000.max(held.desired * 30 / 100);
    assert!(held.orphaned > 2 * deletes && held.stale > rewrites, "{held:?}");
    let rewritten = of("written") - held.missing;
    assert!(of("deleted") <= deletes, "{} of {deletes}", of("deleted"));
    assert!(rewritten > 0 && rewritten <= rewrites, "{rewritten} of {rewrites}");
    let refused = chain.runs.iter().filter_map(|run| run["refused"]["rewrite"].as_u64());
    assert_eq!(refused.sum::<u64>(), held.stale - rewritten);
    assert_eq!(chain.last()["complete"], false);
}

/// A fleet that is listed quickly enough for one part.
fn one_part(size: Size) -> Rc<World> {
    let mut world = world(size);
    world.pace.list = Duration::from_millis(500);
    Rc::new(world)
}

/// A fleet and a table of which each page takes so long.
fn with_slow_table(page: Duration) -> Rc<World> {
    let mut world = world(SMALL);
    world.pace.page = page;
    Rc::new(world)
}

#[tokio::test(start_paused = true)]
async fn a_part_is_so_small_that_time_is_left_for_the_pass_and_for_mending() {
    let world = with_slow_table(Duration::from_secs(13));
    let expected = NAMESPACES.map(|namespace| world.compare(namespace));
    let chain = follow(&process(&world, "reconcile"), repair(), SHORT).await.unwrap();
    let took = chain.took / u32::try_from(world.passes()).unwrap();
    assert!(took > SHORT / 4, "{took:?} for each pass and what belongs to it");
    assert_eq!(chain.last()["complete"], true);
    assert_eq!(NAMESPACES.map(|namespace| chain.found(namespace)), expected);
    assert_mended(&world);
}

#[tokio::test(start_paused = true)]
async fn orphans_that_there_is_no_time_to_look_at_keep_no_other_part_from_being_mended() {
    let world = with_slow_table(Duration::from_secs(20));
    let expected = NAMESPACES.map(|namespace| world.compare(namespace));
    assert_eq!(expected[0].orphaned, 1);
    let chain = follow(&process(&world, "reconcile"), repair(), SHORT).await.unwrap();
    assert_eq!(chain.found(Namespace::QueryConfigs), expected[1]);
    assert!(chain.sum("settings", "failed") > 0);
    let of = |namespace| {
        let Found { missing, stale, orphaned, .. } = world.compare(namespace);
        (missing, stale, orphaned)
    };
    assert_eq!(NAMESPACES.map(of), [(0, 0, 1), (0, 0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn api_keys_are_asked_for_by_the_parts_that_compare_their_accounts_alone() {
    let size = Size { query_configs: 0, drift: 0, ..SIZE };
    let world = Rc::new(World { page_keys: 10, ..world(size) });
    let chain = follow(&process(&world, "reconcile"), audit(), SHORT).await.unwrap();
    assert!(chain.runs.len() > 1 && world.passes() > 2, "{} passes", world.passes());
    // The index ids and the shop ids of an account are far apart, and an account can be at the end
    // of one part and the beginning of the next.
    let at_most = 2 * size.accounts as u64 + world.passes();
    let asked = world.asked.borrow().api_keys;
    assert!(asked <= at_most, "{asked} of {at_most}");
}

#[tokio::test(start_paused = true)]
async fn a_throttled_table_ends_no_run() {
    let world = Rc::new(world(SMALL));
    let expected = NAMESPACES.map(|namespace| world.compare(namespace));
    world.throttled.set(12);
    let chain = follow(&process(&world, "reconcile"), repair(), INVOCATION).await.unwrap();
    assert_eq!(world.throttled.get(), 0);
    assert_eq!(chain.last()["complete"], true);
    assert_eq!(NAMESPACES.map(|namespace| chain.found(namespace)), expected);
    assert_mended(&world);
}

#[tokio::test(start_paused = true)]
async fn a_missing_key_and_an_orphan_take_three_passes_at_the_most() {
    let world = one_part(Size { drift: 0, ..SMALL });
    let fleet = &world.fleet;
    let orphan = Held::FromTheBeginning(ItemId::settings(3), 7);
    let query_config = world.snapshot(Namespace::QueryConfigs).into_keys().next().unwrap();
    for (namespace, key, held) in [
        (Namespace::Settings, fleet.shop_id(5), None),
        (Namespace::Settings, fleet.previous_shop_id(3), Some(orphan)),
        (Namespace::QueryConfigs, query_config, None),
    ] {
        world.namespaces.set(fleet, namespace, &key, held);
    }
    let chain = follow(&process(&world, "reconcile"), repair(), INVOCATION).await.unwrap();
    assert_eq!((chain.total("written"), chain.total("deleted")), (2, 1));
    assert_mended(&world);
    assert!(world.passes() <= 3, "{} passes", world.passes());
}

#[tokio::test(start_paused = true)]
async fn a_run_of_one_account_reads_that_accounts_keys_and_items_alone() {
    let world = Rc::new(World::new(Size { accounts: 2_000, drift: 0, ..SIZE }));
    let fleet = &world.fleet;
    let index = 700 * fleet.size.indexes;
    let account = fleet.account(index);
    let index_id = fleet.index_ref(index).index_id();
    world.namespaces.set(fleet, Namespace::Settings, &fleet.shop_id(index), None);
    world.namespaces.set(fleet, Namespace::Settings, &index_id, None);
    let request = json!({"apply": true, "system_account_id": account});
    let chain = follow(&process(&world, "reconcile"), request, INVOCATION).await.unwrap();
    assert_eq!(chain.sum("settings", "written"), 2);
    assert_eq!(chain.total("desired"), 5 * 30);
    let asked = world.asked.borrow();
    eprintln!(
        "one account of 2,000, 300,000 keys: {} requests to KV and {} to the table, {:?}",
        asked.kv.len(),
        asked.table,
        chain.took
    );
    assert_eq!(asked.accounts, BTreeSet::from([account]));
    assert_eq!(asked.segments, 0, "the table was scanned");
    // Two listings, one read of shop ids, one write.
    assert!(asked.kv.len() <= 4 && asked.table <= 5, "{} {}", asked.kv.len(), asked.table);
}

#[tokio::test(start_paused = true)]
async fn what_changes_while_a_run_waits_for_its_turn_is_not_overwritten_by_what_was_read_before() {
    let world = one_part(SMALL);
    let item = query_config_with(&world, Drift::Stale);
    let (run, stream) = (process(&world, "reconcile"), process(&world, "stream"));
    let pages = world.snapshot(Namespace::QueryConfigs).len().div_ceil(100);
    let before_the_last_page = (Namespace::QueryConfigs, pages as u64 - 2);
    // The answer with the last page says that nothing is left for a reconcile until the reset.
    let chain = follow(&run, repair(), INVOCATION);
    let changing = async {
        while world.asked.borrow().lists != Some(before_the_last_page) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        world.limit.use_up(700);
        tokio::time::sleep(Duration::from_secs(30)).await;
        crate::small::change(&stream, &world, item).await
    };
    let (chain, answer) = tokio::join!(chain, changing);
    assert_eq!(answer["batchItemFailures"], json!([]));
    assert_eq!(chain.unwrap().last()["complete"], true);
    assert_mended(&world);
    let fleet = &world.fleet;
    let hash = fleet.hashes().iter().find(|(_, query)| Some(*query) == item.query).unwrap();
    let key = format!("qcfg-{}-{}", fleet.index_ref(item.index).index_id(), hash.0);
    let changed = Held::FromTheBeginning(item, 1).digest(fleet).unwrap();
    let written = world.asked.borrow().written[&key].clone();
    assert!(written.len() >= 2, "the stream and the repair have written it");
    assert!(written.iter().all(|(_, digest)| *digest == changed), "{written:?}");
}

#[tokio::test(start_paused = true)]
async fn more_keys_to_write_than_names_fit_into_memory_are_written_by_run_after_run() {
    for class in ["missing", "stale"] {
        // The names of 20,000 items take some 23 MB, of which 16 are held.
        let size = Size { accounts: 4, query_configs: 1_000, drift: 0, query_bytes: 900, ..SIZE };
        let world = Rc::new(World::new(size));
        let fleet = &world.fleet;
        for index in 0..fleet.indexes() {
            let index_id = fleet.index_ref(index).index_id();
            for (hash, query) in fleet.hashes() {
                let key = format!("qcfg-{index_id}-{hash}");
                match class {
                    "missing" => world.namespaces.set(fleet, Namespace::QueryConfigs, &key, None),
                    _ => drop(world.change(ItemId::query_config(index, *query))),
                }
            }
        }

        let request = json!({"apply": true, "rewrite_up_to": 20_000});
        let chain = follow(&process(&world, "reconcile"), request, INVOCATION).await.unwrap();

        assert_eq!(chain.runs.len(), 2, "{:?}", chain.runs);
        let of = |class: &str| chain.sum("query_configs", class);
        assert_eq!((of(class), of("written"), of("failed")), (20_000, 20_000, 0), "{class}");
        assert_eq!(chain.last()["complete"], true);
        assert_mended(&world);
    }
}
