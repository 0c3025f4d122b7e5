//! What a report counts and names, and which metrics it becomes.

use serde_json::{Value, json};
use testbed::stack::SETTINGS;

use super::*;

#[tokio::test]
async fn a_report_names_at_most_twenty_keys_of_a_class_and_cuts_long_ones() {
    let world = World::start().await;
    let numbered = |what: &str| (0..25).map(|n| format!("{what}{n}")).collect::<Vec<_>>();
    world.settled_with(numbered("orphan").iter().map(|name| index("a", name))).await;
    for name in numbered("orphan") {
        world.stack.table.delete("a", &format!("INDEX#{name}"));
        world.stack.kv.put(SETTINGS, &format!("stranger-{name}"), "x", None);
    }
    world.load(numbered("missing").iter().map(|name| index("a", name)));
    world.load(numbered("rejected").iter().map(|name| broken("a", name)));
    world.load(numbered("alias").iter().map(|name| pointing("a", name, &format!("z-{name}"))));

    let report = world.report(&audit()).await;

    for (class, count) in
        [("missing", 50), ("orphaned", 25), ("foreign", 25), ("rejected", 25), ("dangling", 25)]
    {
        assert_eq!(report["settings"][class], count, "{class}");
        assert_eq!(report["examples"][class].as_array().unwrap().len(), 20, "{class}");
    }
    // The schema requires each of these fields. Here, there is no other.
    let fields = |object: &Value| object.as_object().unwrap().len();
    assert_eq!(fields(&report), 5, "{report}");
    assert_eq!([fields(&report["settings"]), fields(&report["query_configs"])], [13; 2]);
}

#[tokio::test]
async fn only_an_audit_or_a_repair_of_everything_by_the_live_version_reports_findings() {
    let dry = World::with_env(&[("CLOUDFLARE_ACCOUNT_ID", "")]);
    let (world, dry) = (World::start().await, dry.await);
    for world in [&world, &dry] {
        world.load([
            shop("a", "i", "s.example"),
            shop("a", "j", "s.example"),
            broken("a", "broken"),
        ]);
    }
    let preview = json!({"reconcile": {"preview": true}});
    for (world, payload, reported) in [
        (&world, of_account("a", false), false),
        (&world, preview, false),
        (&dry, audit(), false),
        (&world, audit(), true),
        (&world, repair(), true),
    ] {
        let _row = row(&payload);
        let answered = world.handle(&payload).await;
        for name in ["DriftedKeys", "ItemsRejected", "KeysConflicting", "KeysWithheld"] {
            assert_eq!(answered.found(name).is_some(), reported, "{name}");
        }
    }
}
