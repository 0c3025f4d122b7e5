//! Services that fail while a reconcile runs.

use std::time::Duration;

use serde_json::json;
use testbed::faults::{Fault, Rule};
use testbed::kv::KvVerb;
use testbed::stack::{DEFAULT_CELL, QUERY_CONFIGS, SETTINGS};

use super::drift::*;
use crate::helpers::*;

#[tokio::test]
async fn without_api_keys_nothing_is_judged_or_harmed_and_the_rest_is_mended() {
    let world = World::start().await;
    world
        .settled_with([
            shop("a", "i", "s.example"),
            index_with("b", "i", json!({"cell": "cell-2"})),
            query_config("a", "i", "q", 1),
        ])
        .await;
    let held = world.stack.kv.snapshot(SETTINGS);
    world.stack.kv.delete(SETTINGS, "b-i");
    world.stack.kv.delete(QUERY_CONFIGS, &query_config_key("a", "i", "q"));
    edit(&world, SETTINGS, "a-i", false);
    load(&world, [index("a", "new")]);
    world.stack.api_keys.break_cell(DEFAULT_CELL, Fault::status(503));

    let answered = world.handle(&repair()).await;

    let report = answered.ok();
    assert_eq!(
        counts(report, "settings"),
        json!({"desired": 4, "listed": 2, "missing": 1, "written": 1, "failed": 3})
    );
    assert_eq!(counts(report, "query_configs"), json!({"desired": 1, "missing": 1, "written": 1}));
    assert_eq!(world.setting_keys(), ["a-i", "b-i", "s.example"]);
    assert_eq!(world.stack.kv.get(SETTINGS, "s.example").as_ref(), held.get("s.example"));
    assert!(world.setting("a-i").unwrap()["edited"].as_bool().unwrap());
    assert_eq!(world.logs.warnings().len(), 1, "{:?}", world.logs.warnings());

    world.stack.api_keys.faults().clear();
    world.handle(&repair()).await;
    assert_eq!(world.handle(&audit()).await.stats.drifted_keys, Some(0));
    assert_eq!(world.setting_keys(), ["a-i", "a-new", "b-i", "s.example"]);
}

#[tokio::test]
async fn a_listing_that_fails_ends_with_an_error_that_says_how_far_it_came() {
    let world = World::start().await;
    load(&world, [index("a", "i")]);
    for number in 0..1_500 {
        world.stack.kv.put(SETTINGS, &format!("stranger-{number}"), "x", None);
    }
    let down = Rule::on("GET", "/keys", Fault::status(503));
    world.stack.kv.faults().add(down.after(1).forever());

    let answered = world.handle(&repair()).await;

    assert_eq!(answered.error().kind, "ReconcileIncomplete");
    let message = &answered.error().message;
    assert!(message.contains("Settings stopped after 1000 keys"), "{message}");
    assert!(message.contains("503") && message.contains("nothing was written"), "{message}");
    assert_eq!(writes(&world), []);
    assert_eq!(answered.stats.drifted_keys, None);
    assert_eq!(world.stack.kv.log_of(KvVerb::ListKeys).len(), 1 + 4, "three more tries");
}

#[tokio::test]
async fn a_table_that_fails_ends_with_an_error_and_nothing_written() {
    let world = World::start().await;
    load(&world, [index("a", "i")]);
    let down = Rule::operation("Scan", Fault::aws(500, "InternalServerError", "down")).forever();
    world.stack.table.faults().add(down);

    let answered = world.handle(&repair()).await;

    assert_eq!(answered.error().kind, "ReconcileIncomplete");
    assert!(answered.error().message.contains("nothing was written"), "{:?}", answered.error());
    assert_eq!(writes(&world), []);
}

#[tokio::test]
async fn a_refused_token_ends_with_cloudflare_auth_rejected() {
    let world = World::start().await;
    world.stack.kv.set_token("another");

    for payload in [audit(), repair(), of_account("a", true)] {
        assert_eq!(world.handle(&payload).await.error().kind, "CloudflareAuthRejected");
    }
}

/// Shorter than one request's time-out.
const TIME: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_scan_or_a_listing_that_hangs_ends_with_an_error_before_the_deadline() {
    for (hangs, says) in [("table", "pass over the table"), ("listing", "listing of Settings")] {
        let world = World::start().await;
        load(&world, [index("a", "i")]);
        match hangs {
            "table" => world.stack.table.faults().add(Rule::any(Fault::Hang).forever()),
            _ => world.stack.kv.faults().add(Rule::any(Fault::Hang).forever()),
        }

        let answered = world.handle_within(&repair(), TIME).await;

        assert_eq!(answered.error().kind, "ReconcileIncomplete");
        let message = &answered.error().message;
        assert!(message.contains(says) && message.contains("time is up"), "{message}");
    }
}

#[tokio::test]
async fn a_repair_that_runs_out_of_time_reports_how_far_it_came() {
    let hanging: [(&str, Rule); 3] = [
        ("put", Rule::on("PUT", "/settings/bulk", Fault::Hang).forever()),
        ("delete", Rule::on("POST", "/settings/bulk/delete", Fault::Hang).forever()),
        ("get", Rule::on("POST", "/settings/bulk/get", Fault::Hang).forever()),
    ];
    for (what, rule) in hanging {
        let world = World::start().await;
        world.settled_with([index("a", "orphan")]).await;
        world.stack.table.delete("a", "INDEX#orphan");
        load(&world, [index("a", "missing")]);
        world.stack.kv.faults().add(rule);

        let answered = world.handle_within(&repair(), TIME).await;

        let report = answered.ok();
        // A delete is given up while there is time for a put-back. By then everything was compared.
        if what != "delete" {
            assert_eq!(report["complete"], false, "{what}: {report}");
            assert!(report["stopped"].as_str().unwrap().contains("time is up"), "{what}: {report}");
        }
        let settings = &report["settings"];
        let open = settings["missing"].as_u64().unwrap() + settings["orphaned"].as_u64().unwrap()
            - settings["written"].as_u64().unwrap()
            - settings["deleted"].as_u64().unwrap();
        assert!(open > 0 || settings["failed"].as_u64().unwrap() > 0, "{what}: {report}");

        world.stack.kv.faults().clear();
        assert_eq!(world.handle(&repair()).await.ok()["complete"], true, "{what}");
        assert_eq!(world.setting_keys(), ["a-missing"], "{what}");
    }
}

#[tokio::test]
async fn keys_that_kv_does_not_take_are_failed_by_name() {
    let world = World::start().await;
    world.settled_with([shop("a", "gone", "gone.example")]).await;
    world.stack.table.delete("a", "INDEX#gone");
    load(&world, [shop("a", "i", "s.example")]);
    let fails = |key: &str| key.ends_with(".example");
    for rule in [
        Rule::on("PUT", "/bulk", Fault::unsuccessful(fails, 200)),
        Rule::on("POST", "/bulk/delete", Fault::unsuccessful(fails, 200)),
    ] {
        world.stack.kv.faults().add(rule.forever());
    }

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(
        counts(&report, "settings"),
        json!({
            "desired": 2, "listed": 2, "missing": 2, "orphaned": 2, "written": 1, "deleted": 1,
            "failed": 2,
        })
    );
    assert_eq!(world.setting_keys(), ["a-i", "gone.example"]);
}
