//! The metadata beside a value: whose it is, its digest, when and by what it was written.

use serde::{Deserialize, Serialize};

use super::limits::{LimitExceeded, MAX_METADATA_BYTES};
use crate::index::IndexRef;
use crate::kv::Digest;

/// What made the function write an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A batch of the table's stream.
    Stream,
    /// A re-export by hand.
    ReExport,
    /// A reconcile.
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

/// What the entries of one invocation have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    /// RFC 3339, UTC, to the millisecond.
    pub exported_at: String,
    /// Why they are written.
    pub source: Source,
}

/// The metadata of an entry, as it is written.
#[derive(Debug, Serialize)]
struct Written<'a> {
    digest: Digest,
    exported_at: &'a str,
    source: Source,
    system_account_id: &'a str,
    index_name: &'a str,
}

/// The metadata of a listed key, as far as it is ours: it names an account and an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// The index that the entry was written for.
    pub index: IndexRef,
    /// The digest of the value's bytes, where it can be read.
    pub digest: Option<Digest>,
}

impl Metadata {
    /// Reads the metadata of a listed key; `None` where it isn't ours.
    pub fn parse(json: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields {
            system_account_id: String,
            index_name: String,
            digest: Option<serde_json::Value>,
        }
        let fields: Fields = crate::json::from_object(json).ok()?;
        let digest = fields.digest.as_ref().and_then(|digest| digest.as_str());
        Some(Self {
            index: IndexRef { account: fields.system_account_id, name: fields.index_name },
            digest: digest.and_then(Digest::from_hex),
        })
    }
}

/// The metadata of an entry of `index` as JSON.
pub fn metadata_json(digest: Digest, index: &IndexRef, stamp: &Stamp) -> String {
    let metadata = Written {
        digest,
        exported_at: &stamp.exported_at,
        source: stamp.source,
        system_account_id: &index.account,
        index_name: &index.name,
    };
    // Only a map whose keys are no strings can't be written.
    serde_json::to_string(&metadata).unwrap_or_default()
}

/// Checks that the names of an index leave its metadata within KV's limit, whatever else it holds.
pub fn check_metadata_size(index: &IndexRef) -> Result<(), LimitExceeded> {
    // The longest source, and a time as long as every time is.
    let stamp =
        Stamp { exported_at: "2026-01-01T00:00:00.000Z".to_owned(), source: Source::Reconcile };
    let longest = metadata_json(Digest::of(b""), index, &stamp);
    if longest.len() > MAX_METADATA_BYTES { Err(LimitExceeded::LargeMetadata) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_fits_a_key_can_be_too_long_for_the_metadata_once_it_is_escaped() {
        let index = |name: &str| IndexRef::parse("acct1", name).unwrap();
        assert_eq!(
            check_metadata_size(&index(&"\u{1}".repeat(200))),
            Err(LimitExceeded::LargeMetadata)
        );
        assert_eq!(check_metadata_size(&index(&"x".repeat(500))), Ok(()));
    }

    #[test]
    fn ours_is_what_names_an_account_and_an_index() {
        let parse = |json| Metadata::parse(json);
        let digest = Digest::of(b"abc");
        let ours = format!(
            r#"{{"digest":"{digest}","exported_at":"t","source":"stream","system_account_id":"a","index_name":"i"}}"#
        );
        let index = IndexRef::parse("a", "i").unwrap();
        assert_eq!(parse(&ours), Some(Metadata { index: index.clone(), digest: Some(digest) }));
        let garbled = ours.replace(&digest.to_string(), "7");
        for other in [r#"{"system_account_id":"a","index_name":"i"}"#, &garbled] {
            assert_eq!(parse(other), Some(Metadata { index: index.clone(), digest: None }));
        }
        for foreign in ["null", "\"text\"", "{}", r#"{"other":1}"#, r#"["a","i",null]"#] {
            assert_eq!(parse(foreign), None, "{foreign}");
        }
    }
}
