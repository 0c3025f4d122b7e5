//! What is written to KV, byte for byte, and what is too large for it. The examples in `schema/` show the
//! rest.

use serde_json::{Value, json};

use crate::helpers::*;

#[tokio::test]
async fn an_item_beyond_the_limits_of_kv_is_rejected_before_anything_is_sent() {
    let world = World::start().await;
    let long = "x".repeat(600);
    let endpoint = json!({"index_endpoint": "https://h.example"});
    let items = [
        (shop("a", "i1", &long), "shop_id"),
        (shop("a", "i2", "."), "shop_id"),
        (shop("a", "i3", ".."), "shop_id"),
        (index("a", &long), "index_name"),
        (query_config("a", &long, "q", 1), "index_name"),
        // 202 bytes fit a key, but not the metadata, where each takes six.
        (index_with("a", &"\u{1}".repeat(200), endpoint), "index_name"),
    ];

    let records = items.iter().zip(1..).map(|((item, _), number)| written(number, item));
    let answered = world.batch_ok(records).await;

    assert_eq!(answered.counted("RecordsRejected"), 6);
    let rejected = world.logs.of("record rejected");
    let paths: Vec<&Value> = rejected.iter().map(|line| &line["path"]).collect();
    assert_eq!(paths, items.each_ref().map(|(_, path)| *path));
    assert!(world.stack.kv.log().is_empty());
}
