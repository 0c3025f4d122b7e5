//! Services that fail while a reconcile runs.

use std::time::Duration;

use serde_json::json;
use testbed::faults::{Fault, Rule};
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::drift::*;
use crate::helpers::*;

#[tokio::test]
async fn without_api_keys_nothing_is_judged_or_harmed_and_the_rest_is_mended() {
    let world = World::start().await;
    let items = [shop("a", "i", "s.example"), in_cell("b", "i", "cell-2")];
    world.settled_with(items.into_iter().chain([query_config("a", "i", "q", 1)])).await;
    let held = world.stack.kv.get(SETTINGS, "s.example");
    world.stack.kv.delete(SETTINGS, "b-i");
    world.stack.kv.delete(QUERY_CONFIGS, &query_config_key("a", "i", "q"));
    edit(&world, SETTINGS, "a-i", false);
    world.load([index("a", "new")]);
    world.break_api_keys(Fault::status(503));

    let answered = world.handle(&repair()).await;

    let report = answered.ok();
    assert_eq!(
        counts(report, "settings"),
        json!({"desired": 4, "listed": 2, "missing": 1, "written": 1, "failed": 3})
    );
    assert_eq!(counts(report, "query_configs"), json!({"desired": 1, "missing": 1, "written": 1}));
    assert_eq!(world.setting_keys(), ["a-i", "b-i", "s.example"]);
    assert_eq!(world.stack.kv.get(SETTINGS, "s.example"), held);
    assert_eq!(world.setting("a-i").unwrap()["edited"], true);
    assert_eq!(world.logs.warnings().len(), 1, "{:?}", world.logs.warnings());

    world.stack.api_keys.faults().clear();
    world.handle(&repair()).await;
    assert_eq!(world.handle(&audit()).await.stats.drifted_keys, Some(0));
    assert_eq!(world.setting_keys(), ["a-i", "a-new", "b-i", "s.example"]);
}

/// Shorter than one request's time-out.
const TIME: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_run_that_cannot_compare_anything_ends_in_time_with_an_error_and_writes_nothing() {
    let down = Fault::aws(500, "InternalServerError", "down");
    for (of_table, fault, says) in [
        (true, down, ["pass over the table", "nothing was written"]),
        (true, Fault::Hang, ["pass over the table", "time is up"]),
        (false, Fault::Hang, ["listing of Settings", "time is up"]),
    ] {
        let _row = row(says.join(", "));
        let world = World::start().await;
        world.load([index("a", "i")]);
        let faults = if of_table { world.stack.table.faults() } else { world.stack.kv.faults() };
        faults.add(Rule::any(fault).forever());

        let answered = world.handle_within(&repair(), TIME).await;

        assert_eq!(answered.error().kind, "ReconcileIncomplete");
        let message = &answered.error().message;
        assert!(says.iter().all(|part| message.contains(part)), "{message}");
        assert_eq!(writes_of(&world), []);
    }
}

#[tokio::test]
async fn a_listing_that_fails_ends_with_an_error_that_says_how_far_it_came() {
    let world = World::start().await;
    world.load([index("a", "i")]);
    for number in 0..1_500 {
        world.stack.kv.put(SETTINGS, &format!("stranger-{number}"), "x", None);
    }
    world.break_kv(listings(Fault::status(503)).after(1).forever());

    let answered = world.handle(&repair()).await;

    assert_eq!(answered.error().kind, "ReconcileIncomplete");
    let message = &answered.error().message;
    assert!(message.contains("Settings stopped after 1000 keys"), "{message}");
    assert!(message.contains("503") && message.contains("nothing was written"), "{message}");
    assert_eq!(writes_of(&world), []);
    assert_eq!(answered.stats.drifted_keys, None);
    assert_eq!(world.stack.kv.log_of(KvVerb::ListKeys).len(), 1 + 4, "three more tries");
}

#[tokio::test]
async fn a_repair_that_runs_out_of_time_reports_how_far_it_came() {
    for (what, hanging) in
        [("put", writes as fn(Fault) -> Rule), ("delete", deletes), ("get", reads)]
    {
        let _row = row(what);
        let world = World::start().await;
        world.settled_with([index("a", "orphan")]).await;
        world.stack.table.delete("a", "INDEX#orphan");
        world.load([index("a", "missing")]);
        world.break_kv(hanging(Fault::Hang).forever());

        let answered = world.handle_within(&repair(), TIME).await;

        let report = answered.ok();
        // A delete is given up while there is time for a put-back. By then everything was compared.
        if what != "delete" {
            assert_eq!(report["complete"], false, "{report}");
            assert!(report["stopped"].as_str().unwrap().contains("time is up"), "{report}");
        }
        let count = |class: &str| report["settings"][class].as_u64().unwrap();
        let open = count("missing") + count("orphaned") - count("written") - count("deleted");
        assert!(open > 0 || count("failed") > 0, "{report}");

        world.stack.kv.faults().clear();
        assert_eq!(world.handle(&repair()).await.ok()["complete"], true);
        assert_eq!(world.setting_keys(), ["a-missing"]);
    }
}

#[tokio::test]
async fn keys_that_kv_does_not_take_are_failed_by_name() {
    let world = World::start().await;
    world.settled_with([shop("a", "gone", "gone.example")]).await;
    world.stack.table.delete("a", "INDEX#gone");
    world.load([shop("a", "i", "s.example")]);
    let fails = || Fault::unsuccessful(|key: &str| key.ends_with(".example"), 200);
    world.break_kv(writes(fails()).forever());
    world.break_kv(deletes(fails()).forever());

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

#[tokio::test]
async fn an_orphaned_query_config_whose_value_names_another_key_is_left_to_a_person() {
    let world = World::start().await;
    world.settled_with([index("a", "i")]).await;
    let key = query_config_key("a", "i", "mixed up");
    world.hold(QUERY_CONFIGS, &key, &held_query_config("a", "i", "other"), Writer::Ours);

    let report = world.handle(&repair()).await.ok().clone();

    assert_eq!(report["query_configs"]["orphaned"], 1, "{report}");
    assert_eq!(report["query_configs"]["failed"], 1, "{report}");
    assert_eq!(world.query_config_keys(), [key.as_str()]);
    let line = world.logs.only("a key could not be compared or repaired");
    assert!(line["error"].as_str().unwrap().contains("delete the key by hand"), "{line}");
}
