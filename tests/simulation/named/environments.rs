//! Two environments that share KV by mistake: the keys of each are its own.

use ecom_settings_exporter::export::reconcile::Class;

use super::case::*;
use crate::world::{Namespace, Reconcile, Shape, State, change, item_key, settle_in};

/// Both have `a/x` with the shop id `s`, and KV holds the second's.
fn shared(first: fn(&mut State)) -> State {
    let case = Case { old_images: true, before: vec![("a", shop("s"))], first, script: Vec::new() };
    unbroken(case.play(|shape| Shape { environments: 2, reconciles: true, ..shape }))
}

fn second_has_it(state: &mut State) {
    settle_in(state, 1, &index("a"), shop("s"));
}

#[test]
fn the_removal_of_an_index_leaves_another_environments_keys() {
    let state = shared(|state| {
        second_has_it(state);
        remove(state, "a");
    });
    assert_eq!(holds(&state, "a-x"), value("a", 2));
    assert_eq!(holds(&state, "s"), value("a", 2));
}

#[test]
fn a_repair_leaves_another_environments_keys_and_reports_them() {
    let state = shared(second_has_it);
    assert_eq!(holds(&state, "a-x"), value("a", 2));
    // The last reconcile is the second environment's, whose keys they are.
    assert_eq!(state.report.unwrap().found[Namespace::Settings][Class::Conflicting], 0);
    assert_eq!(state.stats.taken, 0);
}

#[test]
fn a_repair_that_is_told_to_takes_another_environments_keys() {
    let state = shared(|state| {
        second_has_it(state);
        let told = Reconcile { rewrite_up_to: Some(1_000), ..Reconcile::repair() };
        state.environments[0].reconciles.push(told);
    });
    assert_eq!(state.stats.taken, 2, "{}", trace(&state));
    assert_eq!(holds(&state, "a-x"), value("a", 1));
}

#[test]
fn what_one_environment_gives_up_the_others_next_repair_writes() {
    let state = shared(|state| {
        second_has_it(state);
        change(state, 1, &item_key(&index("a")), None);
    });
    assert_eq!(holds(&state, "a-x"), value("a", 1));
    assert_eq!(holds(&state, "s"), value("a", 1));
}
