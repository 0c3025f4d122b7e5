//! DynamoDB JSON from plain JSON.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A plain JSON value as an attribute: `"a"` becomes `{"S":"a"}`, `1` becomes `{"N":"1"}`.
fn to_attribute(value: &Value) -> Value {
    match value {
        Value::Null => json!({"NULL": true}),
        Value::Bool(flag) => json!({"BOOL": flag}),
        Value::Number(number) => json!({"N": number.to_string()}),
        Value::String(text) => json!({"S": text}),
        Value::Array(list) => json!({"L": list.iter().map(to_attribute).collect::<Vec<_>>()}),
        Value::Object(_) => json!({"M": to_item(value)}),
    }
}

/// A plain JSON object as an item; anything but an object becomes an empty item.
pub fn to_item(object: &Value) -> Value {
    let fields = object.as_object().into_iter().flatten();
    let fields: BTreeMap<_, _> = fields.map(|(name, value)| (name, to_attribute(value))).collect();
    json!(fields)
}
