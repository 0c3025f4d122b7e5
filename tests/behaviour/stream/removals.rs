//! Removed indexes and shop ids that moved: which keys go, which stay, and which come back. The unit tests of
//! a removal have a row for each verdict, and for each failure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Request;
use testbed::kv::KvVerb::{DeleteBulk, GetBulk};
use testbed::kv::Stored;
use testbed::stack::SETTINGS;

use crate::helpers::*;

/// A world from whose table a/i, with the shop id s.example, was removed: what KV holds, and the
/// records of the removal.
async fn removal(world: &World) -> (BTreeMap<String, Stored>, Vec<Value>) {
    let item = shop("a", "i", "s.example");
    world.settled_with([item.clone(), index("z", "other")]).await;
    world.remove(&item);
    (world.stack.kv.snapshot(SETTINGS), world.new_records())
}

#[tokio::test]
async fn a_shop_id_that_moved_is_removed_where_the_stream_carries_old_images() {
    let world = World::with_old_images().await;
    world.settled_with([shop("a", "i", "old.example")]).await;
    world.stack.table.put(&shop("a", "i", "new.example"));

    world.deliver().await;

    assert_eq!(world.setting_keys(), ["a-i", "new.example"]);
}

#[tokio::test]
async fn a_removal_takes_both_keys_with_one_delete_whatever_the_stream_carries() {
    // Without an old image, KV's value under the index id has to be read for the shop id.
    for (world, reads) in [(World::start().await, 2), (World::with_old_images().await, 1)] {
        let (_, records) = removal(&world).await;

        let answered = world.batch_ok(records).await;

        assert_eq!(world.setting_keys(), ["z-other"]);
        assert_eq!(answered.counted("SettingsKeysDeleted"), 2);
        assert_eq!(world.deletes(), [["a-i", "s.example"]]);
        let verbs: Vec<_> = world.stack.kv.log().iter().map(|call| call.verb).collect();
        assert_eq!(verbs, [&[GetBulk; 2][..reads], &[DeleteBulk]].concat());
        assert_eq!(world.passes(), 2, "before the delete, and after it");
    }
}

/// The pass reads only the attributes that can hold aliases.
#[tokio::test]
async fn removed_indexes_keep_their_keys_while_active_aliases_of_any_kind_point_at_them() {
    let block = |block: Value| json!({"index_aliases": block});
    let write_alias = json!({"index_write_aliases": [{"shop_id": "3.example"}]});
    let ways = [
        ("read", json!({"read_alias": "a-i0", "index_endpoint": 7})),
        (
            "write",
            block(json!({"doc_writes": {"enabled": true, "targets": [{"index_id": "a-i1"}]}})),
        ),
        ("count", block(json!({"analytics": {"enabled": true, "index_id": "a-i2"}}))),
        ("legacy", json!({"add_docs_config": write_alias})),
    ];
    let world = World::start().await;
    let removed = (0..4).map(|n| shop("a", &format!("i{n}"), &format!("{n}.example")));
    world.settled_with(removed.clone()).await;
    removed.for_each(|item| world.remove(&item));
    let records = world.new_records();
    world.load(ways.map(|(name, alias)| index_with("b", name, alias)));

    let answered = world.batch_ok(records).await;

    let stay = ["0.example", "1.example", "2.example", "3.example", "a-i0", "a-i1", "a-i2"];
    assert_eq!(world.setting_keys(), stay, "an alias of a shop id keeps that key alone");
    assert_eq!(world.deletes(), [["a-i3"]]);
    assert_eq!(answered.counted("DeletesWithheld"), 7);
    let warnings = world.logs.warnings();
    let pointers = warnings.iter().map(|line| line["pointers"].to_string());
    let named = |name: &str| pointers.clone().filter(|pointers| pointers.contains(name)).count();
    assert_eq!(["b/read", "b/write", "b/count", "b/legacy"].map(named), [2, 2, 2, 1]);
}

#[tokio::test]
async fn a_removal_deletes_what_is_ours_and_leaves_what_others_wrote() {
    use Writer::{EarlierVersion, OtherEnvironment, Ours, Predecessor};
    let world = World::start().await;
    for (name, of_index_id, of_shop_id) in [
        ("1", Ours, Ours),
        ("2", EarlierVersion, EarlierVersion),
        ("3", Predecessor, Predecessor),
        ("4", Ours, OtherEnvironment),
        ("5", OtherEnvironment, OtherEnvironment),
    ] {
        let value = held_shop("a", name, &format!("{name}.example"));
        world.hold(SETTINGS, &format!("a-{name}"), &value, of_index_id);
        world.hold(SETTINGS, &format!("{name}.example"), &value, of_shop_id);
    }

    let records = (1..=5).map(|number| removed(number, "a", &format!("INDEX#{number}")));
    world.batch_ok(records).await;

    assert_eq!(world.setting_keys(), ["4.example", "5.example", "a-5"]);
}

#[tokio::test]
async fn keys_that_kv_reports_absent_are_not_deleted_and_left_to_a_repair() {
    let world = World::with_old_images().await;
    world.stack.kv.freeze_values(SETTINGS);
    let (held, records) = removal(&world).await;

    world.batch_ok(records).await;

    assert_eq!(world.stack.kv.snapshot(SETTINGS), held);
    assert!(world.deletes().is_empty() && world.logs.warnings().is_empty());

    world.stack.kv.catch_up(SETTINGS);
    world.report(&repair()).await;
    assert_eq!(world.setting_keys(), ["z-other"]);
}

#[tokio::test]
async fn a_key_that_an_alias_begins_to_need_during_its_delete_is_put_back_as_it_was() {
    let world = World::start().await;
    let (held, records) = removal(&world).await;
    world.break_kv(deletes(world.after(|table| table.put(&pointing("b", "live", "a-i")))));

    let answered = world.batch_ok(records).await;

    assert_eq!(world.stack.kv.snapshot(SETTINGS), held, "values and metadata");
    assert_eq!(answered.counted("DeletesRestored"), 2);
    assert_eq!(world.passes(), 3, "what is put back goes through the removal again");
}

#[tokio::test]
async fn a_put_back_that_fails_names_its_key_and_fails_the_record() {
    let world = World::start().await;
    let (_, records) = removal(&world).await;
    world.break_kv(deletes(world.after(|table| table.put(&pointing("b", "live", "a-i")))));
    world.break_puts(100, Fault::status(500));

    let answered = world.batch(records).await;

    assert_eq!(answered.failures().len(), 1);
    assert_eq!(answered.counted("PutBacksFailed"), 2);
    let errors = world.logs.at("ERROR");
    let named = |key: &str| errors.iter().filter(|line| line["key"] == key).count();
    assert_eq!(["a-i", "s.example"].map(named), [1, 1], "{errors:?}");
}

#[tokio::test]
async fn where_the_pass_behind_a_delete_hangs_everything_is_put_back_in_time() {
    let world = World::start().await;
    let (held, records) = removal(&world).await;
    let table = world.stack.table.clone();
    let hang_after_delete = move |request: &Request| {
        let deletes = request.path.ends_with("/bulk/delete");
        if deletes {
            table.faults().add(scans(Fault::Hang).forever());
        }
        deletes
    };
    world.break_kv(Rule::when(hang_after_delete, Fault::after(|| {})));

    let event = testbed::stream::event(records.clone());
    let answered = world.handle_within(&event, Duration::from_secs(8)).await;

    assert_eq!(answered.failures().len(), 1);
    assert_eq!(world.stack.kv.snapshot(SETTINGS), held, "values and metadata");
    assert_eq!(answered.counted("DeletesRestored"), 2);

    world.stack.table.faults().clear();
    world.batch_ok(records).await;
    assert_eq!(world.setting_keys(), ["z-other"], "the next delivery ends it");
}

#[tokio::test]
async fn a_flood_of_removals_is_held_and_everything_else_of_the_batch_is_done() {
    let world = World::with_env(&[("REMOVALS_UP_TO", "3")]).await;
    let items = (1..=5).map(|n| index("a", &format!("i{n}")));
    world.settled_with(items.clone()).await;
    items.for_each(|item| world.remove(&item));
    world.load([index("a", "new")]);
    let removals = (1..=4).map(|n| removed(n, "a", &format!("INDEX#i{n}")));
    let others = [written(5, &index("a", "new")), removed(6, "a", "INDEX#i1#QUERY#q")];

    let answered = world.batch_ok(removals.chain(others)).await;

    assert_eq!(world.setting_keys(), ["a-i1", "a-i2", "a-i3", "a-i4", "a-i5", "a-new"]);
    assert_eq!(answered.counted("RemovalsHeld"), 4);
    assert_eq!(answered.counted("RecordsExported"), 2);
    let [line] = &world.logs.at("ERROR")[..] else { panic!("{}", world.logs.text()) };
    assert_eq!(line["removals"], 4);
    assert_eq!(line["items"], r#"["a/i1","a/i2","a/i3","a/i4"]"#);

    world.report(&repair()).await;
    assert_eq!(world.setting_keys(), ["a-new"], "a reconcile's orphans");
}
