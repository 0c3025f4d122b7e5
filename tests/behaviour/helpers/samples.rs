//! Files of the repository.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::now;

/// The text of a file, by its path in the repository.
pub fn text_of(path: &str) -> String {
    let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The pages of a folder of the repository, by their paths.
pub fn pages_in(folder: &str) -> BTreeMap<PathBuf, String> {
    let entries = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    let pages = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// A file in `events/`, parsed; the records of a stream event as if they were of just now.
pub fn sample_event(file: &str) -> Value {
    let mut event: Value = serde_json::from_str(&text_of(&format!("events/{file}"))).unwrap();
    let records = event.get_mut("Records").and_then(Value::as_array_mut);
    for record in records.into_iter().flatten() {
        record["dynamodb"]["ApproximateCreationDateTime"] = json!(now());
    }
    event
}
