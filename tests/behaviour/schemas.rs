//! The published schemas, examples and broken values in `schema/`, against what the exporter writes.

mod broken;
mod examples;
mod payloads;
#[path = "../support/schemas.rs"]
pub mod published;
mod urls;

use serde_json::Value;
use serde_json::value::RawValue;
use testbed::stack::{QUERY_CONFIGS, SETTINGS};

/// A file of `schema/examples/`.
#[derive(serde::Deserialize)]
pub struct Example {
    pub item: Value,
    pub kv: Entry,
}

/// What KV holds of an example's item.
#[derive(serde::Deserialize)]
pub struct Entry {
    namespace: String,
    pub keys: Vec<String>,
    /// As the file has it, with its order and its numbers.
    value: Box<RawValue>,
    metadata: Value,
}

pub fn example(name: &str) -> Example {
    let path = format!("{}/schema/examples/{name}.json", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}"))
}

pub fn examples() -> Vec<String> {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/schema/examples")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.map(|name| name.strip_suffix(".json").unwrap().to_owned()).collect()
}

impl Entry {
    /// The namespace of a binding of the search proxy.
    pub fn namespace(&self) -> &'static str {
        match self.namespace.as_str() {
            "KV" => SETTINGS,
            "KV_QCFG" => QUERY_CONFIGS,
            other => panic!("{other} is no binding"),
        }
    }

    fn json(&self) -> Value {
        serde_json::from_str(self.value.get()).unwrap()
    }

    /// The value without the blanks of the file.
    pub fn compact(&self) -> String {
        let (mut text, mut escaped) = (false, false);
        let kept = |c: &char| {
            let blank = !text && c.is_ascii_whitespace();
            (text, escaped) = match c {
                '"' if !escaped => (!text, false),
                '\\' => (text, !escaped),
                _ => (text, false),
            };
            !blank
        };
        self.value.get().chars().filter(kept).collect()
    }
}
