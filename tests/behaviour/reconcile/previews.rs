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
    let stack = process::stack().await;
    stack.table.load([to_item(&index("a", "i"))]);
    let function = process::function(&stack, &[]).await;
    let findings = ["DriftedKeys", "KeysMissingPercent", "ItemsRejected", "DanglingAliases"];

    for (payload, counts) in
        [(json!({"reconcile": {"preview": true}}), false), (json!({"reconcile": {}}), true)]
    {
        let answered = process::invoke(&function, &payload).await;
        let report = answered.result.clone().unwrap();
        assert_eq!(report["settings"]["missing"], 1, "{report}");
        assert_eq!(report["complete"], true, "{report}");
        let printed = Printed::by(&answered);
        for name in findings {
            assert_eq!(printed.metrics.contains_key(name), counts, "{name} of {payload}");
        }
    }
}

#[tokio::test]
async fn a_preview_is_not_applied() {
    let world = World::start().await;
    for payload in [repair_with(json!({"preview": true})), json!({"reconcile": {"preview": 1}})] {
        let answered = world.handle(&payload).await;
        assert_eq!(answered.error().kind, "InvalidPayload", "{payload}");
    }
    assert!(world.stack.kv.log().is_empty() && world.stack.table.log().is_empty());
}

#[tokio::test]
async fn a_report_says_at_which_paths_stale_values_differ_and_never_what_stands_there() {
    let world = World::start().await;
    let config = |limit: u32| json!({"search_config": {"limit": limit}, "pixel_id": "canary"});
    let named = |number: u32| format!("i{number:03}");
    world.settled_with((0..150).map(|n| index_with("a", &named(n), config(1)))).await;
    load(&world, (0..150).map(|n| index_with("a", &named(n), config(2))));
    edit(&world, SETTINGS, "a-i000", true);

    for payload in [audit(), of_account("a", false), repair()] {
        world.forget();
        let report = world.handle(&payload).await.ok().clone();
        assert_eq!(report["settings"]["stale"], 150, "{report}");
        let differs = report["differs"].as_object().unwrap();
        assert_eq!(differs["search_config.limit"], 100, "a sample: {report}");
        assert!(
            differs.keys().all(|path| ["search_config.limit", "edited"].contains(&path.as_str()))
        );
        assert!(!report.to_string().contains("canary"), "{report}");
    }
    let report = world.handle(&audit()).await.ok().clone();
    assert_eq!(report.get("differs"), None, "{report}");
}

#[tokio::test]
async fn a_dry_run_counts_nothing_as_written() {
    let stack = process::stack().await;
    stack.table.load([to_item(&shop("a", "i", "s.example"))]);
    let dry = process::function(&stack, &[("CLOUDFLARE_ACCOUNT_ID", "")]).await;

    let answered = process::invoke(&dry, &json!({"reconcile": {"apply": true}})).await;

    let report = answered.result.clone().unwrap();
    assert_eq!(report["dry_run"], true, "{report}");
    assert_eq!(
        (&report["settings"]["written"], &report["settings"]["deleted"]),
        (&json!(0), &json!(0))
    );
}
