//! What a large fleet costs in memory and time.

use std::rc::Rc;
use std::time::Duration;

use super::allocated;
use super::chain::{INVOCATION, repair};
use super::chains::{SIZE, assert_mended, run};
use super::items::Size;
use super::services::World;

/// What a run may allocate, in megabytes: the template's 256, less what a process has before it.
const MEMORY: isize = 200;

/// How many times the usual size the large fleets have.
#[expect(clippy::disallowed_methods, reason = "the one place where a test run is configured")]
pub fn times() -> usize {
    let given = std::env::var("FLEET_TIMES").ok();
    given.map_or(1, |text| text.parse().expect("FLEET_TIMES is a whole number"))
}

/// A repair of such a fleet, which may allocate this number of megabytes.
async fn repaired(mut world: World, api_key: Duration, memory: isize) {
    world.pace.api_key = api_key;
    let world = Rc::new(world);
    let keys = world.kv.borrow().len();
    let began = allocated::begin();
    let chain = run(&world, repair(), INVOCATION).await;
    let megabytes = allocated::most_since(began);
    println!(
        "{keys} keys, {api_key:?} for an API key: {megabytes} MB, {} runs, {} passes, {:?}",
        chain.runs,
        world.asked.borrow().passes,
        world.began.elapsed()
    );
    assert!(megabytes < memory, "{megabytes} MB");
    assert!(chain.is_complete() && chain.total("failed") == 0, "{}", chain.report);
    assert_mended(&world);
}

#[tokio::test(start_paused = true)]
async fn two_hundred_thousand_keys_are_one_chain_within_the_templates_memory() {
    let size = Size { accounts: 1_000 * times(), indexes: 10, query_configs: 18, ..SIZE };
    repaired(World::new(Size { drift: 1_000, ..size }), Duration::from_millis(20), MEMORY).await;
}

#[tokio::test(start_paused = true)]
async fn an_emptied_namespace_is_filled_in_memory_that_takes_its_names_once() {
    let size = Size { accounts: 200 * times(), indexes: 10, query_configs: 18, ..SIZE };
    let world = World::new(size);
    world.kv.borrow_mut().clear();
    repaired(world, Duration::from_millis(20), 28 * times().cast_signed()).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_gateway_for_ten_thousand_accounts_costs_time_and_no_progress() {
    let size = Size { accounts: 10_000 * times(), indexes: 1, query_configs: 0, ..SIZE };
    repaired(World::new(Size { drift: 1_000, ..size }), Duration::from_secs(1), MEMORY).await;
}
