//! What an explain reads and logs, and what follows where it can't read.

use serde_json::json;
use testbed::kv::KvVerb;
use testbed::stack::SETTINGS;

use super::asking::*;
use crate::helpers::*;

#[tokio::test]
async fn an_explain_takes_at_most_three_requests_to_kv_and_two_consistent_passes() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "old.example"), shop("b", "j", "t.example")]).await;
    world.load([shop("a", "i", "new.example"), shop("c", "k", "x.example")]);
    world.stack.kv.put(SETTINGS, "x.example", "stranger", None);

    for payload in [
        explain_index("a", "i"),
        explain_key("old.example"),
        explain_key("a-i"),
        // No value of ours under the key names an index.
        explain_key("new.example"),
        explain_key("x.example"),
        explain_key("t.example"),
    ] {
        world.forget();
        asked(&world, &payload).await;

        assert!((1..=3).contains(&world.stack.kv.log_of(KvVerb::GetBulk).len()), "{payload}");
        assert!((1..=2).contains(&world.passes()), "{payload}");
        assert!(world.stack.table.log().iter().all(|request| request.consistent), "{payload}");
        assert_eq!(world.stack.api_keys.log().len(), 1, "{payload}");
    }
}

#[tokio::test]
async fn many_targets_and_pointers_are_cut_and_take_no_more_requests() {
    let world = World::start().await;
    let pointers = (0..110).map(|n| pointing("a", &format!("p{n}"), "a-i"));
    world.load(pointers.chain([index("a", "i")]));
    let targets: Vec<_> = (0..110).map(|n| json!({"index_id": format!("a-t{n}")})).collect();
    let aliases = json!({"index_aliases": {"doc_writes": {"enabled": true, "targets": targets}}});

    let report = world.report(&trying(&with(index("a", "i"), aliases))).await;

    let [targets, pointers] =
        ["targets", "pointed_at_by"].map(|name| report[name].as_array().unwrap().len());
    assert_eq!((targets, pointers), (90, 100));
    assert!(world.stack.kv.log_of(KvVerb::GetBulk).len() <= 3);
}

#[tokio::test]
async fn an_explain_is_one_log_line_and_no_finding() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;
    world.stack.kv.delete(SETTINGS, "a-i");

    let answered = world.handle(&explain_key("s.example")).await;

    let lines = world.logs.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let fields = ["message", "source", "outcome"].map(|name| &lines[0][name]);
    assert_eq!(fields, ["invocation", "explain", "ok"]);
    for metric in ["DriftedKeys", "ItemsRejected", "KeysConflicting", "DanglingAliases"] {
        assert_eq!(answered.found(metric), None, "{metric}");
    }
}
