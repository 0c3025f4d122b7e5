//! The published schemas, examples and broken values in `schema/`, against what the exporter writes.

mod broken;
mod examples;
mod payloads;
#[path = "../support/schemas.rs"]
pub mod published;
mod urls;

use serde_json::Value;
use serde_json::value::RawValue;

/// A file of `schema/examples/`.
#[derive(serde::Deserialize)]
struct Example {
    item: Value,
    kv: Entry,
}

/// What KV holds of an example's item.
#[derive(serde::Deserialize)]
struct Entry {
    namespace: String,
    keys: Vec<String>,
    /// As the file has it, with its order and its numbers.
    value: Box<RawValue>,
    metadata: Value,
}

fn example(name: &str) -> Example {
    let path = format!("{}/schema/examples/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn examples() -> Vec<String> {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/schema/examples")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.map(|name| name.strip_suffix(".json").unwrap().to_owned()).collect()
}

impl Entry {
    fn json(&self) -> Value {
        serde_json::from_str(self.value.get()).unwrap()
    }
}
