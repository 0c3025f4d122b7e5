//! What a reader of KV would notice if a value changed its shape.

use serde_json::{Map, Value};

/// The changes from one value to another that a reader could stumble over, each in a sentence.
pub fn noticed(before: &Value, after: &Value) -> Vec<String> {
    let mut found = Vec::new();
    compare("the value", before, after, &mut found);
    found
}

fn compare(path: &str, before: &Value, after: &Value, found: &mut Vec<String>) {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => fields(path, before, after, found),
        (Value::Array(before), Value::Array(after)) => {
            if before.len() != after.len() {
                found.push(format!("{path} had {} elements, now {}", before.len(), after.len()));
            }
            for (place, (before, after)) in before.iter().zip(after).enumerate() {
                compare(&format!("{path}[{place}]"), before, after, found);
            }
        }
        (before, after) if kind(before) != kind(after) => {
            found.push(format!("{path} was {}, and is {} now", kind(before), kind(after)));
        }
        (before, after) if before != after => {
            found.push(format!("{path} has another content"));
        }
        _ => {}
    }
}

fn fields(
    path: &str,
    before: &Map<String, Value>,
    after: &Map<String, Value>,
    found: &mut Vec<String>,
) {
    for (name, before) in before {
        let path = format!("{path}.{name}");
        match after.get(name) {
            Some(after) => compare(&path, before, after, found),
            None => found.push(format!("{path} is gone")),
        }
    }
    for name in after.keys().filter(|name| !before.contains_key(*name)) {
        found.push(format!("{path}.{name} is new: readers have to pass over it"));
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction",
        Value::Number(_) => "a whole number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[test]
fn each_change_that_a_reader_could_stumble_over_is_told_with_its_path() {
    let before = serde_json::json!({"url": "u", "targets": [{"id": "a", "weight": 1.0}]});
    let rows = [
        (r#"{"targets":[{"id":"a","weight":1.0}]}"#, "the value.url is gone"),
        (
            r#"{"url":null,"targets":[{"id":"a","weight":1.0}]}"#,
            "the value.url was a string, and is null now",
        ),
        (
            r#"{"url":"u","targets":{"a":1.0}}"#,
            "the value.targets was a list, and is an object now",
        ),
        (
            r#"{"url":"u","targets":[{"id":"a","weight":"1.0"}]}"#,
            "the value.targets[0].weight was a number with a fraction, and is a string now",
        ),
        (
            r#"{"url":"u","targets":[{"id":"a","weight":1}]}"#,
            "the value.targets[0].weight was a number with a fraction, and is a whole number now",
        ),
        (r#"{"url":"u","targets":[]}"#, "the value.targets had 1 elements, now 0"),
        (
            r#"{"url":"u","new":1,"targets":[{"id":"a","weight":1.0}]}"#,
            "the value.new is new: readers have to pass over it",
        ),
        (r#"{"url":"U","targets":[{"id":"a","weight":1.0}]}"#, "the value.url has another content"),
    ];
    for (after, expected) in rows {
        let after = serde_json::from_str(after).unwrap();
        assert_eq!(noticed(&before, &after), [expected]);
    }
    assert_eq!(noticed(&before, &before), [""; 0]);
}
