//! Items, and their stream records.

use std::time::UNIX_EPOCH;

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

pub fn shop(account: &str, name: &str, shop_id: &str) -> Value {
    index_with(account, name, json!({"shop_id": shop_id}))
}

/// A query-config item as plain JSON.
pub fn query_config(account: &str, name: &str, query: &str, boost: u32) -> Value {
    json!({"pk": account, "sk": format!("INDEX#{name}#QUERY#{query}"), "boost": boost})
}

/// The stream record of an item that was written just now, with `number` as its sequence number.
pub fn written(number: u32, item: &Value) -> Value {
    let image = to_item(item);
    let keys = json!({"pk": image["pk"], "sk": image["sk"]});
    record("MODIFY", number, json!({"Keys": keys, "NewImage": image}))
}

/// The stream record of an item that was removed just now.
pub fn removed(number: u32, pk: &str, sk: &str) -> Value {
    record("REMOVE", number, json!({"Keys": to_item(&json!({"pk": pk, "sk": sk}))}))
}

/// The same record of a change that the table took so many seconds ago.
pub fn ago(seconds: u64, record: Value) -> Value {
    created_at(record, json!(now() - seconds))
}

/// The same record, so old that its image may not be the newest.
pub fn late(record: Value) -> Value {
    ago(600, record)
}

/// The same record with a creation time of any shape.
pub fn created_at(mut record: Value, time: Value) -> Value {
    record["dynamodb"]["ApproximateCreationDateTime"] = time;
    record
}

/// Seconds since the epoch, as records tell the time.
pub fn now() -> u64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs()
}

fn record(name: &str, number: u32, mut dynamodb: Value) -> Value {
    dynamodb["SequenceNumber"] = json!(number.to_string());
    dynamodb["ApproximateCreationDateTime"] = json!(now());
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
