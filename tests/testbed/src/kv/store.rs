//! The namespaces: pairs in memory, in the order of their keys' bytes.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::Serialize;
use serde_json::{Value, json};

use super::call::{GetBulk, Page, ValueType};
use super::limits::MAX_GET_BYTES;
use super::stored::Stored;
use super::wire::{self, KEY_NOT_FOUND, Refusal};
use super::write_limit::Written;
use crate::http::Reply;

type Pairs = BTreeMap<String, Stored>;

/// A namespace, and its older states for reads that lag.
#[derive(Default)]
pub struct Namespace {
    pub pairs: Pairs,
    /// What listings show instead, while they lag.
    pub stale_listing: Option<Pairs>,
    /// What reads of values show instead, while they lag.
    pub stale_values: Option<Pairs>,
    /// When its keys were written.
    pub written: Written,
}

impl Namespace {
    pub fn get(&self, key: &str) -> Reply {
        match self.values().get(key) {
            Some(stored) => Reply::new(200, "application/octet-stream", stored.value.clone()),
            None => Refusal::new(404, KEY_NOT_FOUND, "get: 'key not found'").reply(),
        }
    }

    pub fn get_bulk(&self, get: &GetBulk) -> Reply {
        let pairs = self.values();
        let mut values = BTreeMap::new();
        let mut bytes = 0;
        for key in &get.keys {
            let Some(stored) = pairs.get(key) else {
                values.insert(key, Value::Null);
                continue;
            };
            bytes += stored.value.len();
            let value = match get.r#type {
                ValueType::Text => Value::String(stored.value.clone()),
                ValueType::Json => match serde_json::from_str(&stored.value) {
                    Ok(value) => value,
                    Err(_) => return Refusal::bad(format!("{key:?} holds no JSON")).reply(),
                },
            };
            let entry = json!({"value": value, "metadata": stored.metadata});
            values.insert(key, if get.with_metadata { entry } else { value });
        }
        if bytes > MAX_GET_BYTES {
            return Refusal::new(413, wire::BAD_BODY, "the values are over 25 MB").reply();
        }
        wire::success(json!({"values": values}), None)
    }

    pub fn list(&self, page: &Page) -> Reply {
        #[derive(Serialize)]
        struct Listed<'a> {
            name: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            metadata: Option<&'a Value>,
        }
        let pairs = self.stale_listing.as_ref().unwrap_or(&self.pairs);
        let from = match &page.after {
            Some(key) => Bound::Excluded(key.as_str()),
            None => Bound::Included(page.prefix.as_str()),
        };
        let mut rest = pairs
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

    fn values(&self) -> &Pairs {
        self.stale_values.as_ref().unwrap_or(&self.pairs)
    }
}
