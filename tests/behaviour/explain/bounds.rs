//! What an explain reads, and what follows where it can't.

use std::time::Duration;

use serde_json::json;
use testbed::faults::Fault;
use testbed::kv::KvVerb;
use testbed::stack::SETTINGS;

use super::asking::*;
use crate::helpers::*;

#[tokio::test]
async fn at_most_three_requests_to_kv_and_two_consistent_passes_whatever_is_asked() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "old.example"), shop("b", "j", "t.example")]).await;
    world.stack.table.put(&shop("a", "i", "new.example"));
    world.stack.kv.put(SETTINGS, "x.example", "stranger", None);
    world.stack.table.put(&shop("c", "k", "x.example"));

    for (payload, requests, passes) in [
        (of_index("a", "i"), 2, 1),
        (of_key("old.example"), 2, 1),
        (of_key("a-i"), 2, 1),
        // No value of ours under the key names an index.
        (of_key("new.example"), 3, 2),
        (of_key("x.example"), 2, 2),
        (of_key("t.example"), 2, 1),
    ] {
        world.forget();
        asked(&world, &payload).await;

        assert_eq!(world.stack.kv.log().len(), requests, "{payload}");
        assert_eq!(world.stack.kv.log_of(KvVerb::GetBulk).len(), requests, "{payload}");
        assert_eq!(world.passes(), passes, "{payload}");
        assert!(world.stack.table.log().iter().all(|request| request.consistent), "{payload}");
        assert_eq!(world.stack.api_keys.log().len(), 1, "{payload}");
    }
}

#[tokio::test]
async fn an_api_key_that_cannot_be_had_is_not_compared_and_the_advice_says_so() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;
    world.break_api_keys(Fault::status(503));

    let report = asked(&world, &of_index("a", "i")).await;
    assert_eq!(verdicts(&report), [("s.example", "right"), ("a-i", "right")]);
    assert_eq!(report["item"], "exportable");
    let says = "marqo_api_key was not compared, because the account's API key was unavailable";
    assert!(advice(&report).contains(says), "{report}");
    assert_eq!(world.stack.kv.log_of(KvVerb::GetBulk).len(), 1, "KV is not asked for one");

    world.stack.table.put(&index_with("a", "i", json!({"shop_id": "s.example", "pixel_id": "p"})));
    let report = asked(&world, &of_index("a", "i")).await;
    assert_eq!(key(&report, "s.example")["differs"], json!(["pixel_id"]));
    assert!(advice(&report).contains(says), "{report}");

    world.stack.kv.delete(SETTINGS, "a-i");
    world.stack.kv.delete(SETTINGS, "s.example");
    let report = asked(&world, &of_index("a", "i")).await;
    assert_eq!(verdicts(&report), [("s.example", "missing"), ("a-i", "missing")]);
    assert!(advice(&report).contains("when the gateway of its cell gives it again"), "{report}");
}

#[tokio::test]
async fn a_service_that_fails_is_named() {
    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;

    world.break_kv(reads(Fault::status(500)).forever());
    let answered = world.handle(&of_index("a", "i")).await;
    assert_eq!(answered.error().kind, "ExplainIncomplete");
    assert!(answered.error().message.contains("Cloudflare KV: status 500"), "{answered:?}");
    world.stack.kv.faults().clear();

    world.stack.kv.set_token("another");
    assert_eq!(world.handle(&of_key("a-i")).await.error().kind, "CloudflareAuthRejected");
    world.stack.kv.set_token(testbed::stack::TOKEN);

    world.break_table(scans(denied()).forever());
    for payload in [of_index("a", "i"), of_key("a-i"), of_key("unknown")] {
        let answered = world.handle(&payload).await;
        assert_eq!(answered.error().kind, "ExplainIncomplete");
        assert!(answered.error().message.contains("AccessDenied"), "{answered:?}");
    }
}

#[tokio::test]
async fn a_pass_that_hangs_ends_with_the_invocations_time() {
    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    world.break_table(scans(Fault::Hang).forever());

    let answered = world.handle_within(&of_index("a", "i"), Duration::from_secs(3)).await;

    assert_eq!(answered.error().kind, "ExplainIncomplete");
    assert!(answered.error().message.contains("time is up"), "{answered:?}");
}

#[tokio::test]
async fn an_explain_is_one_log_line_and_no_finding() {
    let world = World::start().await;
    world.settled_with([shop("a", "i", "s.example")]).await;
    world.stack.kv.delete(SETTINGS, "a-i");

    let answered = world.handle(&of_key("s.example")).await;

    let lines = world.logs.lines();
    assert_eq!(lines.len(), 1, "{lines:?}");
    let fields = ["message", "source", "outcome", "system_account_id"].map(|name| &lines[0][name]);
    assert_eq!(fields, ["invocation", "explain", "ok", "a"]);
    for metric in ["DriftedKeys", "ItemsRejected", "KeysConflicting", "DanglingAliases"] {
        assert_eq!(answered.counted(metric), None, "{metric}");
    }
}

#[tokio::test]
async fn lists_are_bounded() {
    let world = World::start().await;
    let pointers =
        (0..150).map(|n| index_with("b", &format!("i{n:03}"), json!({"read_alias": "a-i"})));
    world.stack.table.load(pointers.map(|item| testbed::table::to_item(&item)));
    world.settled_with([index("a", "i")]).await;

    let report = asked(&world, &of_index("a", "i")).await;

    assert_eq!(report["pointed_at_by"].as_array().unwrap().len(), 100);
}
