//! What the exporter does not survive without a reconcile. Each case runs without one and with one.

use ecom_settings_exporter::export::reconcile::Class;

use super::case::*;
use crate::world::{Call, Fault, Flaw, Namespace, Settings};

/// The client gives up on version 2 and sends it again; version 3 follows; then the first request
/// lands.
fn late_write() -> Case {
    Case {
        old_images: true,
        before: vec![("a", shop("s"))],
        first: |state| put(state, "a", shop("s")),
        script: vec![
            at(0, Call::KvWrite, 0).fault(Fault::Late),
            at(0, Call::KvWrite, 1).event(|state| put(state, "a", shop("s"))),
        ],
    }
}

#[test]
fn a_write_that_lands_after_its_client_gave_up() {
    let alone = late_write().alone();
    let rule = alone.violation.as_ref().map(|(rule, _)| *rule);
    assert_eq!(rule, Some("at rest, KV is what the table asks for"));
    assert_eq!(holds(&alone, "s"), value("a", 2));

    let reconciled = late_write().reconciled();
    assert_eq!(holds(&reconciled, "s"), value("a", 3));
    assert_eq!(reconciled.report.unwrap().found[Namespace::Settings][Class::Stale], 2);
}

/// The re-export reads version 1. The stream writes version 2. The re-export writes version 1 and
/// dies.
fn half_a_re_export() -> Case {
    Case {
        old_images: true,
        before: vec![("a", shop("s"))],
        first: |state| re_export(state, "a"),
        script: vec![
            at(0, Call::ApiKey, 0).event(|state| put(state, "a", shop("s"))),
            at(0, Call::KvWrite, 0).overtaken(),
            at(0, Call::Table, 1).fault(Fault::Crash { done: false }),
        ],
    }
}

#[test]
fn a_re_export_that_dies_half_way() {
    assert_eq!(holds(&half_a_re_export().alone(), "s"), value("a", 1));
    assert_eq!(holds(&half_a_re_export().reconciled(), "s"), value("a", 2));
}

/// Without old images, only the value under the index id names the shop id. The consumer deletes
/// the shop id's key just after another index wrote it, then the index id's key, and dies.
fn half_a_removal() -> Case {
    Case {
        old_images: false,
        before: vec![("a", shop("s"))],
        first: |state| remove(state, "a"),
        script: vec![
            at(0, Call::KvWrite, 0).event(|state| put(state, "b", shop("s"))).overtaken(),
            at(0, Call::KvWrite, 1).fault(Fault::Crash { done: true }),
        ],
    }
}

#[test]
fn a_consumer_that_dies_half_way_through_a_removal_without_old_images() {
    assert_eq!(holds(&half_a_removal().alone(), "s"), None);
    assert_eq!(holds(&half_a_removal().reconciled(), "s"), value("b", 2));
}

#[test]
fn with_old_images_the_retry_finds_the_shop_id() {
    let survived = Case { old_images: true, ..half_a_removal() };
    let survived = unbroken(survived.alone());
    assert_eq!(holds(&survived, "s"), value("b", 2));
}

/// The alias comes just before the delete, and the consumer dies just after it.
fn half_a_removal_of_a_target() -> Case {
    Case {
        old_images: true,
        before: vec![("a", shop("s"))],
        first: |state| remove(state, "a"),
        script: vec![
            at(0, Call::KvWrite, 0)
                .event(|state| put(state, "b", reads("a-x")))
                .fault(Fault::Crash { done: true }),
        ],
    }
}

#[test]
fn a_consumer_that_dies_between_a_delete_and_the_look_behind_it_leaves_an_alias_dangling() {
    assert_eq!(holds(&half_a_removal_of_a_target().alone(), "a-x"), None);
    let reconciled = half_a_removal_of_a_target().reconciled();
    assert_eq!(holds(&reconciled, "a-x"), None);
    assert_eq!(reconciled.report.unwrap().found[Namespace::Settings][Class::Dangling], 1);
}

fn moved_shop_id() -> Case {
    Case {
        old_images: false,
        before: vec![("a", shop("s"))],
        first: |state| put(state, "a", shop("t")),
        script: Vec::new(),
    }
}

#[test]
fn without_old_images_a_shop_id_that_moved() {
    assert_eq!(holds(&moved_shop_id().alone(), "s"), value("a", 1));
    let reconciled = moved_shop_id().reconciled();
    assert_eq!(holds(&reconciled, "s"), None);
    assert_eq!(holds(&reconciled, "t"), value("a", 2));
    let with_old_images = Case { old_images: true, ..moved_shop_id() }.alone();
    assert_eq!(holds(&with_old_images, "s"), None);
}

/// The alias comes after the removal's last look at the table. An earlier change of the other
/// index, still on its way, sets the moment.
fn aliased_in_the_very_moment() -> Case {
    Case {
        old_images: true,
        before: vec![("a", shop("s"))],
        first: |state| {
            remove(state, "a");
            put(state, "b", Settings::default());
        },
        script: vec![
            at(1, Call::ApiKey, 0).overtaken(),
            at(1, Call::KvWrite, 0).event(|state| put(state, "b", reads("a-x"))),
        ],
    }
}

#[test]
fn a_target_that_becomes_aliased_in_the_very_moment_of_its_removal() {
    assert_eq!(holds(&aliased_in_the_very_moment().alone(), "a-x"), None);
    let reconciled = aliased_in_the_very_moment().reconciled();
    assert_eq!(holds(&reconciled, "a-x"), None);
    assert_eq!(reconciled.report.unwrap().found[Namespace::Settings][Class::Dangling], 1);
}

/// A re-export writes version 1 after the removal of its item, and deletes it again. It puts it
/// back for version 3, which can't be exported. Meanwhile the stream has written version 2.
fn put_back_over_a_newer_one() -> Case {
    Case {
        old_images: true,
        before: vec![("a", Settings::default())],
        first: |state| re_export(state, "a"),
        script: vec![
            at(0, Call::ApiKey, 0).event(|state| remove(state, "a")),
            at(0, Call::KvWrite, 0).overtaken(),
            // Two reads of the item, a look at the table, then this: the look after the delete.
            at(0, Call::Table, 3).event(|state| put(state, "a", Settings::default())).overtaken(),
            at(0, Call::Table, 4).event(|state| {
                put(state, "a", Settings { flaw: Some(Flaw::NoEndpoint), ..Settings::default() });
            }),
        ],
    }
}

#[test]
fn a_key_that_a_re_export_puts_back_over_a_newer_one() {
    let alone = unbroken(put_back_over_a_newer_one().alone());
    assert_eq!(holds(&alone, "a-x"), value("a", 1), "{}", trace(&alone));
    // The table has no good version of it any more: the next good edit is what puts it right.
    assert_eq!(holds(&put_back_over_a_newer_one().reconciled(), "a-x"), value("a", 1));
}

/// The index that holds the shop id goes. The first that asks for it is broken, and so keeps it from the
/// second. It gives it up while it is still broken: its record is rejected, and settles nothing.
fn shop_id_given_up_by_a_broken_edit() -> Case {
    Case {
        old_images: true,
        before: vec![("b", shop("s")), ("c", shop("s"))],
        first: |state| {
            put(state, "a", Settings { flaw: Some(Flaw::NoEndpoint), ..shop("s") });
            remove(state, "c");
            put_query(state, "b", Some(1));
            put_query(state, "b", None);
        },
        // The other shard sets the moment: after the removal.
        script: vec![
            at(1, Call::Table, 0).overtaken(),
            at(1, Call::KvWrite, 0).event(|state| {
                put(state, "a", Settings { flaw: Some(Flaw::NoEndpoint), ..Settings::default() });
            }),
        ],
    }
}

#[test]
fn a_shop_id_that_a_broken_edit_gives_up() {
    let alone = unbroken(shop_id_given_up_by_a_broken_edit().alone());
    assert_eq!(holds(&alone, "s"), value("c", 2), "{}", trace(&alone));
    assert_eq!(holds(&shop_id_given_up_by_a_broken_edit().reconciled(), "s"), value("b", 1));
}
