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
    with(index(account, name), more)
}

/// An object with more fields.
pub fn with(mut object: Value, more: Value) -> Value {
    object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    object
}

/// An index whose active alias points at another one.
pub fn pointing(account: &str, name: &str, at: &str) -> Value {
    index_with(account, name, json!({"read_alias": at}))
}

/// An index that cannot be exported.
pub fn broken(account: &str, name: &str) -> Value {
    index_with(account, name, json!({"index_endpoint": 7}))
}

/// An index in a cell of its own.
pub fn in_cell(account: &str, name: &str, cell: &str) -> Value {
    index_with(account, name, json!({"cell": cell}))
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

/// The records of items that were written just now, numbered from 1.
pub fn all_written<'i>(items: impl IntoIterator<Item = &'i Value>) -> Vec<Value> {
    (1..).zip(items).map(|(number, item)| written(number, item)).collect()
}

/// The stream record of an item that was removed just now.
pub fn removed(number: u32, pk: &str, sk: &str) -> Value {
    record("REMOVE", number, json!({"Keys": to_item(&json!({"pk": pk, "sk": sk}))}))
}

/// The same record, so old that what is its own fault no longer holds the shard.
pub fn late(record: Value) -> Value {
    created_at(record, json!(now() - 600))
}

/// The same record with a creation time of any shape.
pub fn created_at(mut record: Value, time: Value) -> Value {
    record["dynamodb"]["ApproximateCreationDateTime"] = time;
    record
}

/// The sequence number of a record.
pub fn number_of(record: &Value) -> &str {
    testbed::stream::sequence_number(record).unwrap()
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
