//! A KV entry, encoded once for all the keys that it goes under.

use std::fmt;
use std::rc::Rc;

use serde_json::value::RawValue;

use super::limits::{LimitExceeded, MAX_METADATA_BYTES, check_value_size};
use super::metadata::{Stamp, metadata_json};
use super::{Digest, StoredSettings, StoredValue};
use crate::index::{IndexRef, ItemName};

/// A value with its metadata, ready to be sent. May hold an API key: `Debug` shows sizes only.
#[derive(Clone)]
pub struct Entry {
    /// The value's text as a JSON string: what a bulk write takes.
    value: Box<RawValue>,
    metadata: Option<Box<RawValue>>,
    digest: Digest,
    /// The item that it is for, where that is known.
    pub item: Option<ItemName>,
    /// When the table took the change, RFC 3339; only where a stream record's image decided.
    pub changed_at: Option<String>,
}

/// An entry and the key that it goes under.
#[derive(Debug, Clone, PartialEq)]
pub struct Pair {
    /// The KV key.
    pub key: String,
    /// The entry, shared with the index's other key.
    pub entry: Rc<Entry>,
}

impl Entry {
    /// An entry of `index`, unless KV's limits forbid it.
    pub fn new(value: &str, index: &IndexRef, stamp: &Stamp) -> Result<Self, LimitExceeded> {
        check_value_size(value.len())?;
        let digest = Digest::of(value.as_bytes());
        let metadata = metadata_json(digest, index, stamp);
        if metadata.len() > MAX_METADATA_BYTES {
            return Err(LimitExceeded::LargeMetadata);
        }
        Ok(Self {
            value: json_string(value),
            metadata: RawValue::from_string(metadata).ok(),
            digest,
            item: Some(index.clone().into()),
            changed_at: stamp.changed_at.clone(),
        })
    }

    /// The entry of a query config of the index.
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

    /// The entry as KV holds it.
    pub fn to_stored(&self) -> StoredValue {
        let value = serde_json::from_str(self.value.get()).unwrap_or_default();
        StoredValue { value, metadata: self.metadata.clone() }
    }

    /// The value's text as a JSON string.
    pub fn value_json(&self) -> &RawValue {
        &self.value
    }

    /// The metadata as a JSON object.
    pub fn metadata_json(&self) -> Option<&RawValue> {
        self.metadata.as_deref()
    }

    /// The digest of the value's bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// What the entry takes in a request's body, in bytes.
    pub fn body_bytes(&self) -> usize {
        self.value.get().len() + self.metadata.as_ref().map_or(0, |metadata| metadata.get().len())
    }
}

fn json_string(text: &str) -> Box<RawValue> {
    // A string can always be written.
    serde_json::value::to_raw_value(text).unwrap_or_default()
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        let metadata = self.metadata.as_deref().map(RawValue::get);
        self.digest == other.digest && metadata == other.metadata.as_deref().map(RawValue::get)
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("body_bytes", &self.body_bytes()).finish_non_exhaustive()
    }
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
        Entry::new(value, &index, &stamp(Source::ReExport)).unwrap()
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
        assert_eq!(Entry::restored(&stored), entry("a\"b"));
    }

    #[test]
    fn debug_shows_no_value() {
        assert!(!format!("{:?}", entry("s3cret")).contains("s3cret"));
    }
}
