//! A deterministic simulation of the exporter and its world. `docs/simulation.md` describes it.

mod checks;
mod choices;
mod explain;
#[path = "../support/fakes.rs"]
#[expect(dead_code, reason = "the unit tests script more")]
mod fakes;
#[path = "../support/memory.rs"]
#[expect(dead_code, reason = "the unit tests name keys, and have requests that time out")]
mod memory;
mod play;
mod re_export;
mod reconcile;
mod runner;
mod services;
mod world;

use choices::Choices;
// The modules that `fakes` names, as the unit tests do.
use ecom_settings_exporter::{config, export, index, item, kv, ports};
use world::Shape;

#[test]
fn random_histories_leave_kv_as_the_table_asks() {
    random("random histories", 500, Shape::random);
}

#[test]
fn with_reconciles_at_any_moment_too() {
    random("histories with reconcile", 500, Shape::with_reconcile);
}

#[test]
fn two_environments_on_one_kv_leave_each_others_keys_alone() {
    random("histories of two environments", 250, Shape::shared);
}

#[test]
fn a_repair_keeps_to_its_brakes_whatever_happens_to_it() {
    random("histories of many keys", 40, Shape::crowded);
}

#[test]
fn deliveries_that_are_repeated_and_late_undo_nothing_for_long() {
    random("repeated deliveries", 250, Shape::repeated);
}

/// Draws the shape of a small world with this number of events.
type SmallShape = fn(&mut Choices, u32) -> Shape;

/// Some histories of two changes, or all of as many changes as `SIMULATION_CHANGES` says.
#[test]
fn small_worlds() {
    let small: [(&str, SmallShape); 7] = [
        ("no disturbance", Shape::small),
        ("one fault", |choices, events| Shape { faults: 1, ..Shape::small(choices, events) }),
        ("one fault and one race", |choices, events| {
            let small = Shape::small(choices, events);
            Shape { faults: 1, delays: 1, interruptions: 1, ..small }
        }),
        ("one race with re-exports", |choices, events| {
            let small = Shape::small_with_re_exports(choices, events);
            Shape { delays: 1, interruptions: 1, ..small }
        }),
        ("one stale read", |choices, events| Shape {
            stale_reads: 1,
            ..Shape::small(choices, events)
        }),
        ("one late delivery with re-exports", |choices, events| Shape {
            stops: 1,
            ..Shape::small_with_re_exports(choices, events)
        }),
        ("one race of two environments", |choices, events| {
            let small = Shape::small_environments(choices, events);
            Shape { delays: 1, interruptions: 1, ..small }
        }),
    ];
    for (name, shape) in small {
        let play = |events, choices, trace| play::run(choices, |it| shape(it, events), trace);
        match runner::Settings::read().changes {
            None => runner::random(name, 1_000, |choices, trace| play(2, choices, trace)),
            Some(events) => {
                runner::exhaustive(&format!("{events} changes, {name}"), |choices, trace| {
                    play(events, choices, trace)
                })
            }
        }
    }
}

fn random(name: &str, histories: u64, shape: fn(&mut Choices) -> Shape) {
    runner::random(name, histories, |choices, trace| play::run(choices, shape, trace));
}
