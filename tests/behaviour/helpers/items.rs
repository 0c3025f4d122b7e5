//! Items, and their stream records.

use serde_json::{Value, json};
use testbed::table::to_item;

/// An index-settings item as plain JSON.
pub fn index(account: &str, name: &str) -> Value {
    json!({
        "pk": account,
        "sk": format!("INDEX#{name}"),
        "index_endpoint": format!("https://{name}.example.com"),
    })
}

/// The same with more attributes.
pub fn index_with(account: &str, name: &str, more: Value) -> Value {
    let mut item = index(account, name);
    let fields = item.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    item
}

/// The same with a shop id.
pub fn shop(account: &str, name: &str, shop_id: &str) -> Value {
    index_with(account, name, json!({"shop_id": shop_id}))
}

/// A query-config item as plain JSON.
pub fn query_config(account: &str, name: &str, query: &str, boost: u32) -> Value {
    json!({"pk": account, "sk": format!("INDEX#{name}#QUERY#{query}"), "boost": boost})
}

/// The stream record of a written item, with `number` as its sequence number.
pub fn written(number: u32, item: &Value) -> Value {
    let image = to_item(item);
    let keys = json!({"pk": image["pk"], "sk": image["sk"]});
    record("MODIFY", number, json!({"Keys": keys, "NewImage": image}))
}

/// The stream record of a removed item.
pub fn removed(number: u32, pk: &str, sk: &str) -> Value {
    record("REMOVE", number, json!({"Keys": to_item(&json!({"pk": pk, "sk": sk}))}))
}

fn record(name: &str, number: u32, mut dynamodb: Value) -> Value {
    dynamodb["SequenceNumber"] = json!(number.to_string());
    dynamodb["ApproximateCreationDateTime"] = json!(1_795_183_202);
    dynamodb["StreamViewType"] = json!("NEW_IMAGE");
    json!({
        "eventID": format!("event-{number}"),
        "eventName": name,
        "eventSource": "aws:dynamodb",
        "eventVersion": "1.1",
        "awsRegion": testbed::aws::REGION,
        "dynamodb": dynamodb,
    })
}
