//! A namespace: pairs in memory, in the order of their keys' bytes.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use serde_json::{Value, json};

use super::call::{GetBulk, Page};
use super::limits::MAX_GET_BYTES;
use super::wire::{self, Refusal};
use crate::http::Reply;

/// What KV holds under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub value: String,
    pub metadata: Option<Value>,
}

impl Stored {
    /// The value as JSON; null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.value).unwrap_or_default()
    }
}

/// How often one key may be written.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

type Pairs = BTreeMap<String, Stored>;

/// A namespace, and its older state for reads that lag.
#[derive(Default)]
pub struct Namespace {
    pub pairs: Pairs,
    /// What reads of values show instead, while they lag.
    pub stale_values: Option<Pairs>,
    /// When keys were written, for a second.
    written: BTreeMap<String, SystemTime>,
}

#[derive(Serialize)]
struct Listed<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Value>,
}

impl Namespace {
    /// Writes a key, or deletes it, if it was not written within the last second.
    pub fn write(&mut self, key: &str, content: Option<Stored>, now: SystemTime) -> bool {
        let is_recent =
            |at: &SystemTime| now.duration_since(*at).unwrap_or_default() < WRITE_INTERVAL;
        if self.written.get(key).is_some_and(is_recent) {
            return false;
        }
        self.written.insert(key.to_owned(), now);
        match content {
            Some(stored) => self.pairs.insert(key.to_owned(), stored),
            None => self.pairs.remove(key),
        };
        true
    }

    pub fn get_bulk(&self, get: &GetBulk) -> Reply {
        let values = self.stale_values.as_ref().unwrap_or(&self.pairs);
        let found = get.keys.iter().map(|key| (key, values.get(key)));
        let found: BTreeMap<_, _> = found.collect();
        let bytes: usize = found.values().flatten().map(|stored| stored.value.len()).sum();
        if bytes > MAX_GET_BYTES {
            return Refusal::new(413, wire::BAD_BODY, "the values are over 25 MB").reply();
        }
        let entry = |stored: &Stored| match get.with_metadata {
            true => json!({"value": stored.value, "metadata": stored.metadata}),
            false => json!(stored.value),
        };
        let values = found.into_iter().map(|(key, stored)| (key, stored.map(entry)));
        wire::success(json!({"values": values.collect::<BTreeMap<_, _>>()}), None)
    }

    pub fn list(&self, page: &Page) -> Reply {
        let from = match &page.after {
            Some(key) => Bound::Excluded(key.as_str()),
            None => Bound::Included(page.prefix.as_str()),
        };
        let mut rest = self
            .pairs
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(&page.prefix));
        let names: Vec<Listed<'_>> = rest
            .by_ref()
            .take(page.limit)
            .map(|(name, stored)| Listed { name, metadata: stored.metadata.as_ref() })
            .collect();
        let last = rest.next().and_then(|_| names.last());
        // Opaque, so that no caller depends on its form.
        let cursor = last.map_or_else(String::new, |last| hex::encode(last.name));
        let info = json!({"count": names.len(), "cursor": cursor});
        wire::success(names, Some(info))
    }
}
