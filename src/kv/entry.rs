//! A KV entry, encoded once for all of its keys.

use std::rc::Rc;

use serde::Serialize;

use super::{Digest, Metadata, StoredValue};
use crate::index::ItemRef;
use crate::json::Json;

/// A value with its metadata, as a bulk write takes it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Entry {
    /// The value's text, as a JSON string.
    value: Json,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<Json>,
    #[serde(skip)]
    digest: Digest,
    /// What the JSON of `metadata` says.
    #[serde(skip)]
    parsed: Option<Metadata>,
    /// The item that it was made for. `None` in an entry that is put back.
    #[serde(skip)]
    pub item: Option<ItemRef>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    pub key: String,
    /// Shared with the index's other key.
    #[serde(flatten)]
    pub entry: Rc<Entry>,
}

impl Entry {
    /// Returns an entry whose metadata has the value's digest. KV's limits were checked when the item was
    /// decoded.
    pub fn new(value: &str, metadata: Metadata) -> Self {
        let digest = Digest::of(value.as_bytes());
        let metadata = Metadata { digest: Some(digest), ..metadata };
        Self {
            value: Json::string(value),
            metadata: Some(metadata.to_json()),
            digest,
            parsed: Some(metadata),
            item: None,
        }
    }

    #[must_use]
    pub fn of_item(self, item: ItemRef) -> Self {
        Self { item: Some(item), ..self }
    }

    /// Returns an entry that puts back what was read, byte for byte.
    pub fn restored(stored: &StoredValue) -> Self {
        Self {
            value: Json::string(&stored.value),
            metadata: stored.metadata.clone(),
            digest: Digest::of(stored.value.as_bytes()),
            parsed: stored.metadata(),
            item: None,
        }
    }

    pub fn to_stored(&self) -> StoredValue {
        let value = serde_json::from_str(self.value.get()).unwrap_or_default();
        StoredValue { value, metadata: self.metadata.clone() }
    }

    pub fn digest(&self) -> Digest {
        self.digest
    }

    pub fn metadata(&self) -> Option<&Metadata> {
        self.parsed.as_ref()
    }

    pub fn body_bytes(&self) -> usize {
        self.value.get().len() + self.metadata.as_ref().map_or(0, |metadata| metadata.get().len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::IndexRef;
    use crate::kv::Source;

    fn entry(value: &str) -> Entry {
        let metadata = Metadata {
            index: IndexRef::parse("acct1", "main").unwrap(),
            environment: Some("prod".to_owned()),
            digest: None,
            exported_at: Some("2026-11-21T10:00:00.000Z".to_owned()),
            changed_at: Some("2026-11-21T09:59:58Z".to_owned()),
            source: Some(Source::ReExport),
        };
        Entry::new(value, metadata)
    }

    #[test]
    fn metadata_is_written_with_the_digest_of_the_values_bytes() {
        let entry = entry("abc");
        assert_eq!(
            entry.to_stored().metadata.unwrap().get(),
            r#"{"digest":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","exported_at":"2026-11-21T10:00:00.000Z","source":"re-export","system_account_id":"acct1","index_name":"main","environment":"prod","changed_at":"2026-11-21T09:59:58Z"}"#
        );
        assert_eq!(entry.to_stored().metadata(), entry.metadata().cloned(), "read as written");
    }

    #[test]
    fn a_value_is_put_back_byte_for_byte() {
        let written = entry("a\"b").to_stored();
        assert_eq!(written.value, "a\"b");
        let odd = StoredValue {
            metadata: serde_json::from_str(r#"{"index_name": "i",  "x":[1e2]}"#).ok(),
            value: "\u{1}".to_owned(),
        };
        for stored in [written, odd, StoredValue { value: String::new(), metadata: None }] {
            let restored = Entry::restored(&stored);
            assert_eq!(restored.to_stored(), stored);
            assert_eq!(restored.metadata().cloned(), stored.metadata());
        }
    }

    #[test]
    fn debug_shows_no_value() {
        let entry = entry("s3cret");
        let shown = format!("{entry:?} {:?}", entry.to_stored());
        assert!(!shown.contains("s3cret"), "{shown}");
    }
}
