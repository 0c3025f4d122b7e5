//! Keys of query configs.

use serde_json::json;

use super::asking::*;
use crate::helpers::*;

#[tokio::test]
async fn a_query_config_is_taken_for_the_one_that_its_value_names() {
    let item = |boost| query_config("a", "i", "q", boost);
    let world = World::start().await;
    world.settled_with([item(1), query_config("a", "i", "r", 1)]).await;
    let key = query_config_key("a", "i", "q");

    let report = asked(&world, &explain_key(&key)).await;
    assert_eq!(verdicts(&report), [(key.as_str(), "right")]);
    assert_eq!((&report["index_name"], &report["item"]), (&json!("i"), &json!("exportable")));

    world.load([item(2)]);
    let report = asked(&world, &explain_key(&key)).await;
    assert_eq!(verdicts(&report), [(key.as_str(), "stale")]);
    assert_eq!(report["keys"][0]["differs"], json!(["boost"]));
}

#[tokio::test]
async fn a_settings_key_may_begin_like_a_query_configs() {
    let world = World::start().await;
    world.settled_with([shop("qcfg", "i", "qcfg-shop.example")]).await;

    let report = asked(&world, &explain_key("qcfg-i")).await;

    assert_eq!(verdicts(&report), [("qcfg-shop.example", "right"), ("qcfg-i", "right")]);
}
