//! The JSON Schemas in `schema/`, for the tests.
//!
//! The files let readers pass over fields that they do not know. The tests close them: a field that
//! is written and not described is a defect of one or the other.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};

/// The schemas of an invocation: the field that tells its payload from others, the schema of the
/// payload, and that of the report.
const INVOCATIONS: [(&str, &str, &str); 4] = [
    ("Records", "payloads/stream-event", "reports/batch"),
    ("reconcile", "payloads/reconcile", "reports/reconcile"),
    ("explain", "payloads/explain", "reports/explain"),
    ("index_name", "payloads/re-export", "reports/re-export"),
];

/// The schemas of what KV holds.
const VALUES: [&str; 3] = [SETTINGS, QUERY_CONFIG, METADATA];
pub const SETTINGS: &str = "settings";
pub const QUERY_CONFIG: &str = "query-config";
pub const METADATA: &str = "metadata";

static CLOSED: LazyLock<BTreeMap<&str, Validator>> = LazyLock::new(|| {
    let invocations = INVOCATIONS.iter().flat_map(|(_, payload, report)| [*payload, *report]);
    let names = VALUES.into_iter().chain(invocations);
    names.map(|name| (name, validator(&closed(published(name))))).collect()
});

/// A schema as it is published.
pub fn published(name: &str) -> Value {
    let path = format!("{}/schema/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What checks values against a schema.
pub fn validator(schema: &Value) -> Validator {
    jsonschema::draft202012::new(schema).unwrap_or_else(|error| panic!("{error}"))
}

/// Checks a value against a schema in which every field is described.
pub fn check(name: &str, value: &Value) -> Result<(), String> {
    let schema = CLOSED.get(name).unwrap_or_else(|| panic!("INVOCATIONS and VALUES lack {name}"));
    let broken: Vec<String> = schema
        .iter_errors(value)
        .map(|error| format!("schema/{name}.json at {:?}: {error}", error.instance_path().as_str()))
        .collect();
    if broken.is_empty() { Ok(()) } else { Err(broken.join("; ")) }
}

/// Checks an answered payload and its report.
pub fn check_invocation(payload: &Value, report: &Value) -> Result<(), String> {
    let known = INVOCATIONS.iter().find(|(field, ..)| payload.get(field).is_some());
    let (_, payload_schema, report_schema) = known.ok_or("INVOCATIONS lacks this payload")?;
    check(payload_schema, payload)?;
    check(report_schema, report)
}

/// The schema with every object closed that has described fields and does not say whether it is open.
fn closed(mut schema: Value) -> Value {
    match &mut schema {
        Value::Object(keywords) => {
            if keywords.contains_key("properties") {
                keywords.entry("additionalProperties").or_insert(json!(false));
            }
            keywords.values_mut().for_each(|inner| *inner = closed(inner.take()));
        }
        Value::Array(inner) => inner.iter_mut().for_each(|inner| *inner = closed(inner.take())),
        _ => {}
    }
    schema
}
