//! A deterministic simulation of the exporter and its world. `docs/simulation.md` describes it.

mod answers;
mod calls;
mod checks;
mod choices;
mod driver;
mod events;
mod faults;
mod held;
mod keys;
mod kv;
mod model;
mod named;
mod operators;
mod past;
mod ports;
mod reconciled;
mod runner;
mod settled;
mod shape;
mod sim;
mod start;
mod state;

use choices::Choices;
use shape::{Limits, Shape};
use state::State;

#[test]
fn random_histories_leave_kv_as_the_table_asks() {
    runner::random("random histories", 2_000, |choices, trace| {
        driver::run(choices, Shape::random, start::prepare, trace)
    });
}

#[test]
fn after_any_history_one_quiet_reconcile_leaves_kv_equal_to_the_table() {
    runner::random("histories with reconcile", 2_000, |choices, trace| {
        driver::run(choices, Shape::with_reconcile, start::prepare, trace)
    });
}

const ONE_FAULT: Limits = Limits { faults: 1, delays: 0, interruptions: 0, re_exports: false };
const ONE_RACE: Limits = Limits { faults: 0, delays: 1, interruptions: 1, re_exports: false };
const ALL_ONCE: Limits = Limits { faults: 1, delays: 1, interruptions: 1, re_exports: true };

#[test]
fn every_small_world_with_one_fault() {
    let changes = changes();
    runner::exhaustive(&format!("{changes} changes, one fault"), |choices, trace| {
        small(choices, changes, ONE_FAULT, trace)
    });
}

#[test]
fn every_small_world_with_one_overtaken_call() {
    let changes = changes();
    runner::exhaustive(&format!("{changes} changes, one race"), |choices, trace| {
        small(choices, changes, ONE_RACE, trace)
    });
}

#[test]
fn small_worlds_of_three_changes_with_everything_once() {
    runner::random("three changes, a fault, a race, a re-export", 1_000, |choices, trace| {
        small(choices, 3, ALL_ONCE, trace)
    });
}

/// `SIMULATION_CHANGES`, else two. Two changes take seconds, three take half an hour.
fn changes() -> u32 {
    let changes = runner::Settings::read().changes.unwrap_or(2);
    u32::try_from(changes).expect("SIMULATION_CHANGES is a small number")
}

fn small(choices: Choices, changes: u32, limits: Limits, trace: bool) -> State {
    let shape = |choices: &mut Choices| Shape::small(choices, changes, limits);
    driver::run(choices, shape, start::prepare, trace)
}
