//! What a report counts, and what it names.

use ecom_settings_exporter::telemetry::stats::Value as MetricValue;
use serde_json::{Value, json};
use testbed::stack::SETTINGS;

use super::drift::*;
use crate::helpers::*;

#[tokio::test]
async fn a_report_holds_at_most_twenty_names_of_a_class() {
    let world = World::start().await;
    let numbered = |what: &str| (0..25).map(|n| format!("{what}{n}")).collect::<Vec<_>>();
    world.settled_with(numbered("orphan").iter().map(|name| index("a", name))).await;
    for name in numbered("orphan") {
        world.stack.table.delete("a", &format!("INDEX#{name}"));
        world.stack.kv.put(SETTINGS, &format!("stranger-{name}"), "x", None);
    }
    load(&world, numbered("missing").iter().map(|name| index("a", name)));
    load(
        &world,
        numbered("rejected").iter().map(|name| index_with("a", name, json!({"index_endpoint": 7}))),
    );
    load(
        &world,
        numbered("alias")
            .iter()
            .map(|name| index_with("a", name, json!({"read_alias": format!("z-{name}")}))),
    );

    let report = world.handle(&audit()).await.ok().clone();

    for (class, count) in
        [("missing", 50), ("orphaned", 25), ("foreign", 25), ("rejected", 25), ("dangling", 25)]
    {
        assert_eq!(report["settings"][class], count, "{class}");
        assert_eq!(report["examples"][class].as_array().unwrap().len(), 20, "{class}");
    }
    let fields = |object: &Value| {
        object.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>()
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(
        fields(&report),
        names(&["apply", "settings", "query_configs", "examples", "complete"])
    );
    let classes = names(&[
        "desired",
        "listed",
        "missing",
        "stale",
        "orphaned",
        "withheld",
        "dangling",
        "foreign",
        "conflicting",
        "rejected",
        "written",
        "deleted",
        "failed",
    ]);
    assert_eq!(fields(&report["settings"]), classes);
    assert_eq!(fields(&report["query_configs"]), classes);
}

#[tokio::test]
async fn an_alias_dangles_whatever_the_account_and_counts_once() {
    let world = World::start().await;
    let reads = |target: &str| json!({"index_aliases": {"doc_reads": {"enabled": true, "targets": [{"index_id": target}]}}});
    let writes_to = |entry: Value| json!({"add_docs_config": {"index_write_aliases": [entry]}});
    world.stack.kv.put(SETTINGS, "x-foreign", "a stranger's", None);
    load(
        &world,
        [
            index_with("a", "one", json!({"read_alias": "z-gone"})),
            index_with("b", "two", reads("z-gone")),
            index_with(
                "b",
                "three",
                writes_to(json!({"system_account_id": "y", "index_name": "gone"})),
            ),
            index_with("b", "itself", json!({"read_alias": "b-itself"})),
            index_with(
                "b",
                "off",
                json!({"index_aliases": {"analytics": {"enabled": false, "index_id": "w-gone"}}}),
            ),
            // The first target has an item, though of another account; the second has a key.
            index_with("a", "there", json!({"read_alias": "b-two"})),
            index_with("a", "held", json!({"read_alias": "x-foreign"})),
            // An item that can't be exported is an item too.
            index_with("b", "broken", json!({"index_endpoint": 7})),
            index_with("a", "to-broken", json!({"read_alias": "b-broken"})),
        ],
    );

    for (payload, dangling) in [
        (audit(), vec!["y-gone", "z-gone"]),
        (of_account("a", false), vec!["z-gone"]),
        (of_account("b", false), vec!["y-gone", "z-gone"]),
        (of_account("c", false), vec![]),
    ] {
        let answered = world.handle(&payload).await;
        let report = answered.ok();
        assert_eq!(report["settings"]["dangling"], dangling.len(), "{payload}");
        let examples = report["examples"].get("dangling").cloned().unwrap_or_else(|| json!([]));
        assert_eq!(examples, json!(dangling), "{payload}");
        // What one account shows says nothing of the others: it is logged, and is no metric.
        let counted = Some(u64::try_from(dangling.len()).unwrap());
        assert_eq!(answered.stats.dangling_aliases, counted, "{payload}");
        let metrics = answered.stats.metrics();
        let metric = metrics.into_iter().find(|metric| metric.0 == "DanglingAliases");
        let expected =
            counted.filter(|_| payload == audit()).map(|count| MetricValue::Finding(Some(count)));
        assert_eq!(metric.map(|metric| metric.1), expected, "{payload}");
    }
    assert_eq!(writes(&world), []);
}
