//! A deleted value is put back on every way out of settling, as soon as it is uncertain whether it
//! should be gone. That this is done is checked at every answer.

use super::case::*;
use crate::world::{Call, Failure, Fault, Flaw, Planned, Settings, State, item_key};

/// The removal of `a/x`, which has the shop id `s`. The delete is the first write.
fn removal(script: Vec<Planned>) -> State {
    let (before, first) = (vec![("a", shop("s"))], |state: &mut State| remove(state, "a"));
    unbroken(Case { old_images: true, before, first, script }.alone())
}

#[test]
fn the_look_after_the_delete_fails() {
    let failed = Fault::Fail { why: Failure::Transient, done: false };
    for fault in [failed, Fault::Hang { done: false }] {
        let state = removal(vec![
            at(0, Call::KvWrite, 0).event(|state| put(state, "b", reads("a-x"))),
            at(0, Call::Table, 1).fault(fault),
        ]);
        assert_eq!(holds(&state, "a-x"), value("a", 1));
        assert_eq!(holds(&state, "s"), value("a", 1));
        assert_eq!(state.stats.restored, 2, "{}", trace(&state));
    }
}

#[test]
fn the_api_key_of_who_asks_for_the_key_is_unavailable() {
    let state = removal(vec![
        at(0, Call::KvWrite, 0).event(|state| put(state, "b", shop("s"))),
        at(0, Call::ApiKey, 0).fault(Fault::Fail { why: Failure::Refused, done: false }),
        // The record of `b/x` comes later.
        at(1, Call::ApiKey, 0).overtaken(),
    ]);
    assert_eq!(holds(&state, "s"), value("b", 2));
    assert_eq!(state.stats.restored, 1, "{}", trace(&state));
}

#[test]
fn the_rounds_are_over() {
    let toggle = |state: &mut State| {
        let claimed = state.environments[0].current(&item_key(&index("b"))).is_some();
        if claimed { remove(state, "b") } else { put(state, "b", shop("s")) }
    };
    // Nothing changes any more after the last of five rounds, which deletes.
    let toggles = (0..5).map(|nth| at(0, Call::KvWrite, nth).event(toggle));
    // The records of `b/x` come later.
    let state = removal(toggles.chain([at(1, Call::ApiKey, 0).overtaken()]).collect());
    assert_eq!(state.invocations[0].passes, 6);
    assert_eq!(state.stats.restored, 1, "{}", trace(&state));
}

/// Nobody would look after a delete that takes all the time.
#[test]
fn the_delete_is_never_answered() {
    let state = removal(vec![
        at(0, Call::KvWrite, 0)
            .event(|state| {
                put(state, "a", Settings { flaw: Some(Flaw::NoEndpoint), ..shop("s") });
            })
            .fault(Fault::Hang { done: true }),
    ]);
    assert_eq!(holds(&state, "a-x"), value("a", 1));
    assert_eq!(holds(&state, "s"), value("a", 1));
    assert_eq!(state.stats.restored, 2, "{}", trace(&state));
}
