//! What an audit says of a version before it goes live, and of values that differ.

use serde_json::json;
use testbed::stack::SETTINGS;
use testbed::table::to_item;

use super::drift::*;
use crate::helpers::*;
use crate::printed::Printed;
use crate::process;

#[tokio::test]
async fn a_preview_is_an_audit_that_is_nobodys_alarm() {
    let (stack, function) = process::start().await;
    stack.table.load([to_item(&index("a", "i"))]);
    let findings = ["DriftedKeys", "KeysMissingPercent", "ItemsRejected", "DanglingAliases"];

    for (payload, counts) in [(json!({"reconcile": {"preview": true}}), false), (audit(), true)] {
        let answered = process::invoke(&function, &payload).await;
        let report = answered.result.as_ref().unwrap();
        assert_eq!(report["settings"]["missing"], 1, "{report}");
        assert_eq!(report["complete"], true, "{report}");
        let printed = Printed::by(&answered);
        for name in findings {
            assert_eq!(printed.metrics.contains_key(name), counts, "{name} of {payload}");
        }
    }
}

#[tokio::test]
async fn a_report_says_at_which_paths_stale_values_differ_and_never_what_stands_there() {
    let world = World::start().await;
    let items = |limit: u32| {
        let config = json!({"search_config": {"limit": limit}, "pixel_id": "canary"});
        (0..150).map(move |n| index_with("a", &format!("i{n:03}"), config.clone()))
    };
    world.settled_with(items(1)).await;
    world.load(items(2));
    edit(&world, SETTINGS, "a-i000", true);

    for payload in [audit(), of_account("a", false), repair()] {
        world.forget();
        let report = world.handle(&payload).await.ok().clone();
        assert_eq!(report["settings"]["stale"], 150, "{report}");
        let differs = report["differs"].as_object().unwrap();
        assert_eq!(differs["search_config.limit"], 100, "a sample: {report}");
        let known = ["search_config.limit", "edited"];
        assert!(differs.keys().all(|path| known.contains(&path.as_str())), "{report}");
        assert!(!report.to_string().contains("canary"), "{report}");
    }
    let report = world.handle(&audit()).await.ok().clone();
    assert_eq!(report.get("differs"), None, "{report}");
}
