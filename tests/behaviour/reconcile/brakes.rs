//! What a repair refuses, and how an operator allows more. The unit tests have a row for each limit.

use serde_json::{Value, json};
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use super::*;

/// Puts this many keys of account z into a namespace that no item asks for.
fn orphans(world: &World, namespace: &str, count: usize) {
    for number in 0..count {
        let name = format!("gone-{number:04}");
        let query_config = json!({"normalized_query": name});
        let (key, value) = match namespace {
            SETTINGS => (format!("z-{name}"), held_settings("z", &name)),
            _ => (
                query_config_key("z", "gone", &name),
                with(held_settings("z", "gone"), query_config),
            ),
        };
        world.hold(namespace, &key, &value, Writer::Ours);
    }
}

/// Checks what a run refused, or that it refused nothing: in its report, its log and its metric.
#[track_caller]
fn assert_refused(world: &World, answered: &Answered, delete: u64, rewrite: u64) {
    let report = answered.ok();
    let (refused, applied) = (delete + rewrite, report["apply"] == true);
    let expected = json!({"delete": delete, "rewrite": rewrite});
    assert_eq!(report.get("refused"), Some(expected).filter(|_| refused > 0).as_ref(), "{report}");
    assert_eq!(report["complete"], !applied || refused == 0, "an audit compares all: {report}");
    let counted = answered.found("RepairRefused").unwrap_or_default();
    assert_eq!(counted, if applied { refused } else { 0 });
    let errors = json!(world.logs.at("ERROR")).to_string();
    for field in ["delete_up_to", "rewrite_up_to"] {
        assert_eq!(errors.contains(field), applied && refused > 0, "{errors}");
    }
}

async fn repair_refusing(world: &World, more: Value, delete: u64, rewrite: u64) -> Value {
    world.forget();
    let answered = world.handle(&repair_with(more)).await;
    assert_refused(world, &answered, delete, rewrite);
    answered.ok().clone()
}

#[tokio::test]
async fn too_many_orphans_are_refused_whole_while_missing_keys_are_written_all_the_same() {
    for (namespace, name) in [(SETTINGS, "settings"), (QUERY_CONFIGS, "query_configs")] {
        let _row = row(name);
        let world = World::start().await;
        world.load([index("a", "missing"), query_config("a", "missing", "q", 1)]);
        orphans(&world, namespace, 101);

        let audited = world.handle(&audit()).await;
        assert_eq!(audited.ok()[name]["orphaned"], 101);
        assert_refused(&world, &audited, 101, 0);
        repair_refusing(&world, json!({}), 101, 0).await;

        assert!(world.deletes().is_empty());
        assert!(world.setting("a-missing").is_some());
        assert!(world.query_config("a", "missing", "q").is_some());

        let report = repair_refusing(&world, json!({"delete_up_to": 101}), 0, 0).await;
        assert_eq!(report[name]["deleted"], 101);
    }
}

#[tokio::test]
async fn too_many_rewrites_are_refused_until_the_number_of_an_audit_allows_them() {
    let world = World::start().await;
    let names = || (0..501).map(|number| format!("i{number:03}"));
    world.load(names().map(|name| shop("a", &name, &format!("{name}.example"))));
    world.report(&repair()).await;
    for key in names().flat_map(|name| [format!("a-{name}"), format!("{name}.example")]) {
        edit(&world, SETTINGS, &key, true);
    }
    for more in [json!({}), json!({"rewrite_up_to": 1_001}), json!({"delete_up_to": 5_000})] {
        repair_refusing(&world, more, 0, 1_002).await;
        assert_eq!(world.changes(), changes([]));
    }
    let report = repair_refusing(&world, json!({"rewrite_up_to": 1_002}), 0, 0).await;
    assert_eq!(report["settings"]["written"], 1_002);
}
