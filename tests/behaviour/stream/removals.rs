//! Removed indexes and shop ids that moved: which keys go, which stay, and which come back.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Request;
use testbed::kv::{KvVerb, Stored};
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
    for world in [World::start().await, World::with_old_images().await] {
        let (_, records) = removal(&world).await;

        let answered = world.batch_ok(records).await;

        assert_eq!(world.setting_keys(), ["z-other"]);
        assert_eq!(answered.counted("SettingsKeysDeleted"), 2);
        assert_eq!(world.deletes(), [["a-i", "s.example"]]);
        let steps = [KvVerb::GetBulk, KvVerb::DeleteBulk];
        assert_eq!(world.verbs().into_iter().rev().take(2).rev().collect::<Vec<_>>(), steps);
        assert_eq!(world.passes(), 2, "before the delete, and behind it");
    }
}

/// Every way in which an item can point at a/i, whose shop id is s.example.
fn pointers() -> Vec<(&'static str, Value)> {
    let target = json!([{"index_id": "a-i"}]);
    let unweighted = json!([{"index_id": "a-i", "weight": 0.0}]);
    let block = |name: &str, block: Value| json!({"index_aliases": {name: block}});
    let write_alias = |entry: Value| json!({"add_docs_config": {"index_write_aliases": [entry]}});
    let by_names = json!({"system_account_id": "a", "index_name": "i"});
    vec![
        ("doc_reads", block("doc_reads", json!({"enabled": true, "targets": unweighted}))),
        ("doc_writes", block("doc_writes", json!({"enabled": true, "targets": target}))),
        ("analytics", block("analytics", json!({"enabled": true, "index_id": "a-i"}))),
        ("read_alias", json!({"read_alias": "a-i"})),
        ("write alias by index id", write_alias(json!({"index_id": "a-i"}))),
        ("write alias by account and name", write_alias(by_names)),
        ("undecodable otherwise", json!({"read_alias": "a-i", "index_endpoint": 7})),
        ("an item that is no index", json!({"sk": "INDEX#DEFAULT_CONFIG", "read_alias": "a-i"})),
    ]
}

#[tokio::test]
async fn a_removed_index_keeps_its_keys_while_an_active_alias_points_at_it() {
    for (way, alias) in pointers() {
        let _row = row(way);
        let world = World::start().await;
        let (held, records) = removal(&world).await;
        let pointer = index_with("b", "live", alias);
        world.load([pointer.clone()]);

        let answered = world.batch_ok(records).await;

        assert_eq!(world.stack.kv.snapshot(SETTINGS), held);
        assert!(world.deletes().is_empty());
        assert_eq!(answered.counted("DeletesWithheld"), 2);
        let warnings = world.logs.warnings();
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        let name = pointer["sk"].as_str().unwrap().trim_start_matches("INDEX#");
        assert!(warnings.iter().all(|line| line["pointers"].to_string().contains(name)));
    }
}

#[tokio::test]
async fn an_alias_that_names_a_shop_id_keeps_that_key_alone() {
    let world = World::start().await;
    let (_, records) = removal(&world).await;
    let write_aliases = json!({"index_write_aliases": [{"shop_id": "s.example"}]});
    world.load([index_with("b", "live", json!({"add_docs_config": write_aliases}))]);

    world.batch_ok(records).await;

    assert_eq!(world.setting_keys(), ["s.example", "z-other"]);
}

#[tokio::test]
async fn a_removal_deletes_what_is_ours_and_leaves_what_others_wrote() {
    use Writer::{EarlierVersion, OtherEnvironment, Ours, Predecessor};
    let cases: [(Writer, Writer, &[&str]); 5] = [
        (Ours, Ours, &[]),
        (EarlierVersion, EarlierVersion, &[]),
        (Predecessor, Predecessor, &[]),
        (Ours, OtherEnvironment, &["s.example"]),
        (OtherEnvironment, OtherEnvironment, &["a-i", "s.example"]),
    ];
    for (of_index_id, of_shop_id, stays) in cases {
        let _row = row(format!("{of_index_id:?}, {of_shop_id:?}"));
        let world = World::start().await;
        let value = held_shop("a", "i", "s.example");
        world.hold(SETTINGS, "a-i", &value, of_index_id);
        world.hold(SETTINGS, "s.example", &value, of_shop_id);

        world.batch_ok([removed(1, "a", "INDEX#i")]).await;

        assert_eq!(world.setting_keys(), stays);
        assert!(!world.deletes().concat().iter().any(|key| stays.contains(&key.as_str())));
    }
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
async fn a_shop_id_that_was_handed_over_is_written_for_its_claimant_and_no_other_key_is_touched() {
    let world = World::start().await;
    let (_, records) = removal(&world).await;
    world.load([shop("b", "new", "s.example")]);

    world.batch_ok(records).await;

    assert_eq!(world.setting_keys(), ["s.example", "z-other"]);
    let value = world.setting("s.example").unwrap();
    assert_eq!([&value["system_account_id"], &value["marqo_api_key"]], ["b", "key-b"]);
    assert_eq!(world.deletes(), [["a-i"]]);
}

#[tokio::test]
async fn a_key_that_an_alias_begins_to_need_during_its_delete_is_put_back_as_it_was() {
    for (name, delete) in [("delete", None), ("lost", Some(Fault::ApplyThenStatus(500)))] {
        let _row = row(name);
        let world = World::start().await;
        let (held, records) = removal(&world).await;
        let point = |table: &testbed::table::Table| table.put(&pointing("b", "live", "a-i"));
        world.break_kv(deletes(delete.unwrap_or_else(|| world.after(point))));
        world.break_kv(deletes(world.before(point)));

        let answered = world.batch_ok(records).await;

        assert_eq!(world.stack.kv.snapshot(SETTINGS), held, "values and metadata");
        assert_eq!(answered.counted("DeletesRestored"), 2);
        assert_eq!(world.passes(), 3, "what is put back goes through the removal again");
    }
}

/// Breaks each pass from the first delete on. The deletes meet `delete`.
fn break_passes_behind_a_delete(world: &World, pass: Fault, delete: Fault) {
    let table = world.stack.table.clone();
    let picks = move |request: &Request| {
        let deletes = request.path.ends_with("/bulk/delete");
        if deletes {
            table.faults().add(scans(pass.clone()).forever());
        }
        deletes
    };
    world.break_kv(Rule::when(picks, delete).forever());
}

#[tokio::test]
async fn where_the_pass_behind_a_delete_fails_everything_is_put_back_and_the_records_fail() {
    let done = || Fault::before(|| {});
    for (name, pass, delete, seconds) in [
        ("denied", denied(), done(), 60),
        ("other JSON", Fault::WrongJson, done(), 60),
        ("hangs", Fault::Hang, done(), 8),
        ("the delete's answer is lost", denied(), Fault::ApplyThenStatus(500), 60),
    ] {
        let _row = row(name);
        let world = World::start().await;
        let (held, records) = removal(&world).await;
        break_passes_behind_a_delete(&world, pass, delete);

        let event = testbed::stream::event(records.clone());
        let answered = world.handle_within(&event, Duration::from_secs(seconds)).await;

        assert_eq!(answered.failures().len(), 1);
        assert_eq!(world.stack.kv.snapshot(SETTINGS), held, "values and metadata");
        assert_eq!(answered.counted("DeletesRestored"), 2);

        world.stack.kv.faults().clear();
        world.stack.table.faults().clear();
        world.batch_ok(records).await;
        assert_eq!(world.setting_keys(), ["z-other"], "the next delivery ends it");
    }
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
    for key in ["a-i", "s.example"] {
        assert!(errors.iter().any(|line| line["key"] == key), "{key}: {errors:?}");
    }
}

#[tokio::test]
async fn a_pass_that_fails_deletes_nothing() {
    for (name, pass) in [
        ("throttled", scans(Fault::throttled()).forever()),
        ("no list of items", scans(Fault::Answer(testbed::http::Reply::json(200, &json!({}))))),
        ("one page of it is denied", scans(denied()).after(1)),
    ] {
        let _row = row(name);
        let world = World::start().await;
        let (held, records) = removal(&world).await;
        world.break_table(pass);

        assert_eq!(world.batch(records).await.failures().len(), 1);

        assert_eq!(world.stack.kv.snapshot(SETTINGS), held);
        assert!(world.deletes().is_empty());
    }
}
