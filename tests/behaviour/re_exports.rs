//! Re-exports by hand: what they report, and how they race the stream.

use serde_json::json;
use testbed::faults::{Fault, Rule};
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use crate::helpers::*;

#[tokio::test]
async fn a_re_export_reads_consistently_writes_both_keys_and_reads_again() {
    let world = World::start().await;
    world.stack.table.put(&shop("a", "i", "s.example"));
    world.stack.table.put(&query_config("a", "i", "q", 1));

    let answered = world.handle(&re_export("a", "i")).await;

    assert_eq!(
        *answered.ok(),
        json!({
            "system_account_id": "a", "index_name": "i", "outcome": "exported",
            "settings_keys": ["s.example", "a-i"],
            "query_configs": {"exported": 0, "rejected": 0},
        })
    );
    assert_eq!(world.setting_keys(), ["a-i", "s.example"]);
    assert_eq!(world.query_config_keys(), NOTHING);
    let reads = world.stack.table.log();
    assert_eq!(reads.len(), 2);
    assert!(reads.iter().all(|read| read.consistent && read.operation == "BatchGetItem"));
    let put = &world.puts(SETTINGS)[0];
    assert!(reads[0].finished_at.unwrap() <= put.received_at);
    assert!(put.finished_at.unwrap() <= reads[1].received_at);
}

#[tokio::test]
async fn a_record_that_is_not_there_is_an_error_and_kv_is_left_alone() {
    let world = World::start().await;
    world.stack.kv.put(SETTINGS, "a-i", "stays", None);

    // The second name is longer than any that a table can hold.
    for name in ["i", &"i".repeat(1_100)] {
        let answered = world.handle(&re_export_all("a", name)).await;
        assert_eq!(answered.error().kind, "IndexNotFound", "{name}");
    }
    assert!(world.stack.kv.log().is_empty());
}

#[tokio::test]
async fn a_record_that_cannot_be_exported_is_an_error_with_the_path_of_its_fault() {
    let world = World::start().await;
    let heavy = json!({"doc_reads": {"targets": [{"index_id": "x", "weight": 2}]}});
    for (more, path) in [
        (json!({"index_endpoint": "not a url"}), "index_endpoint"),
        (json!({"index_aliases": heavy}), "index_aliases.doc_reads.targets[0].weight"),
    ] {
        world.stack.table.put(&index_with("a", "i", more));

        let answered = world.handle(&re_export("a", "i")).await;

        assert_eq!(answered.error().kind, "RecordRejected");
        assert!(answered.error().message.contains(path), "{}", answered.error().message);
    }
    world.stack.table.put(&index("a", "i"));
    world.stack.api_keys.remove("a");
    let answered = world.handle(&re_export("a", "i")).await;
    assert_eq!(answered.error().kind, "RecordRejected");
    assert!(answered.error().message.contains("system_account_id"));
    assert_eq!(world.verbs(), [KvVerb::GetBulk], "KV may hold an API key of its own");
}

#[tokio::test]
async fn a_record_that_changes_meanwhile_is_written_again_with_the_same_key() {
    let world = World::start().await;
    world.stack.table.put(&shop("a", "i", "s.example"));
    let change = world.before(move |table| {
        table.put(&index_with("a", "i", json!({"shop_id": "s.example", "pixel_id": "new"})))
    });
    world.break_kv(writes(change));

    let answered = world.handle(&re_export("a", "i")).await;

    assert_eq!(answered.ok()["outcome"], "exported");
    for key in ["a-i", "s.example"] {
        assert_eq!(world.setting(key).unwrap()["pixel_id"], "new");
    }
    assert_eq!(world.puts_done(SETTINGS).len(), 2);
    assert_eq!(world.stack.api_keys.log().len(), 1);
}

#[tokio::test]
async fn a_record_that_is_removed_meanwhile_leaves_nothing_behind() {
    let world = World::start().await;
    world.stack.table.put(&shop("a", "i", "s.example"));
    world.stack.table.put(&query_config("a", "i", "q", 1));
    let remove = world.after(|table| table.delete("a", "INDEX#i"));
    world.break_kv(writes(remove));

    let answered = world.handle(&re_export("a", "i")).await;

    assert_eq!(answered.ok()["outcome"], "removed");
    assert_eq!(answered.ok()["settings_keys"], json!([]));
    assert_eq!(world.setting_keys(), NOTHING);
}

#[tokio::test]
async fn query_configs_are_counted_and_those_that_cannot_be_exported_are_logged() {
    let world = World::start().await;
    world.stack.table.put(&index("a", "i"));
    world.stack.table.put(&index("a", "i2"));
    world.stack.table.put(&query_config("a", "i2", "another index'", 1));
    for n in 0..5 {
        world.stack.table.put(&query_config("a", "i", &format!("q#{n} ü"), n));
    }
    let beyond =
        json!({"pk": {"S": "a"}, "sk": {"S": "INDEX#i#QUERY#bad"}, "boost": {"N": "1E125"}});
    world.stack.table.put_item(&beyond);

    let answered = world.handle(&re_export_all("a", "i")).await;

    let counts = &answered.ok()["query_configs"];
    let exported = world.query_config_keys().len();
    assert_eq!(*counts, json!({"exported": exported, "rejected": 6 - exported}));
    let first = query_config_key("a", "i", "q#0 ü");
    assert!(world.query_config_keys().contains(&first));
}

#[tokio::test]
async fn query_configs_that_change_or_go_meanwhile_are_written_again_or_removed() {
    let world = World::start().await;
    world.stack.table.put(&index("a", "i"));
    for query in ["changes", "goes", "stays"] {
        world.stack.table.put(&query_config("a", "i", query, 1));
    }
    let change = world.after(|table| {
        table.put(&query_config("a", "i", "changes", 2));
        table.delete("a", "INDEX#i#QUERY#goes");
    });
    world.break_kv(Rule::on("PUT", format!("/{QUERY_CONFIGS}/bulk"), change));

    let answered = world.handle(&re_export_all("a", "i")).await;

    assert_eq!(answered.ok()["query_configs"], json!({"exported": 2, "rejected": 0}));
    let mut expected = ["changes", "stays"].map(|query| query_config_key("a", "i", query));
    expected.sort();
    assert_eq!(world.query_config_keys(), expected);
    assert_eq!(world.query_config("a", "i", "changes").unwrap()["boost"], 2);
    let puts = world.puts_done(QUERY_CONFIGS);
    assert_eq!(puts.iter().map(|put| put.pairs).collect::<Vec<_>>(), [3, 1]);
}

#[tokio::test]
async fn a_query_config_that_goes_while_it_is_written_and_cannot_be_removed_is_named() {
    let world = World::start().await;
    world.load([index("a", "i"), query_config("a", "i", "q", 1)]);
    let delete = world.after(|table| table.delete("a", "INDEX#i#QUERY#q"));
    world.break_kv(Rule::on("PUT", "/query-configs/bulk", delete));
    world.break_kv(deletes(Fault::status(400)).forever());

    let answered = world.handle(&re_export_all("a", "i")).await;

    assert_eq!(answered.error().kind, "ReExportIncomplete");
    let (message, key) = (&answered.error().message, query_config_key("a", "i", "q"));
    assert!(message.contains(&format!("key {key:?} could not be removed")), "{message}");
}
