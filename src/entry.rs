//! A KV entry: value, digest and metadata, encoded once for all the keys that it goes under.

use std::fmt;
use std::rc::Rc;

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, hex};
use crate::limits::{MAX_METADATA_BYTES, MAX_VALUE_BYTES};
use crate::record::{Encoded, IndexRef, Rejection, json};

/// What made the function write an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A batch of the table's stream.
    Stream,
    /// A re-export by hand.
    ReExport,
    /// Reconcile.
    Reconcile,
}

impl Source {
    /// The name, as in the metadata.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::ReExport => "re-export",
            Self::Reconcile => "reconcile",
        }
    }
}

/// The KV metadata of an entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// Hex SHA-256 of the value's bytes.
    pub digest: String,
    /// RFC 3339, UTC.
    pub exported_at: String,
    /// See [`Source`].
    pub source: String,
    /// The account.
    pub system_account_id: String,
    /// The index.
    pub index_name: String,
}

/// A value with its metadata, ready to be sent. May hold an API key: `Debug` shows the size only.
#[derive(Clone, PartialEq, Eq)]
pub struct Entry {
    value: Encoded,
    metadata_json: Option<String>,
}

/// A value as KV holds it. May hold an API key: `Debug` shows the size only.
#[derive(Clone, PartialEq, Eq)]
pub struct Stored {
    /// The value's text.
    pub value: String,
    /// The metadata, as JSON.
    pub metadata_json: Option<String>,
}

impl fmt::Debug for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stored").field("value_bytes", &self.value.len()).finish_non_exhaustive()
    }
}

/// An entry under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The KV key.
    pub key: String,
    /// What goes under it, shared with the other key of an index.
    pub entry: Rc<Entry>,
}

impl Entry {
    /// An entry of `index`, unless KV's limits forbid it.
    pub fn new(
        value: Encoded,
        index: &IndexRef,
        source: Source,
        exported_at: &str,
    ) -> Result<Self, Rejection> {
        check_value_size(value.bytes())?;
        let metadata_json = metadata_json(&value.digest(), index, source, exported_at);
        if metadata_json.len() > MAX_METADATA_BYTES {
            return Err(metadata_too_large());
        }
        Ok(Self { value, metadata_json: Some(metadata_json) })
    }

    /// An entry as it was read, to be put back.
    pub fn restored(Stored { value, metadata_json }: &Stored) -> Self {
        Self { value: Encoded::of(value), metadata_json: metadata_json.clone() }
    }

    /// The entry as KV holds it.
    pub fn to_stored(&self) -> Stored {
        let value = serde_json::from_str(self.value.literal()).unwrap_or_default();
        Stored { value, metadata_json: self.metadata_json.clone() }
    }

    /// The value as a JSON string literal.
    pub fn value_json(&self) -> &str {
        self.value.literal()
    }

    /// The metadata as a JSON object.
    pub fn metadata_json(&self) -> Option<&str> {
        self.metadata_json.as_deref()
    }

    /// The digest of the value's bytes.
    pub fn digest(&self) -> Digest {
        self.value.digest()
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("value_bytes", &self.value.bytes()).finish_non_exhaustive()
    }
}

/// Rejects a value over KV's 25 MiB.
pub fn check_value_size(bytes: usize) -> Result<(), Rejection> {
    if bytes > MAX_VALUE_BYTES {
        return Err(Rejection::new("(value)", "gives a KV value of more than 25 MiB"));
    }
    Ok(())
}

/// Rejects an index whose names alone make the metadata too large.
pub fn check_metadata_size(index: &IndexRef) -> Result<(), Rejection> {
    /// All but the names is less, and a byte of those is written as six at the most.
    const WITHOUT_NAMES: usize = 256;
    if WITHOUT_NAMES + (index.account.len() + index.index.len()) * 6 <= MAX_METADATA_BYTES {
        return Ok(());
    }
    // The longest source, and a time as long as every time is.
    let longest =
        metadata_json(&Digest::of(b""), index, Source::Reconcile, "2026-01-01T00:00:00.000Z");
    if longest.len() > MAX_METADATA_BYTES { Err(metadata_too_large()) } else { Ok(()) }
}

fn metadata_too_large() -> Rejection {
    Rejection::new("index_name", "gives KV metadata of more than 1,024 bytes")
}

fn metadata_json(digest: &Digest, index: &IndexRef, source: Source, exported_at: &str) -> String {
    let mut json = String::with_capacity(320);
    json.push_str("{\"digest\":\"");
    json.push_str(&hex(digest.as_bytes()));
    json.push_str("\",\"exported_at\":");
    json::push_string(&mut json, exported_at);
    json.push_str(",\"source\":");
    json::push_string(&mut json, source.as_str());
    json.push_str(",\"system_account_id\":");
    json::push_string(&mut json, &index.account);
    json.push_str(",\"index_name\":");
    json::push_string(&mut json, &index.index);
    json.push('}');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-11-21T10:00:00.000Z";

    fn index(name: &str) -> IndexRef {
        IndexRef::parse("acct1", name).unwrap()
    }

    #[test]
    fn metadata_holds_the_digest_of_the_values_bytes() {
        let entry = Entry::new(Encoded::of("abc"), &index("main"), Source::ReExport, NOW).unwrap();
        assert_eq!(
            entry.metadata_json().unwrap(),
            r#"{"digest":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","exported_at":"2026-11-21T10:00:00.000Z","source":"re-export","system_account_id":"acct1","index_name":"main"}"#
        );
        let metadata: Metadata = serde_json::from_str(entry.metadata_json().unwrap()).unwrap();
        assert_eq!(metadata.source, Source::ReExport.as_str());
    }

    #[test]
    fn limits_are_checked_before_anything_is_sent() {
        assert!(check_value_size(26_214_400).is_ok());
        assert!(check_value_size(26_214_401).is_err());
        // A name that fits a key's 512 bytes but not the metadata once it is escaped.
        let name = "\u{1}".repeat(200);
        assert!(check_metadata_size(&index(&name)).is_err());
        assert!(Entry::new(Encoded::of("v"), &index(&name), Source::Stream, NOW).is_err());
        assert!(check_metadata_size(&index(&"x".repeat(500))).is_ok());
    }

    #[test]
    fn debug_shows_no_value() {
        let entry = Entry::new(Encoded::of("s3cret"), &index("main"), Source::Stream, NOW).unwrap();
        assert!(!format!("{entry:?}").contains("s3cret"));
    }
}
