//! Runs that end before all is compared, and go on in the next one.

use std::time::Duration;

use serde_json::json;
use testbed::faults::Fault;
use testbed::stack::SETTINGS;

use super::*;

/// How long the first run has: the slow page takes more than half of it, which ends the listing, and
/// nothing is left for a repair.
const TIME: Duration = Duration::from_secs(6);

/// A world in which the second page of a listing is slow, with more strangers' keys than two pages hold, before all of ours;
/// one orphan behind them, and one missing key in each namespace.
async fn slow_world() -> World {
    let world = World::start().await;
    world.settled_with([shop("a", "stays", "stays.example"), index("a", "orphan")]).await;
    world.stack.table.delete("a", "INDEX#orphan");
    for number in 0..2_500 {
        world.stack.kv.put(SETTINGS, &format!("0-stranger-{number:04}"), "x", None);
    }
    world.load([index("0-a", "missing"), query_config("a", "stays", "q", 1)]);
    world.break_kv(listings(Fault::Delay(Duration::from_millis(3_500))).after(1));
    world
}

/// The payload that goes on where a report ended.
fn next_run(report: &Value) -> Value {
    repair_with(json!({"continue": report["continue"]}))
}

#[tokio::test]
async fn a_run_continues_where_the_one_before_ended_and_the_last_report_is_the_whole_chains() {
    let world = slow_world().await;

    let mut answered = world.handle_within(&repair(), TIME).await;
    assert_eq!(answered.ok()["complete"], false, "{answered:?}");
    assert_eq!(answered.found("DriftedKeys"), None, "the last run reports the findings");
    let mut runs = 1;
    while answered.ok().get("continue").is_some() {
        answered = world.handle(&next_run(answered.ok())).await;
        runs += 1;
        assert!(runs < 10, "{answered:?}");
    }

    assert!(runs > 1);
    let report = answered.ok();
    let classes = ["listed", "missing", "orphaned", "written", "deleted"];
    assert_eq!(classes.map(|class| &report["settings"][class]), [2_503, 1, 1, 1, 1], "{report}");
    assert_eq!(report["query_configs"]["written"], 1, "{report}");
    assert_eq!(report["complete"], true, "{report}");
    assert_eq!(answered.found("DriftedKeys"), Some(3));
    assert_eq!(world.setting("a-orphan"), None);
}

#[tokio::test]
async fn a_continue_of_another_chain_is_refused_before_anything_is_read() {
    let world = slow_world().await;
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
        assert!(answered.error().message.contains("continue"), "{:?}", answered.error());
    }
    assert!(world.stack.kv.log().is_empty() && world.stack.table.log().is_empty());
}
