//! Keys of query configs.

use serde_json::{Value, json};
use testbed::kv::KvVerb;
use testbed::stack::QUERY_CONFIGS;

use super::asking::*;
use crate::helpers::*;

fn item(query: &str, boost: u32) -> Value {
    query_config("a", "i", query, boost)
}

#[tokio::test]
async fn a_query_config_is_taken_for_the_one_that_its_value_names() {
    let world = World::start().await;
    world.settled_with([item("q", 1), item("r", 1)]).await;
    let key = query_config_key("a", "i", "q");

    let report = asked(&world, &of_key(&key)).await;
    assert_eq!(verdicts(&report), [(key.as_str(), "right")]);
    assert_eq!((&report["index_name"], &report["item"]), (&json!("i"), &json!("exportable")));
    assert_eq!(world.stack.table.operations().get("Scan"), None, "no pass over the table");
    assert_eq!(world.stack.kv.log_of(KvVerb::GetBulk).len(), 1);

    world.stack.table.put(&item("q", 2));
    let report = asked(&world, &of_key(&key)).await;
    assert_eq!(verdicts(&report), [(key.as_str(), "stale")]);
    assert_eq!(report["keys"][0]["differs"], json!(["boost"]));
    assert!(advice(&report).contains("ACCOUNT=a INDEX=i QUERY_CONFIGS=true"), "{report}");

    world.stack.table.delete("a", "INDEX#i#QUERY#q");
    let report = asked(&world, &of_key(&key)).await;
    assert_eq!(verdicts(&report), [(key.as_str(), "orphaned")]);
    assert_eq!(report["item"], "absent");
    assert!(advice(&report).contains("make reconcile APPLY=true ACCOUNT=a,"), "{report}");
}

#[tokio::test]
async fn a_missing_query_config_is_found_among_those_of_its_index() {
    let world = World::start().await;
    for query in ["p", "q", "r"] {
        world.stack.table.put(&item(query, 1));
    }
    let key = query_config_key("a", "i", "q");

    let report = asked(&world, &of_key(&key)).await;

    assert_eq!(verdicts(&report), [(key.as_str(), "missing")]);
    assert!(advice(&report).contains("QUERY_CONFIGS=true"), "{report}");
    let unknown = query_config_key("a", "i", "unknown");
    assert_eq!(world.handle(&of_key(&unknown)).await.error().kind, "IndexNotFound");
}

#[tokio::test]
async fn two_query_configs_with_one_key_are_conflicting() {
    let world = World::start().await;
    world.settled_with([query_config("a", "b-c", "q", 1)]).await;
    world.stack.table.put(&query_config("a-b", "c", "q", 2));
    let key = query_config_key("a", "b-c", "q");

    let report = asked(&world, &of_key(&key)).await;

    assert_eq!(verdicts(&report), [(key.as_str(), "conflicting")]);
    assert_eq!(report["keys"][0]["claimed_by"], json!([named("a", "b-c"), named("a-b", "c")]));
    assert_eq!(report["keys"][0]["differs"], json!([]), "the one that KV names has it");
}

#[tokio::test]
async fn foreign_rejected_and_unremovable_query_configs() {
    let world = World::start().await;
    let key = |query: &str| query_config_key("a", "i", query);
    let theirs = held_query_config("a", "i", "theirs");
    world.hold(QUERY_CONFIGS, &key("theirs"), &theirs, Writer::OtherEnvironment);
    world.hold(QUERY_CONFIGS, &key("taken"), &theirs, Writer::OtherEnvironment);
    world.stack.table.put(&item("taken", 1));
    let other = held_query_config("a", "i", "other");
    world.hold(QUERY_CONFIGS, &key("mixed up"), &other, Writer::Ours);

    for (query, verdict, says) in [
        ("theirs", "foreign", "another environment has written it"),
        ("taken", "conflicting", "Environment another has written"),
        ("mixed up", "orphaned", "delete it by hand"),
    ] {
        let report = asked(&world, &of_key(&key(query))).await;
        assert_eq!(verdicts(&report), [(key(query).as_str(), verdict)], "{report}");
        assert!(advice(&report).contains(says), "{report}");
        assert_eq!(report["index_name"], "i");
    }
}

#[tokio::test]
async fn a_settings_key_may_begin_like_a_query_configs() {
    let world = World::start().await;
    world.settled_with([shop("qcfg", "i", "qcfg-shop.example")]).await;

    let report = asked(&world, &of_key("qcfg-i")).await;

    assert_eq!(verdicts(&report), [("qcfg-shop.example", "right"), ("qcfg-i", "right")]);
}
