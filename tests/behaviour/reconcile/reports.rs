//! What a report counts, and what it names.

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
    world.load(numbered("missing").iter().map(|name| index("a", name)));
    world.load(numbered("rejected").iter().map(|name| broken("a", name)));
    world.load(numbered("alias").iter().map(|name| pointing("a", name, &format!("z-{name}"))));

    let report = world.handle(&audit()).await.ok().clone();

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
async fn an_alias_dangles_whatever_the_account_and_counts_once() {
    let world = World::start().await;
    let aliases =
        |name: &str, blocks: Value| index_with("b", name, json!({"index_aliases": blocks}));
    let target = json!([{"index_id": "z-gone"}]);
    let write_alias = json!([{"system_account_id": "y", "index_name": "gone"}]);
    let write_alias = json!({"add_docs_config": {"index_write_aliases": write_alias}});
    world.stack.kv.put(SETTINGS, "x-foreign", "a stranger's", None);
    world.load([
        pointing("a", "one", "z-gone"),
        aliases("two", json!({"doc_reads": {"enabled": true, "targets": target}})),
        index_with("b", "three", write_alias),
        pointing("b", "itself", "b-itself"),
        aliases("off", json!({"analytics": {"enabled": false, "index_id": "w-gone"}})),
        // The first target has an item, though of another account; the second has a key.
        pointing("a", "there", "b-two"),
        pointing("a", "held", "x-foreign"),
        // An item that can't be exported is an item too.
        broken("b", "broken"),
        pointing("a", "to-broken", "b-broken"),
    ]);

    for (payload, dangling) in [
        (audit(), vec!["y-gone", "z-gone"]),
        (of_account("a", false), vec!["z-gone"]),
        (of_account("b", false), vec!["y-gone", "z-gone"]),
        (of_account("c", false), vec![]),
    ] {
        let _row = row(&payload);
        let answered = world.handle(&payload).await;
        let report = answered.ok();
        assert_eq!(report["settings"]["dangling"], dangling.len());
        let examples = report["examples"].get("dangling").cloned().unwrap_or_else(|| json!([]));
        assert_eq!(examples, json!(dangling));
        // What one account shows says nothing of the others: it is logged, and is no metric.
        let counted = Some(u64::try_from(dangling.len()).unwrap());
        assert_eq!(answered.stats.dangling_aliases, counted);
        let metric = counted.filter(|_| payload == audit());
        assert_eq!(answered.counted("DanglingAliases"), metric);
    }
    assert_eq!(writes_of(&world), []);
}
