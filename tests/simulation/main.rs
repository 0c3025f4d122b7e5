//! A deterministic simulation of the exporter and its world. `docs/simulation.md` describes it.

mod checks;
mod choices;
#[path = "../support/memory.rs"]
#[expect(dead_code, reason = "the unit tests name keys, and have requests that time out")]
mod memory;

mod play;
mod runner;
#[path = "../support/schemas.rs"]
#[expect(dead_code, reason = "the simulation looks at what goes to KV, not at reports")]
mod schemas;
mod services;
mod world;

use choices::Choices;
use play::driver;
use world::{About, Shape, Small, State};

#[test]
fn random_histories_leave_kv_as_the_table_asks() {
    runner::random("random histories", 2_000, |choices, trace| {
        driver::run(choices, Shape::random, trace)
    });
}

#[test]
fn after_any_history_one_quiet_reconcile_leaves_kv_equal_to_the_table() {
    runner::random("histories with reconcile", 2_000, |choices, trace| {
        driver::run(choices, Shape::with_reconcile, trace)
    });
}

#[test]
fn two_environments_on_one_kv_leave_each_others_keys_alone() {
    runner::random("histories of two environments", 1_000, |choices, trace| {
        driver::run(choices, Shape::shared, trace)
    });
}

#[test]
fn a_repair_keeps_to_its_brakes_whatever_happens_to_it() {
    runner::random("histories of many keys", 30, |choices, trace| {
        driver::run(choices, Shape::crowded, trace)
    });
}

#[test]
fn deliveries_that_are_repeated_and_late_undo_nothing_for_long() {
    runner::random("repeated deliveries", 1_000, |choices, trace| {
        driver::run(choices, Shape::repeated, trace)
    });
}

#[test]
fn every_small_world_with_one_fault() {
    exhaustive("one fault", Small::ONE_FAULT);
}

#[test]
fn every_small_world_with_one_overtaken_call() {
    exhaustive("one race", Small::ONE_RACE);
}

/// More than half a million histories: some of them at random, or all with `SIMULATION_CHANGES`.
#[test]
fn small_worlds_with_one_fault_and_one_overtaken_call() {
    let name = "one fault and one race";
    if runner::Settings::read().changes.is_some() {
        exhaustive(name, Small::FAULT_AND_RACE);
    } else {
        runner::random(name, 5_000, |choices, trace| {
            small(choices, 2, Small::FAULT_AND_RACE, trace)
        });
    }
}

#[test]
fn every_small_world_with_one_stale_read() {
    exhaustive("one stale read", Small::ONE_STALE_READ);
}

#[test]
fn every_small_world_with_one_late_delivery() {
    exhaustive("one late delivery", Small::ONE_LATE_DELIVERY.about(About::ReExports));
}

#[test]
fn every_small_world_of_two_environments() {
    exhaustive("environments", Small::ONE_RACE.about(About::Environments));
}

#[test]
fn small_worlds_of_three_changes_with_everything_once() {
    runner::random("three changes, everything once", 1_000, |choices, trace| {
        small(choices, 3, Small::ALL_ONCE, trace)
    });
}

/// Two changes, which take seconds, or as many as `SIMULATION_CHANGES` says.
fn exhaustive(name: &str, limits: Small) {
    let changes = runner::Settings::read().changes.unwrap_or(2);
    let changes = u32::try_from(changes).expect("SIMULATION_CHANGES is a small number");
    runner::exhaustive(&format!("{changes} changes, {name}"), |choices, trace| {
        small(choices, changes, limits, trace)
    });
}

fn small(choices: Choices, changes: u32, limits: Small, trace: bool) -> State {
    let shape = |choices: &mut Choices| Shape::small(choices, changes, limits);
    driver::run(choices, shape, trace)
}
