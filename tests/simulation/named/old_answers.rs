//! Answers of KV that are up to a minute old, of absence too.

use super::case::*;
use crate::world::{Call, Settings, Shape, State};

fn survived(case: Case) -> State {
    let state = unbroken(case.play(|shape| Shape { max_batch: 1, ..shape }));
    assert!(state.stats.old_answers > 0, "{}", trace(&state));
    state
}

#[test]
fn a_removal_deletes_a_key_that_kv_does_not_show_yet() {
    let state = survived(Case {
        first: |state| {
            put(state, "a", Settings::default());
            remove(state, "a");
        },
        script: vec![at(1, Call::KvRead, 0).old()],
        ..empty()
    });
    assert_eq!(holds(&state, "a-x"), None);
}

#[test]
fn a_shop_id_that_kv_still_shows_for_its_former_holder_stays_with_the_present_one() {
    let state = survived(Case {
        first: |state| put(state, "a", shop("t")),
        // `b/x` takes over the shop id, and is exported before the move of `a/x` reads KV.
        script: vec![
            at(0, Call::KvWrite, 0).event(|state| put(state, "b", shop("s"))).overtaken(),
            at(0, Call::KvRead, 0).old(),
        ],
        ..with_shop_s()
    });
    assert_eq!(holds(&state, "s"), value("b", 3));
    assert_eq!(holds(&state, "t"), value("a", 2));
}
