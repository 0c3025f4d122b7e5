//! Each key that KV confirmed has one line, whoever asked for it.

use serde_json::{Value, json};
use testbed::faults::Fault;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

use crate::helpers::*;

/// The receipts so far, in the order of their keys, without what every line has.
fn receipts(world: &World) -> Vec<Value> {
    let mut lines = world.logs.lines();
    lines.retain(|line| ["exported", "removed"].contains(&line["message"].as_str().unwrap()));
    for line in &mut lines {
        assert_eq!(line["level"], "INFO");
        let line = line.as_object_mut().unwrap();
        for name in ["timestamp", "level", "target"] {
            line.remove(name);
        }
    }
    lines.sort_by_key(|line| line["key"].to_string());
    lines
}

/// The receipt of a key: the metadata that KV holds, and more.
fn receipt(world: &World, namespace: &str, key: &str, more: Value) -> Value {
    let metadata = world.stack.kv.get(namespace, key).unwrap().metadata.unwrap();
    with(with(metadata, json!({"message": "exported", "key": key})), more)
}

#[tokio::test]
async fn a_key_that_was_written_is_told_with_the_fields_of_its_metadata() {
    let world = World::start().await;
    let items = [shop("a", "i", "s.example"), query_config("a", "i", "größe #1", 1)];
    world.load(items.clone());
    let config = query_config_key("a", "i", "größe #1");
    let query = json!({"normalized_query": "größe #1"});

    for (payload, source) in [
        (testbed::stream::event(all_written(&items)), "stream"),
        (re_export_all("a", "i"), "re-export"),
        (repair(), "reconcile"),
    ] {
        for (namespace, key) in
            [(SETTINGS, "a-i"), (SETTINGS, "s.example"), (QUERY_CONFIGS, &config)]
        {
            world.stack.kv.delete(namespace, key);
        }
        world.forget();
        world.handle(&payload).await.ok();

        let expected = [
            receipt(&world, SETTINGS, "a-i", json!({})),
            receipt(&world, QUERY_CONFIGS, &config, query.clone()),
            receipt(&world, SETTINGS, "s.example", json!({})),
        ];
        assert_eq!(receipts(&world), expected, "{source}");
        assert!(expected.iter().all(|line| line["source"] == source), "{expected:?}");
    }
}

#[tokio::test]
async fn a_key_that_was_removed_is_told_with_the_metadata_that_was_read_else_with_its_item() {
    let world = World::start().await;
    let items = [shop("a", "i", "s.example"), query_config("a", "i", "q", 1)];
    world.settled_with(items.clone()).await;
    let key = query_config_key("a", "i", "q");
    let of_settings = ["a-i", "s.example"]
        .map(|key| receipt(&world, SETTINGS, key, json!({"message": "removed"})));
    let of_query_config = json!({
        "message": "removed", "key": key, "system_account_id": "a", "index_name": "i",
        "normalized_query": "q",
    });
    items.iter().for_each(|item| world.remove(item));

    world.deliver().await;

    let [of_index_id, of_shop_id] = of_settings;
    assert_eq!(receipts(&world), [of_index_id, of_query_config, of_shop_id]);
}

#[tokio::test]
async fn a_query_config_that_a_repair_removed_is_told_with_its_metadata() {
    let world = World::start().await;
    world.settled_with([index("a", "i"), query_config("a", "i", "q", 1)]).await;
    let key = query_config_key("a", "i", "q");
    let more = json!({"message": "removed", "normalized_query": "q"});
    let of_query_config = receipt(&world, QUERY_CONFIGS, &key, more);
    world.stack.table.delete("a", "INDEX#i#QUERY#q");

    world.report(&repair()).await;

    assert_eq!(receipts(&world), [of_query_config]);
}

#[tokio::test]
async fn a_key_that_kv_does_not_confirm_has_no_line_and_neither_has_an_audit() {
    let world = World::start().await;
    world.break_puts(100, Fault::unsuccessful(|key| key == "s.example", 200));

    let answered = world.batch([written(1, &shop("a", "i", "s.example"))]).await;

    assert_eq!(answered.failures(), ["1"]);
    let keys: Vec<Value> = receipts(&world).iter().map(|line| line["key"].clone()).collect();
    assert_eq!(keys, ["a-i"]);

    world.forget();
    world.report(&audit()).await;
    assert_eq!(receipts(&world), [] as [Value; 0]);
}
