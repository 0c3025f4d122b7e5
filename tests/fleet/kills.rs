//! Runs that are killed and tried again, as the state machine does: the result is the same, and a brake
//! is had a second time at most by the part that was killed.

use std::rc::Rc;
use std::time::Duration;

use serde_json::json;

use crate::model::{INVOCATION, Size, World, follow, mixed, process, repair, run};
use crate::small::{NAMESPACES, SHORT, SIZE, assert_mended, times, world};

/// Follows a repair whose runs are killed when `death` is over; answers how many were, and with the
/// sum of what the others' reports refused to delete.
async fn follow_killed<D: Future<Output = ()>>(
    world: &Rc<World>,
    time: Duration,
    mut death: impl FnMut(bool) -> D,
) -> (usize, u64) {
    let (mut killed, mut refused) = (0, 0);
    let mut request = repair();
    loop {
        // A new process each time: it knows nothing of what is left of the limit.
        let function = process(world, "reconcile");
        let report = tokio::select! {
            report = run(&function, &request, time) => report.unwrap(),
            () = death(request["continue"].is_null()) => {
                killed += 1;
                continue;
            }
        };
        refused += report["refused"]["delete"].as_u64().unwrap_or_default();
        if report["continue"].is_null() {
            return (killed, refused);
        }
        request["continue"] = report["continue"].clone();
    }
}

/// How many keys were ever deleted.
fn deleted(world: &World) -> u64 {
    world.asked.borrow().deleted
}

/// Waits for the moment at which a run is killed: any, or one while it mends, or none.
async fn death(world: &World, chance: u64, run_takes: Duration) {
    let moment = chance / 8;
    match chance % 8 {
        0..3 => tokio::time::sleep(run_takes.mul_f64((moment % 1_000) as f64 / 1_000.0)).await,
        3..6 => {
            let before = world.asked.borrow().changes;
            while world.asked.borrow().changes == before {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(Duration::from_millis(moment % 3_000)).await;
        }
        _ => std::future::pending().await,
    }
}

/// Checks for each seed that a repair of such a fleet ends with the same keys and values, however often
/// it is killed; answers how often it was.
async fn killed_at_any_moment(fleet: impl Fn() -> Rc<World>, time: Duration, seeds: u64) -> usize {
    let undisturbed = fleet();
    let chain = follow(&process(&undisturbed, "reconcile"), repair(), time).await.unwrap();
    assert!(chain.runs.len() > 1, "{} runs", chain.runs.len());
    assert_mended(&undisturbed);
    let run_takes = chain.took / u32::try_from(chain.runs.len()).unwrap();
    let mut all_killed = 0;
    for seed in 1..=seeds {
        let world = fleet();
        let mut chance = seed;
        let next_death = |_| {
            chance = mixed(chance);
            death(&world, chance, run_takes)
        };
        let (killed, _) = follow_killed(&world, time, next_death).await;
        eprintln!("{} runs; seed {seed}: {killed} were killed", chain.runs.len());
        all_killed += killed;
        assert_eq!(deleted(&world), chain.total("deleted"), "seed {seed}");
        for namespace in NAMESPACES {
            assert_eq!(world.snapshot(namespace), undisturbed.snapshot(namespace), "seed {seed}");
        }
    }
    all_killed
}

/// 90 orphans among the index ids, 90 among the shop ids, and a part for each.
fn two_parts_with_orphans() -> Rc<World> {
    let mut world = world(Size { query_configs: 0, drift: 0, ..SIZE });
    world.page_keys = 50;
    *world.fleet.lost.borrow_mut() = 300..390;
    Rc::new(world)
}

#[tokio::test(start_paused = true)]
async fn a_kill_does_not_give_a_brake_again_to_what_the_parts_before_have_deleted() {
    let undisturbed = two_parts_with_orphans();
    let chain = follow(&process(&undisturbed, "reconcile"), repair(), SHORT).await.unwrap();
    assert!(chain.runs.len() > 1, "{} runs", chain.runs.len());
    assert_eq!((chain.total("orphaned"), deleted(&undisturbed)), (180, 90));
    for seconds in (0..36).step_by(3) {
        let world = two_parts_with_orphans();
        let mut kills = 2_i32;
        let death = |is_first_run: bool| {
            kills -= i32::from(!is_first_run);
            let dies = !is_first_run && kills >= 0;
            async move {
                match dies {
                    true => tokio::time::sleep(Duration::from_secs(seconds)).await,
                    false => std::future::pending().await,
                }
            }
        };
        let (killed, refused) = follow_killed(&world, SHORT, death).await;
        assert_eq!(killed, 2, "twice in the second part, after {seconds} s");
        assert_eq!((deleted(&world), refused), (90, 90), "after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_small_chain_that_is_killed_at_any_moment_ends_as_one_that_was_not() {
    let size = Size { accounts: 20, drift: 30, ..SIZE };
    let fleet = || Rc::new(World { page_keys: 20, ..world(size) });
    assert!(killed_at_any_moment(fleet, SHORT, 8).await > 8);
}

#[tokio::test(start_paused = true)]
async fn a_large_chain_that_is_killed_at_any_moment_ends_as_one_that_was_not() {
    let size = Size { accounts: 100 * times(), indexes: 10, query_configs: 18, drift: 500, ..SIZE };
    let (small, time) = (times() == 1, if times() == 1 { SHORT } else { INVOCATION });
    let fleet = || {
        let mut world = World::new(size);
        if small {
            world.page_keys = 100;
            world.pace.list = Duration::from_secs(2);
        }
        Rc::new(world)
    };
    assert!(killed_at_any_moment(fleet, time, 3).await > 0);
}

#[tokio::test(start_paused = true)]
async fn runs_of_any_length_end_as_one_does_and_their_sums_are_right() {
    let world = || {
        let size = Size { accounts: 20, drift: 20, ..SIZE };
        Rc::new(World { page_keys: 50, ..world(size) })
    };
    let expected = NAMESPACES.map(|namespace| world().compare(namespace));
    for seconds in (45..600).step_by(37) {
        let world = world();
        let time = Duration::from_secs(seconds);
        let chain = follow(&process(&world, "reconcile"), repair(), time).await.unwrap();
        assert_eq!(NAMESPACES.map(|namespace| chain.found(namespace)), expected, "{seconds} s");
        assert_mended(&world);
        assert_eq!(chain.total("failed"), 0, "{seconds} s");
        assert_eq!(chain.last()["complete"], json!(true), "{seconds} s");
    }
}
