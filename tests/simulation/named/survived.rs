//! What the exporter survives by itself.

use super::case::*;
use crate::world::{
    Call, Content, Failure, Fault, Flaw, Image, Namespace, Planned, Settings, Shape, State, change,
    item_key, query_item_key, query_kv_key, query_value, set,
};

fn survived(case: Case) -> State {
    unbroken(case.alone())
}

#[test]
fn a_removal_and_a_re_creation_with_another_shop_id_in_one_batch() {
    let state = survived(Case {
        first: |state| {
            remove(state, "a");
            put(state, "a", shop("t"));
        },
        ..with_shop_s()
    });
    assert_eq!(holds(&state, "s"), None);
    assert_eq!(holds(&state, "t"), value("a", 2));
}

#[test]
fn a_shop_id_handed_over_while_a_second_consumer_writes_it() {
    let state = survived(Case {
        first: |state| put(state, "a", shop("t")),
        // The first request writes version 2, the second deletes `s`.
        script: vec![at(0, Call::KvWrite, 1).event(|state| put(state, "b", shop("s"))).overtaken()],
        ..with_shop_s()
    });
    assert_eq!(holds(&state, "s"), value("b", 3));
}

#[test]
fn an_alias_switched_on_between_the_look_and_the_delete() {
    let state = survived(Case {
        first: |state| remove(state, "a"),
        script: vec![at(0, Call::KvWrite, 0).event(|state| put(state, "b", reads("a-x")))],
        ..with_shop_s()
    });
    assert_eq!(holds(&state, "a-x"), value("a", 1));
    assert_eq!(holds(&state, "s"), value("a", 1));
    assert_eq!(state.stats.restored, 2);
}

#[test]
fn a_re_export_that_removes_what_the_stream_has_just_written_again() {
    let state = survived(Case {
        first: |state| re_export(state, "a"),
        script: vec![
            at(0, Call::ApiKey, 0).event(|state| remove(state, "a")),
            at(0, Call::KvWrite, 0).overtaken(),
            at(0, Call::KvWrite, 1).event(|state| put(state, "a", shop("s"))).overtaken(),
        ],
        ..with_shop_s()
    });
    assert_eq!(holds(&state, "a-x"), value("a", 2));
    assert_eq!(holds(&state, "s"), value("a", 2));
}

/// `a/x` with the query config `p`, which KV does not have yet, and a re-export of both.
fn re_export_of_a_query_config(script: Vec<Planned>) -> Case {
    Case {
        old_images: true,
        before: vec![("a", shop("s"))],
        first: |state| {
            let key = query_item_key(&index("a"), "p");
            let image = Image::new(&key, Content::Query(1));
            set(state, 0, &key, Some(image));
            state.environments[0].re_exports.push((index("a"), true));
        },
        script,
    }
}

fn assert_query_config(state: &State, version: u32) {
    let held = state.held(Namespace::QueryConfigs, &query_kv_key(&index("a"), "p"));
    let value = query_value(&index("a"), "p", version);
    assert_eq!(held.map(|held| held.value.clone()), Some(value), "{}", trace(state));
}

#[test]
fn a_re_export_that_writes_a_query_config_over_the_newer_one_of_the_stream() {
    // The settings are written, then the query config.
    let state = survived(re_export_of_a_query_config(vec![
        at(0, Call::KvWrite, 1).event(|state| put_query(state, "a", Some(2))).overtaken(),
    ]));
    assert_query_config(&state, 2);
}

#[test]
fn a_re_export_that_removes_a_query_config_that_the_stream_has_just_written_again() {
    let state = survived(re_export_of_a_query_config(vec![
        // The settings are read twice, then the query config; this reads it again.
        at(0, Call::Table, 3)
            .event(|state| change(state, 0, &query_item_key(&index("a"), "p"), None)),
        // The settings are written, then the query config; this deletes it.
        at(0, Call::KvWrite, 2).event(|state| put_query(state, "a", Some(2))).overtaken(),
    ]));
    assert_query_config(&state, 2);
}

#[test]
fn a_removal_ends_though_its_shop_id_stays_for_an_item_that_cannot_be_exported() {
    let state = survived(Case {
        old_images: false,
        first: |state| {
            put(state, "b", Settings { flaw: Some(Flaw::NoEndpoint), ..shop("s") });
            remove(state, "a");
        },
        ..with_shop_s()
    });
    assert_eq!(holds(&state, "a-x"), None);
    assert_eq!(holds(&state, "s"), value("a", 1));
}

/// Without old images, only the value under the index id names the shop id, which `b/x` has too. The
/// removal writes version 2 of it over version 3. Then something goes wrong.
#[test]
fn a_removal_that_writes_an_older_version_and_fails_is_tried_again_with_the_shop_id() {
    let refused = Fault::Fail { why: Failure::Refused, done: false };
    for fault in [refused, Fault::Crash { done: false }, Fault::Crash { done: true }] {
        let state = survived(Case {
            old_images: false,
            before: vec![("a", shop("s")), ("b", shop("s"))],
            first: |state| remove(state, "a"),
            script: vec![
                at(0, Call::KvWrite, 0).event(|state| put(state, "b", shop("s"))).overtaken(),
                at(0, Call::KvWrite, 1).fault(fault),
            ],
        });
        assert_eq!(holds(&state, "s"), value("b", 3));
        assert_eq!(holds(&state, "a-x"), None);
    }
}

#[test]
fn an_alias_protects_its_target_though_its_own_record_fails() {
    let case = Case {
        first: |state| {
            put(state, "b", reads("a-x"));
            remove(state, "a");
        },
        script: vec![
            at(0, Call::ApiKey, 0).fault(Fault::Fail { why: Failure::Refused, done: false }),
        ],
        ..with_shop_s()
    };
    // One batch of both records.
    let state = unbroken(case.play(|shape| Shape { shards: 1, ..shape }));
    assert!(has_failed(&state), "{}", trace(&state));
    assert_eq!(holds(&state, "a-x"), value("a", 1));
    assert_eq!(holds(&state, "s"), value("a", 1));
}

/// Whether the first invocation's answer names a record.
fn has_failed(state: &State) -> bool {
    state.trace.iter().flatten().any(|line| line.contains("[0] answers [\""))
}

#[test]
fn settling_gives_up_after_five_rounds_and_the_retry_gets_through() {
    let toggle = |state: &mut State| {
        let claimed = state.environments[0].current(&item_key(&index("b"))).is_some();
        if claimed { remove(state, "b") } else { put(state, "b", shop("s")) }
    };
    let state = survived(Case {
        first: |state| remove(state, "a"),
        script: (0..40).map(|nth| at(0, Call::KvWrite, nth).event(toggle)).collect(),
        ..with_shop_s()
    });
    assert!(has_failed(&state), "{}", trace(&state));
    assert_eq!(state.invocations[0].passes, 6);
}
