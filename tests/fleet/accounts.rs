//! Accounts of one index each, as many as there may be: a slow gateway costs time, never memory or
//! progress.

use std::rc::Rc;
use std::time::Duration;

use crate::memory;
use crate::model::{Followed, Found, INVOCATION, Size, World, follow, process, repair};
use crate::small::{NAMESPACES, SIZE, assert_mended, times};

/// What a run may hold, in megabytes: the template's 256, less what a process holds before it.
const MEMORY: isize = 200;

/// A repair of so many accounts, with a gateway that takes so long for an API key.
async fn repaired(accounts: usize, api_key: Duration, time: Duration) -> Followed {
    let size = Size { accounts, indexes: 1, query_configs: 0, cells: 1, drift: 1_000, ..SIZE };
    let mut world = World::new(size);
    world.pace.api_key = api_key;
    let world = Rc::new(world);
    let expected = NAMESPACES.map(|namespace| world.compare(namespace));
    let began = memory::begin();
    let chain = follow(&process(&world, "reconcile"), repair(), time).await.unwrap();
    let megabytes = memory::most_since(began);
    eprintln!(
        "{accounts} accounts, {api_key:?} a key: {megabytes} MB, {} runs, {} passes, {:?}",
        chain.runs.len(),
        world.passes(),
        chain.took
    );
    assert!(megabytes < MEMORY, "{megabytes} MB");
    let found = NAMESPACES.map(|namespace| chain.found(namespace));
    for (found, expected) in found.into_iter().zip(expected) {
        // What was missing of a part that is begun again is listed there once it is written.
        let most = expected.listed + expected.missing;
        assert!((expected.listed..=most).contains(&found.listed), "{found:?}, not {expected:?}");
        assert_eq!(Found { listed: expected.listed, ..found }, expected);
    }
    assert_eq!(chain.total("deleted"), chain.total("orphaned"));
    assert_eq!((chain.total("failed"), chain.last()["complete"].as_bool()), (0, Some(true)));
    assert_mended(&world);
    chain
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_takes_a_second_for_each_of_a_hundred_thousand_accounts() {
    repaired(10_000 * times(), Duration::from_secs(1), INVOCATION).await;
}

#[tokio::test(start_paused = true)]
async fn three_hundred_thousand_accounts_and_a_healthy_gateway() {
    repaired(30_000 * times(), Duration::from_millis(20), INVOCATION).await;
}

#[tokio::test(start_paused = true)]
async fn runs_that_are_too_short_for_all_api_keys_compare_smaller_parts() {
    // A pass with all API keys takes 15 seconds and more, or 150.
    let time = if times() == 1 { 14 } else { 40 };
    let chain =
        repaired(10_000 * times(), Duration::from_millis(300), Duration::from_secs(time)).await;
    assert!(chain.runs.len() > 2, "{} runs", chain.runs.len());
}
