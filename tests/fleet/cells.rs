//! A cell whose gateway gives nothing costs its own accounts only.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use crate::model::{
    Drift, Followed, Gateway, INVOCATION, ItemId, Size, World, follow, process, repair,
};
use crate::small::{SIZE, assert_mended};

const INDEXES: Size = Size { accounts: 2_000, indexes: 5, query_configs: 0, drift: 100, ..SIZE };
const HEALTHY: [&str; 3] = ["cell-2", "cell-3", "cell-4"];

/// When the drift of three healthy cells was mended, whatever the other two do; and how many keys
/// that were.
async fn mended(gateways: BTreeMap<String, Gateway>) -> (Duration, usize) {
    let world = Rc::new(World { gateways, ..World::new(INDEXES) });
    let chain = follow(&process(&world, "reconcile"), repair(), INVOCATION).await.unwrap();
    let fleet = &world.fleet;
    let asked = world.asked.borrow();
    let mut mended = (Duration::ZERO, 0);
    for index in 0..fleet.indexes() {
        let key = match fleet.drift(ItemId::settings(index)) {
            Some(Drift::Missing) => fleet.index_ref(index).index_id(),
            Some(Drift::Stale) => fleet.shop_id(index),
            Some(Drift::Orphaned) | None => continue,
        };
        if HEALTHY.contains(&&*fleet.cell(index)) {
            let at = asked.written[&key][0].0;
            mended = (mended.0.max(at - world.began), mended.1 + 1);
        }
    }
    assert_eq!(chain.total("desired"), 20_000);
    mended
}

#[tokio::test(start_paused = true)]
async fn each_cell_that_gives_nothing_costs_the_others_its_twenty_seconds_once() {
    let (without, keys) = mended(BTreeMap::new()).await;
    let broken = BTreeMap::from([
        ("cell-0".to_owned(), Gateway::Hangs),
        ("cell-1".to_owned(), Gateway::Fails),
    ]);
    let (with, as_many) = mended(broken).await;
    eprintln!(
        "{keys} keys of three cells: mended after {without:?}, and after {with:?} with two broken cells"
    );
    assert_eq!(keys, as_many);
    let waited = 2 * Duration::from_secs(20);
    assert!(keys > 60 && with <= without + waited, "{without:?} {with:?}");
}

/// A repair of the fleet with these gateways, each of which takes so long for an API key.
async fn repaired(gateways: BTreeMap<String, Gateway>, takes: Duration) -> (Rc<World>, Followed) {
    let mut world = World { gateways, ..World::new(INDEXES) };
    world.pace.api_key = takes;
    let world = Rc::new(world);
    let chain = follow(&process(&world, "reconcile"), repair(), INVOCATION).await.unwrap();
    (world, chain)
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_goes_on_giving_api_keys_is_asked_for_all_of_them_however_slow_it_is() {
    // 400 accounts a cell, of which 200 are asked for at a time.
    let (world, chain) = repaired(BTreeMap::new(), Duration::from_secs(12)).await;
    assert_eq!(chain.total("failed"), 0);
    assert_mended(&world);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_refuses_some_accounts_at_once_is_asked_for_the_others() {
    let refusing = BTreeMap::from([("cell-0".to_owned(), Gateway::RefusesSome)]);
    let (world, chain) = repaired(refusing, Duration::from_millis(500)).await;
    let fleet = &world.fleet;
    let refused = (0..fleet.indexes())
        .filter(|index| fleet.cell(*index) == "cell-0" && fleet.account(*index).ends_with('0'));
    // Two keys each, and a shop id that the index gave up: it may yet be rejected, and would keep it.
    let keys = refused.map(|index| match fleet.drift(ItemId::settings(index)) {
        Some(Drift::Orphaned) => 3,
        _ => 2,
    });
    assert_eq!(chain.total("failed"), keys.sum::<u64>());
}
