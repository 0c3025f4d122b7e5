//! Runs that are killed and tried again, as the state machine does: the result is the same.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use ecom_settings_exporter::kv::Namespace::{QueryConfigs, Settings};
use serde_json::json;

use super::capacity::times;
use super::chain::{INVOCATION, follow, repair};
use super::chains::{SHORT, SIZE, assert_mended, run, slow_listings};
use super::items::Size;
use super::services::{World, process};

/// Waits for the moment at which a run is killed, if it is: half of the runs die, at any moment of the
/// time that one takes.
async fn death(chance: &Cell<u64>, run_takes: Duration) {
    chance.set(chance.get().wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1));
    let drawn = chance.get() >> 33;
    if drawn.is_multiple_of(2) {
        tokio::time::sleep(run_takes.mul_f64((drawn % 997) as f64 / 997.0)).await;
    } else {
        std::future::pending().await
    }
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_is_killed_at_any_moment_ends_as_one_that_was_not() {
    let time = SHORT;
    let fleet = || Rc::new(slow_listings(Size { drift: 60, ..SIZE }));
    let undisturbed = fleet();
    let chain = run(&undisturbed, repair(), time).await;
    let runs = u32::try_from(chain.runs).unwrap();
    let run_takes = undisturbed.began.elapsed() / runs;
    assert!(runs > 1 && chain.is_complete(), "{runs} runs");
    let mut killed = 0;
    for seed in 1..=8 {
        let world = fleet();
        let chance = Cell::new(seed);
        let kill = || death(&chance, run_takes);
        let again = follow(|| process(&world), repair(), time, kill).await.unwrap();
        killed += again.runs.saturating_sub(chain.runs);
        assert!(again.is_complete(), "seed {seed}: {}", again.report);
        assert_eq!(world.asked.borrow().deleted, chain.total("deleted"), "seed {seed}");
        assert_mended(&world);
        for namespace in [Settings, QueryConfigs] {
            assert_eq!(again.found(namespace).desired, chain.found(namespace).desired);
        }
    }
    assert!(killed > 8, "{killed} were killed");
}

#[tokio::test(start_paused = true)]
async fn a_kill_gives_a_brake_a_second_time_to_the_part_under_way_alone() {
    // 90 orphans in each half of the listing of settings.
    let fleet = || {
        let mut world = World::new(Size { query_configs: 0, drift: 0, accounts: 200, ..SIZE });
        world.page_keys = 50;
        world.pace.list = Duration::from_secs(3);
        world.lose(300..390);
        Rc::new(world)
    };
    for seed in 1..=6 {
        let world = fleet();
        let chance = Cell::new(seed);
        let kills = Cell::new(2);
        let kill = || {
            let left = kills.replace(kills.get() - 1);
            let chance = &chance;
            async move {
                if left > 0 {
                    return death(chance, SHORT).await;
                }
                std::future::pending().await
            }
        };
        follow(|| process(&world), repair(), SHORT, kill).await.unwrap();
        let deleted = world.asked.borrow().deleted;
        assert!(deleted <= 300, "seed {seed}: {deleted} deleted by a brake of 100 and two kills");
    }
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_orphans_is_refused_whole_and_then_deleted_by_a_chain_that_is_killed() {
    let (kept, lost) = (1_000, 20_000 * times());
    let size = Size { accounts: kept + lost, indexes: 1, query_configs: 0, drift: 0, ..SIZE };
    let world = Rc::new(World::new(size));
    world.lose(kept..kept + lost);
    let flood = 2 * lost as u64;
    let too_few = json!({"apply": true, "delete_up_to": flood - 1});
    for request in [json!({}), repair(), too_few] {
        let chain = run(&world, request.clone(), INVOCATION).await;
        assert_eq!((chain.refused(), chain.total("orphaned")), ([flood, 0], flood), "{request}");
        assert_eq!(chain.is_complete(), request["apply"].is_null(), "{request}");
    }
    assert_eq!(world.asked.borrow().deleted, 0);

    let raised = json!({"apply": true, "delete_up_to": flood});
    let chance = Cell::new(1);
    let kill = || death(&chance, Duration::from_secs(200));
    let chain = follow(|| process(&world), raised, SHORT, kill).await.unwrap();
    assert!(chain.runs > 1 && chain.is_complete(), "{} runs: {}", chain.runs, chain.report);
    assert_eq!((world.asked.borrow().deleted, chain.total("desired")), (flood, 2 * kept as u64));
    assert_mended(&world);
}
