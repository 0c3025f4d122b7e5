//! DynamoDB JSON from plain JSON and back.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// A plain JSON value as an attribute: `"a"` becomes `{"S":"a"}`, `1` becomes `{"N":"1"}`.
pub fn to_attribute(value: &Value) -> Value {
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

/// An attribute as plain JSON. Sets become arrays, binary stays base64, and a number that does not
/// fit into JSON becomes null.
pub fn from_attribute(attribute: &Value) -> Value {
    let Some((kind, value)) = attribute.as_object().and_then(|typed| typed.iter().next()) else {
        return Value::Null;
    };
    match (kind.as_str(), value) {
        ("NULL", _) => Value::Null,
        ("N", Value::String(digits)) => number(digits),
        ("NS", Value::Array(set)) => {
            set.iter().map(|digits| number(digits.as_str().unwrap_or_default())).collect()
        }
        ("L", Value::Array(list)) => list.iter().map(from_attribute).collect(),
        ("M", map) => from_item(map),
        _ => value.clone(),
    }
}

pub fn from_item(item: &Value) -> Value {
    let fields = item.as_object().into_iter().flatten();
    let fields: BTreeMap<_, _> =
        fields.map(|(name, value)| (name, from_attribute(value))).collect();
    json!(fields)
}

fn number(digits: &str) -> Value {
    serde_json::from_str(digits).unwrap_or_default()
}
