//! A deterministic simulation of the exporter in its world; `docs/simulation.md` says what of.

mod answers;
mod checks;
mod choices;
mod driver;
mod events;
mod faults;
mod model;
mod named;
mod past;
mod ports;
mod reconciled;
mod runner;
mod settled;
mod shape;
mod state;

use shape::{Limits, Shape};

#[test]
fn random_histories_leave_kv_as_the_table_asks() {
    runner::random("random histories", 2_000, |choices, trace| {
        driver::run(choices, Shape::random, events::prepare, trace)
    });
}

#[test]
fn after_any_history_one_quiet_reconcile_leaves_kv_equal_to_the_table() {
    runner::random("histories with reconcile", 2_000, |choices, trace| {
        driver::run(choices, Shape::with_reconcile, events::prepare, trace)
    });
}

#[test]
fn small_worlds_with_one_fault() {
    let limits = Limits { faults: 1, delays: 0, interruptions: 0, re_exports: false };
    small("small worlds, three changes, one fault", 3, limits, 20_000);
}

#[test]
fn small_worlds_with_one_overtaken_call() {
    let limits = Limits { faults: 0, delays: 1, interruptions: 1, re_exports: false };
    small("small worlds, three changes, one overtaken call", 3, limits, 20_000);
}

#[test]
fn small_worlds_with_everything_once() {
    let limits = Limits { faults: 1, delays: 1, interruptions: 1, re_exports: true };
    small("small worlds, two changes, a fault, an overtaken call, a re-export", 2, limits, 20_000);
}

fn small(name: &str, events: u32, limits: Limits, most: u64) {
    runner::exhaustive(name, most, |choices, trace| {
        driver::run(
            choices,
            |choices| Shape::small(choices, events, limits),
            events::prepare,
            trace,
        )
    });
}
