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
    random("random histories", 500, Shape::random);
}

#[test]
fn after_any_history_one_quiet_reconcile_leaves_kv_equal_to_the_table() {
    random("histories with reconcile", 500, Shape::with_reconcile);
}

#[test]
fn two_environments_on_one_kv_leave_each_others_keys_alone() {
    random("histories of two environments", 250, Shape::shared);
}

#[test]
fn a_repair_keeps_to_its_brakes_whatever_happens_to_it() {
    random("histories of many keys", 10, Shape::crowded);
}

#[test]
fn deliveries_that_are_repeated_and_late_undo_nothing_for_long() {
    random("repeated deliveries", 250, Shape::repeated);
}

#[test]
fn small_worlds_with_one_fault() {
    small("one fault", Small::ONE_FAULT);
}

#[test]
fn small_worlds_with_one_overtaken_call() {
    small("one race", Small::ONE_RACE);
}

#[test]
fn small_worlds_with_one_fault_and_one_overtaken_call() {
    small("one fault and one race", Small::FAULT_AND_RACE);
}

#[test]
fn small_worlds_with_one_stale_read() {
    small("one stale read", Small::ONE_STALE_READ);
}

#[test]
fn small_worlds_with_one_late_delivery() {
    small("one late delivery", Small::ONE_LATE_DELIVERY.about(About::ReExports));
}

#[test]
fn small_worlds_of_two_environments() {
    small("environments", Small::ONE_RACE.about(About::Environments));
}

#[test]
fn small_worlds_of_three_changes_with_everything_once() {
    runner::random("three changes, everything once", 250, |choices, trace| {
        play(choices, 3, Small::ALL_ONCE, trace)
    });
}

fn random(name: &str, histories: u64, shape: fn(&mut Choices) -> Shape) {
    runner::random(name, histories, |choices, trace| driver::run(choices, shape, trace));
}

/// Some histories of two changes, or all of as many changes as `SIMULATION_CHANGES` says.
fn small(name: &str, limits: Small) {
    match runner::Settings::read().changes {
        None => runner::random(name, 1_000, |choices, trace| play(choices, 2, limits, trace)),
        Some(changes) => {
            let changes = u32::try_from(changes).expect("SIMULATION_CHANGES is a small number");
            runner::exhaustive(&format!("{changes} changes, {name}"), |choices, trace| {
                play(choices, changes, limits, trace)
            });
        }
    }
}

fn play(choices: Choices, changes: u32, limits: Small, trace: bool) -> State {
    driver::run(choices, |choices| Shape::small(choices, changes, limits), trace)
}
