//! Records that are delivered more than a minute late.

use super::case::*;
use crate::world::{Call, Failure, Fault, OTHER_CELL, Settings, Shape, State};

/// Each delivery comes late, and holds one record.
fn late(first: fn(&mut State), special: impl FnOnce(Shape) -> Shape) -> State {
    let case = Case { old_images: true, before: Vec::new(), first, script: Vec::new() };
    unbroken(case.play(|shape| special(Shape { stops: true, max_batch: 1, ..shape })))
}

#[test]
fn the_table_decides_and_not_the_image() {
    let first = |state: &mut State| {
        put(state, "a", shop("s"));
        put(state, "a", shop("s"));
    };
    let state = late(first, |shape| shape);
    assert_eq!(state.invocations[0].first_written["a-x"], 2, "{}", trace(&state));
}

#[test]
fn the_image_of_an_item_that_is_gone_is_not_written() {
    let first = |state: &mut State| {
        put(state, "a", shop("s"));
        remove(state, "a");
    };
    let state = late(first, |shape| shape);
    assert!(state.invocations[0].attempted.is_empty(), "{}", trace(&state));
    assert_eq!(holds(&state, "a-x"), None);
}

/// Puts an item into a cell whose gateway gives nothing for minutes.
fn into_a_dead_cell(state: &mut State) {
    put(state, "a", Settings { cell: Some(OTHER_CELL), ..shop("s") });
}

#[test]
fn a_record_that_lacks_only_its_api_key_is_parked_until_a_reconcile() {
    let dead = |shape| Shape { dead_gateway: true, ..shape };
    let parked = late(into_a_dead_cell, dead);
    assert_eq!((parked.stats.parked, holds(&parked, "s")), (1, None), "{}", trace(&parked));

    let reconciled = late(into_a_dead_cell, |shape| Shape { reconciles: true, ..dead(shape) });
    assert_eq!(holds(&reconciled, "s"), value("a", 1));
}

#[test]
fn a_record_in_time_that_lacks_its_api_key_is_tried_again() {
    let case = Case {
        first: into_a_dead_cell,
        script: vec![
            at(0, Call::ApiKey, 0).fault(Fault::Fail { why: Failure::Refused, done: false }),
        ],
        ..empty()
    };
    let state = unbroken(case.alone());
    assert_eq!((state.stats.parked, holds(&state, "s")), (0, value("a", 1)));
}
