//! A KV entry, encoded once for all the keys that it goes under.

use std::rc::Rc;

use serde::Serialize;

use super::metadata::{Stamp, metadata_json};
use super::{Digest, StoredSettings, StoredValue};
use crate::index::{IndexRef, ItemName};
use crate::json::Json;

/// A value with its metadata, as a bulk write takes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// A JSON string, in which the value's text stands.
    value: Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Json>,
    #[serde(skip)]
    digest: Digest,
    /// The item that it is for, where that is known.
    #[serde(skip)]
    pub item: Option<ItemName>,
    /// When the table took the change, RFC 3339; only where a stream record's image decided.
    #[serde(skip)]
    pub changed_at: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    pub key: String,
    /// Shared with the index's other key.
    #[serde(flatten)]
    pub entry: Rc<Entry>,
}

impl Entry {
    /// An entry of `index`. That it keeps KV's limits is checked where the item is decoded.
    pub fn new(value: &str, index: &IndexRef, stamp: &Stamp) -> Self {
        let digest = Digest::of(value.as_bytes());
        Self {
            value: json_string(value),
            metadata: serde_json::from_str(&metadata_json(digest, index, stamp)).ok(),
            digest,
            item: Some(index.clone().into()),
            changed_at: stamp.changed_at.clone(),
        }
    }

    #[must_use]
    pub fn of_query(self, query: Option<String>) -> Self {
        let item = self.item.map(|item| ItemName { query, ..item });
        Self { item, ..self }
    }

    /// An entry as it was read, to be put back.
    pub fn restored(stored: &StoredValue) -> Self {
        Self {
            value: json_string(&stored.value),
            metadata: stored.metadata.clone(),
            digest: Digest::of(stored.value.as_bytes()),
            item: StoredSettings::parse(&stored.value).map(|stored| stored.index.into()),
            changed_at: None,
        }
    }

    pub fn to_stored(&self) -> StoredValue {
        let value = serde_json::from_str(self.value.get()).unwrap_or_default();
        StoredValue { value, metadata: self.metadata.clone() }
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn body_bytes(&self) -> usize {
        self.value.get().len() + self.metadata.as_ref().map_or(0, |metadata| metadata.get().len())
    }
}

fn json_string(text: &str) -> Json {
    // A string can always be written.
    Json::of(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Source;

    fn stamp(source: Source) -> Stamp {
        Stamp {
            exported_at: "2026-11-21T10:00:00.000Z".to_owned(),
            source,
            environment: "prod".to_owned(),
            changed_at: Some("2026-11-21T09:59:58Z".to_owned()),
        }
    }

    fn entry(value: &str) -> Entry {
        let index = IndexRef::parse("acct1", "main").unwrap();
        Entry::new(value, &index, &stamp(Source::ReExport))
    }

    #[test]
    fn metadata_holds_the_digest_of_the_values_bytes() {
        assert_eq!(
            entry("abc").metadata.unwrap().get(),
            r#"{"digest":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","exported_at":"2026-11-21T10:00:00.000Z","source":"re-export","system_account_id":"acct1","index_name":"main","environment":"prod","changed_at":"2026-11-21T09:59:58Z"}"#
        );
    }

    #[test]
    fn what_was_read_is_put_back_as_it_was() {
        let stored = entry("a\"b").to_stored();
        assert_eq!(stored.value, "a\"b");
        assert_eq!(Entry::restored(&stored).to_stored(), stored);
    }

    #[test]
    fn debug_shows_no_value() {
        assert!(!format!("{:?}", entry("s3cret")).contains("s3cret"));
    }
}
