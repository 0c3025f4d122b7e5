//! What a repair does not do by itself.

use super::case::*;
use crate::world::{Crowd, Shape, crowd, item_key, set};

/// The table is restored without its items, and without a stream record for any of them.
#[test]
fn a_repair_against_an_emptied_table_deletes_nothing() {
    let state =
        Case { first: |state| set(state, 0, &item_key(&index("a")), None), ..with_shop_s() }
            .reconciled();
    assert_eq!(holds(&state, "a-x"), value("a", 1));
    assert_eq!(holds(&state, "s"), value("a", 1));
    assert_eq!(state.stats.refused, 2);
}

/// An audit and a repair, then one that is told to: each says what it refuses, and the last refuses
/// nothing.
#[test]
fn a_repair_deletes_a_hundred_keys_or_none() {
    for (orphans, refused) in [(100, 0), (101, 101)] {
        let case = Case { old_images: true, before: Vec::new(), first: crowd, script: Vec::new() };
        let state = unbroken(case.play(|shape| Shape {
            reconciles: true,
            crowd: Crowd { orphans, right: 1, ..Crowd::default() },
            ..shape
        }));
        assert_eq!(state.stats.refused, refused);
    }
}
