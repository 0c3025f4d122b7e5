//! Two query configs with one key: `p` of `a/b-c` and of `a-b/c`.

use super::case::*;
use crate::world::{
    self, Call, Content, IndexRef, Namespace, Planned, Shape, State, change, query_item_key,
    query_kv_key, query_value, settle_query_in,
};

fn twins() -> [IndexRef; 2] {
    [world::index("a", "b-c"), world::index("a-b", "c")]
}

fn put_twin(state: &mut State, twin: usize, version: u32) {
    change(state, 0, &query_item_key(&twins()[twin], "p"), Some(Content::Query(version)));
}

fn remove_twin(state: &mut State, twin: usize) {
    change(state, 0, &query_item_key(&twins()[twin], "p"), None);
}

fn survived(first: fn(&mut State), script: Vec<Planned>) -> State {
    let case = Case { old_images: true, before: Vec::new(), first, script };
    unbroken(case.play(|shape| Shape { indexes: twins().to_vec(), ..shape }))
}

fn assert_held(state: &State, twin: usize, version: u32) {
    let [first, _] = twins();
    let held = state.held(Namespace::QueryConfigs, &query_kv_key(&first, "p"));
    let value = query_value(&twins()[twin], "p", version);
    assert_eq!(held.map(|held| held.value.clone()), Some(value), "{}", trace(state));
}

#[test]
fn the_removal_of_the_one_writes_the_key_for_the_other() {
    let state = survived(
        |state| {
            for twin in twins() {
                settle_query_in(state, 0, &twin, "p");
            }
            remove_twin(state, 1);
        },
        Vec::new(),
    );
    assert_held(&state, 0, 1);
}

#[test]
fn the_other_changes_while_the_key_is_written_for_it() {
    let state = survived(
        |state| {
            for twin in twins() {
                settle_query_in(state, 0, &twin, "p");
            }
            remove_twin(state, 1);
        },
        vec![at(0, Call::KvWrite, 0).event(|state| put_twin(state, 0, 3)).overtaken()],
    );
    assert_held(&state, 0, 3);
}

#[test]
fn the_other_comes_while_the_key_is_deleted() {
    let state = survived(
        |state| {
            settle_query_in(state, 0, &twins()[0], "p");
            remove_twin(state, 0);
        },
        vec![at(0, Call::KvWrite, 0).event(|state| put_twin(state, 1, 2)).overtaken()],
    );
    assert_held(&state, 1, 2);
}
