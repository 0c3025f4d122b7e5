//! The examples: an item of the table, and what KV holds of it.

use std::collections::BTreeSet;

use humantime::parse_rfc3339;
use serde_json::{Value, json};
use testbed::stack::{QUERY_CONFIGS, TABLE, TOKEN_SECRET};

use super::published::{METADATA, QUERY_CONFIG, SETTINGS, published};
use super::{Entry, Example, example, examples};
use crate::helpers::*;

#[tokio::test]
async fn what_a_reader_finds_in_kv_has_the_published_shape() {
    let more = [
        ("ENVIRONMENT", "prod"),
        ("SETTINGS_TABLE_NAME", TABLE),
        ("CLOUDFLARE_API_TOKEN_SECRET_ID", TOKEN_SECRET),
    ];
    let world = World::with_env(&more).await;
    for name in examples() {
        let Example { item, kv } = example(&name);
        world.clock.stop_at(parse_rfc3339(kv.metadata["exported_at"].as_str().unwrap()).unwrap());
        let changed_at = parse_rfc3339(kv.metadata["changed_at"].as_str().unwrap()).unwrap();
        let changed_at = changed_at.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();

        world.batch_ok([created_at(written_item(&item), json!(changed_at))]).await;
        let namespace = kv.namespace();
        let mut keys = kv.keys.clone();
        keys.sort();
        assert_eq!(world.stack.kv.keys(namespace), keys, "{name}");
        for key in &kv.keys {
            let stored = world.stack.kv.get(namespace, key).unwrap();
            assert_eq!(stored.value, kv.compact(), "{}", complaint(&name));
            let metadata = stored.metadata.as_ref().unwrap();
            let digest = &metadata["digest"];
            assert_eq!(kv.metadata["digest"], *digest, "{name}.json: write this digest: {digest}");
            assert_eq!(metadata, &kv.metadata, "{}", complaint(&name));
            world.stack.kv.delete(namespace, key);
        }
    }
}

fn complaint(name: &str) -> String {
    format!(
        "a reader of KV would notice this change of schema/examples/{name}.json.\n\
         docs/kv.md says which changes readers have to be told of before they are made."
    )
}

/// The stream record of an item in DynamoDB JSON.
fn written_item(item: &Value) -> Value {
    let mut record = written(1, &json!({"pk": "", "sk": ""}));
    record["dynamodb"]["Keys"] = json!({"pk": item["pk"], "sk": item["sk"]});
    record["dynamodb"]["NewImage"] = item.clone();
    record
}

/// A field that the schema describes and no example has may be one that is not written any more.
#[test]
fn every_field_of_the_schemas_is_in_an_example() {
    let entries: Vec<Entry> = examples().iter().map(|name| example(name).kv).collect();
    for schema in [SETTINGS, QUERY_CONFIG, METADATA] {
        let mut described = BTreeSet::new();
        describe("", &published(schema), &mut described);
        let mut shown = BTreeSet::new();
        for entry in &entries {
            let of_query_config = entry.namespace() == QUERY_CONFIGS;
            if schema == METADATA {
                show("", &entry.metadata, &mut shown);
            } else if of_query_config == (schema == QUERY_CONFIG) {
                show("", &entry.json(), &mut shown);
            }
        }
        let missing: Vec<_> = described.difference(&shown).collect();
        assert_eq!(missing, [""; 0], "schema/{schema}.json describes what no example has");
    }
}

/// The paths of the fields that a schema describes.
fn describe(path: &str, schema: &Value, paths: &mut BTreeSet<String>) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        describe(&path, field, paths);
        paths.insert(path);
    }
    if let Some(items) = schema.get("items") {
        describe(path, items, paths);
    }
}

fn show(path: &str, value: &Value, paths: &mut BTreeSet<String>) {
    for (name, field) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        show(&path, field, paths);
        paths.insert(path);
    }
    value.as_array().into_iter().flatten().for_each(|element| show(path, element, paths));
}
