//! The files in `events/`.

use serde_json::Value;

/// The text of a file in `events/`.
pub fn sample(file: &str) -> String {
    let path = format!("{}/events/{file}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A file in `events/`, parsed.
pub fn sample_event(file: &str) -> Value {
    serde_json::from_str(&sample(file)).unwrap()
}
