//! Runs that end before all is compared, and go on in the next one.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Reply;
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::drift::*;
use crate::helpers::*;

/// How long each run has, and how long Cloudflare's limit takes to be reset: longer than a run
/// lists, and short enough for a delete and the look after it.
const TIME: Duration = Duration::from_secs(12);
const RESET: Duration = Duration::from_secs(6);

/// A repair that goes on where the run before it ended.
fn next_run(report: &Value) -> Value {
    repair_with(json!({"continue": report["continue"]}))
}

/// Leaves so few requests until the reset that a run lists one page before it.
fn leave_one_page(world: &World) {
    world.stack.kv.limit_requests(1_200, RESET);
    world.stack.kv.use_requests(600);
}

/// More strangers' keys than a page of the listing holds, before all of ours.
fn many_strangers(world: &World) {
    for number in 0..1_500 {
        world.stack.kv.put(SETTINGS, &format!("0-stranger-{number:04}"), "x", None);
    }
}

#[tokio::test]
async fn a_run_that_is_short_of_requests_mends_what_it_has_compared_and_the_next_one_goes_on() {
    let world = World::start().await;
    world.settled_with([shop("a", "stays", "stays.example"), index("a", "orphan")]).await;
    world.stack.table.delete("a", "INDEX#orphan");
    many_strangers(&world);
    world.load([shop("0-a", "missing", "0-first.example"), query_config("a", "stays", "q", 1)]);
    leave_one_page(&world);

    let mut report = world.handle_within(&repair(), TIME).await.ok().clone();

    assert_eq!(report["complete"], false, "{report}");
    assert_eq!(report["settings"]["listed"], 1_000, "{report}");
    assert_eq!(report["settings"]["written"], 2, "what was compared is mended: {report}");
    assert_eq!(report["settings"]["orphaned"], 0, "{report}");

    let mut listed = vec![1_000];
    while report.get("continue").is_some() {
        report = world.handle_within(&next_run(&report), TIME).await.ok().clone();
        listed.push(report["settings"]["listed"].as_u64().unwrap());
        assert!(listed.len() < 10, "{report}");
    }

    assert_eq!(report["complete"], true, "{report}");
    // The keys that the first run has written come before the place where it ended.
    assert_eq!(listed.iter().sum::<u64>(), 1_500 + 3, "every key is compared once");
    assert_eq!(world.setting("a-orphan"), None);
    assert_eq!(world.query_config_keys().len(), 1);
    assert!(world.stack.kv.log().iter().all(|request| request.status != Some(429)));
}

#[tokio::test]
async fn a_continue_that_is_not_of_this_chain_is_refused_before_anything_is_read() {
    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    many_strangers(&world);
    leave_one_page(&world);
    let report = world.handle_within(&repair(), TIME).await.ok().clone();
    let text = report["continue"].as_str().unwrap().to_owned();
    world.forget();

    let cut = json!(text[..text.len() - 1]);
    for payload in [cut, json!("x"), json!(""), json!(7), json!(null)]
        .map(|text| repair_with(json!({"continue": text})))
        .into_iter()
        .chain([repair_with(json!({"continue": text, "system_account_id": "a"}))])
        .chain([json!({"reconcile": {"continue": text}})])
    {
        let answered = world.handle(&payload).await;
        assert_eq!(answered.error().kind, "InvalidPayload", "{payload}");
        assert!(answered.error().message.contains("continue must be"), "{payload}");
    }
    assert!(world.stack.kv.log().is_empty() && world.stack.table.log().is_empty());
}

#[tokio::test]
async fn query_configs_that_cannot_be_listed_do_not_hold_up_the_settings() {
    let world = World::start().await;
    world.settled_with([index("a", "orphan"), query_config("a", "i", "orphan", 1)]).await;
    world.stack.table.delete("a", "INDEX#orphan");
    world.stack.table.delete("a", "INDEX#i#QUERY#orphan");
    world.load([index("a", "missing"), query_config("a", "i", "missing", 1)]);
    let path = format!("/{QUERY_CONFIGS}/keys");
    world.break_kv(Rule::on("GET", path, Fault::status(503)).forever());

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(world.setting_keys(), ["a-missing"]);
    assert_eq!(report["complete"], false, "{report}");
    let stopped = report["stopped"].as_str().unwrap();
    assert!(stopped.contains("listing of QueryConfigs") && stopped.contains("503"), "{stopped}");
    assert!(!stopped.contains("nothing was written"), "{stopped}");

    world.stack.kv.faults().clear();
    let report = world.handle(&next_run(&report)).await.ok().clone();
    assert_eq!(report["complete"], true, "{report}");
    assert_eq!(counts(&report, "settings"), json!({}), "they were compared before");
    assert_eq!(world.query_config_keys(), [query_config_key("a", "i", "missing")]);
}

#[tokio::test]
async fn a_part_of_empty_pages_finds_nothing_missing() {
    let world = World::start().await;
    world.load([index("a", "i")]);
    let empty = json!({"success": true, "errors": [], "messages": [], "result": [],
        "result_info": {"count": 0, "cursor": "behind"}});
    let none_left = format!("\"default\";r=599;t={}", RESET.as_secs());
    let empty = Fault::Answer(Reply::json(200, &empty).with("ratelimit", &none_left));
    world.break_kv(Rule::on("GET", "/settings/keys", empty));

    let report = world.handle_within(&repair(), TIME).await.ok().clone();

    assert!(report["continue"].is_string(), "{report}");
    assert_eq!(counts(&report, "settings"), json!({}));
    assert!(world.setting_keys().is_empty());
}

#[tokio::test]
async fn settings_are_written_before_the_query_configs_in_one_listing_and_one_pass() {
    let world = World::start().await;
    world.load([index("a", "i"), query_config("a", "i", "q", 1)]);

    world.handle(&repair()).await.ok();

    let log = world.stack.kv.log();
    let asked: Vec<_> =
        log.iter().map(|request| (request.verb, request.namespace.as_str())).collect();
    let steps = [KvVerb::ListKeys, KvVerb::PutBulk]
        .map(|verb| [SETTINGS, QUERY_CONFIGS].map(|namespace| (verb, namespace)));
    assert_eq!(asked, steps.concat());
}

#[tokio::test]
async fn a_brake_holds_for_a_whole_chain_and_for_deletes_whose_answers_are_lost() {
    for (delete, [deleted, failed]) in
        [(Fault::before(|| {}), [60, 0]), (Fault::ApplyThenStatus(500), [0, 60])]
    {
        let _row = row(format!("{deleted} deletes are confirmed"));
        let world = World::start().await;
        world.load([index("z", "stays")]);
        // The first run is short of requests before it comes to the orphans of `b`.
        for (account, number) in [("a", 60), ("b", 41)] {
            for orphan in 0..number {
                let name = format!("gone-{orphan:04}");
                let value = held_settings(account, &name);
                world.hold(SETTINGS, &format!("{account}-{name}"), &value, Writer::Ours);
            }
        }
        for number in 0..1_000 {
            world.stack.kv.put(SETTINGS, &format!("a-stranger-{number:04}"), "x", None);
        }
        leave_one_page(&world);
        world.break_kv(deletes(delete).forever());

        let first = world.handle_within(&repair(), TIME).await.ok().clone();
        world.stack.kv.faults().clear();
        assert_eq!(first.get("refused"), None, "{first}");
        assert_eq!(first["settings"]["deleted"], deleted, "{first}");
        assert_eq!(first["settings"]["failed"], failed, "{first}");

        let second = world.handle(&next_run(&first)).await.ok().clone();
        assert_eq!(second["settings"]["deleted"], 0, "{second}");
        assert_eq!(second["refused"], json!({"delete": 41, "rewrite": 0}), "{second}");

        let raised = json!({"continue": first["continue"], "delete_up_to": 101});
        let third = world.handle(&repair_with(raised)).await.ok().clone();
        assert_eq!(third["settings"]["deleted"], 41, "the number is the whole chain's: {third}");
    }
}

#[tokio::test]
async fn the_metrics_of_a_later_run_still_tell_what_an_earlier_one_has_found() {
    let world = World::start().await;
    world.settled_with([index("z", "stays")]).await;
    many_strangers(&world);
    world.load([index("0-a", "missing"), broken("0-a", "broken")]);
    leave_one_page(&world);

    let mut answered = world.handle_within(&audit(), TIME).await;
    let first = answered.stats.drifted_keys;
    while let Some(next) = answered.ok().get("continue").cloned() {
        let payload = json!({"reconcile": {"continue": next}});
        answered = world.handle_within(&payload, TIME).await;
    }

    assert_eq!((first, answered.stats.drifted_keys), (Some(1), Some(0)), "each logs its own");
    assert_eq!(answered.counted("DriftedKeys"), Some(1));
    assert_eq!(answered.counted("ItemsRejected"), Some(1));
}
