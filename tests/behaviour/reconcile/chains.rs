//! Runs that end before all is compared, and go on in the next one.

use std::time::Duration;

use serde_json::json;
use testbed::faults::Fault;
use testbed::stack::SETTINGS;

use super::*;

/// How long the first run has: the slow page takes more than half of it, which ends the listing, and
/// nothing is left for a repair.
const TIME: Duration = Duration::from_secs(6);

#[tokio::test]
async fn a_run_continues_where_the_one_before_ended_and_the_last_report_is_the_whole_chains() {
    // More strangers' keys than two pages of a listing hold, before all of ours.
    let world = World::start().await;
    world.settled_with([shop("a", "stays", "stays.example"), index("a", "orphan")]).await;
    world.stack.table.delete("a", "INDEX#orphan");
    for number in 0..2_500 {
        world.stack.kv.put(SETTINGS, &format!("0-stranger-{number:04}"), "x", None);
    }
    world.load([index("0-a", "missing"), query_config("a", "stays", "q", 1)]);
    world.break_kv(listings(Fault::Delay(Duration::from_millis(3_500))).after(1));

    let first = world.handle_within(&repair(), TIME).await;
    assert_eq!(first.ok()["complete"], false, "{first:?}");
    assert_eq!(first.found("DriftedKeys"), None, "the last run reports the findings");
    let next_run =
        |answered: &Answered| repair_with(json!({"continue": answered.ok()["continue"]}));
    let second = world.handle(&next_run(&first)).await;
    let answered = world.handle(&next_run(&second)).await;

    let report = answered.ok();
    let classes = ["listed", "missing", "orphaned", "written", "deleted"];
    assert_eq!(classes.map(|class| &report["settings"][class]), [2_503, 1, 1, 1, 1], "{report}");
    assert_eq!(report["query_configs"]["written"], 1, "{report}");
    assert_eq!(report["complete"], true, "{report}");
    assert_eq!(answered.found("DriftedKeys"), Some(3));
    assert_eq!(world.setting("a-orphan"), None);
}
