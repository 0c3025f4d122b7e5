//! The metadata beside a value: its index and environment, its digest, when and by what it was written.

use std::fmt;

use humantime::parse_rfc3339;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Digest;
use super::limits::{LimitExceeded, MAX_KEY_BYTES, MAX_METADATA_BYTES};
use crate::index::IndexRef;
use crate::json::{Fields, Json};

/// What a value's metadata says, in the order in which it is written. A field is `None` where it is
/// absent, or where somebody else has put something impossible into it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metadata {
    /// The digest of the value's bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// RFC 3339, UTC, to the millisecond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exported_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    #[serde(flatten)]
    pub index: IndexRef,
    /// The environment whose exporter wrote it; absent in what earlier versions wrote. May be any text,
    /// so only [`Metadata::shown_environment`] may be shown. Empty where it is no text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// When the table took the change, RFC 3339 to the second; only from the stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    Stream,
    ReExport,
    Reconcile,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

impl Metadata {
    /// Returns `None` where the metadata names no account and index: no exporter wrote it.
    pub fn parse(json: &str) -> Option<Self> {
        let fields: Fields<'_> = serde_json::from_str(json).ok()?;
        let text = |name| fields.get::<String>(name);
        let is_time = |text: &String| text.len() <= LONGEST_TIME && parse_rfc3339(text).is_ok();
        let time = |name| text(name).filter(is_time);
        // Neither text nor null: no environment has an empty name, so the key is not ours.
        let no_text = fields.get("environment").filter(|json: &&RawValue| json.get() != "null");
        Some(Self {
            index: IndexRef::parse(&text("system_account_id")?, &text("index_name")?)?,
            environment: text("environment").or_else(|| no_text.map(|_| String::new())),
            digest: fields.get("digest"),
            exported_at: time("exported_at"),
            changed_at: time("changed_at"),
            source: fields.get("source"),
        })
    }

    /// Returns whether the key is `environment`'s: its own, or from before environments were named.
    pub fn is_of(&self, environment: &str) -> bool {
        self.environment.as_deref().is_none_or(|owner| owner == environment)
    }

    /// Returns the environment's name, if it has the form of one.
    pub fn shown_environment(&self) -> Option<&str> {
        self.environment.as_deref().filter(|name| is_environment(name))
    }
}

/// The longest name of an environment. The rest of KV's limit is for the index's names.
const MAX_ENVIRONMENT_BYTES: usize = 64;

pub fn is_environment(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MAX_ENVIRONMENT_BYTES).contains(&name.len()) && name.bytes().all(fits)
}

/// A time to the nanosecond, as RFC 3339 writes it.
const LONGEST_TIME: usize = "2026-01-01T00:00:00.000000000Z".len();

/// The metadata's bytes beside the names, with the longest source and environment and both times.
const LONGEST_WITHOUT_NAMES: usize = 295;
// Names that need no escapes fit the metadata wherever they fit a key.
const _: () = assert!(LONGEST_WITHOUT_NAMES + MAX_KEY_BYTES < MAX_METADATA_BYTES);

/// Checks that the names of an index leave its metadata within KV's limit, whatever else it holds.
pub fn check_metadata_size(index: &IndexRef) -> Result<(), LimitExceeded> {
    let escaped = |name| Json::string(name).get().len() - 2;
    let names = escaped(&index.account) + escaped(&index.name);
    let too_large = LimitExceeded("gives KV metadata of more than 1,024 bytes");
    if names > MAX_METADATA_BYTES - LONGEST_WITHOUT_NAMES { Err(too_large) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::StoredValue;
    use serde_json::{Value, json};

    /// Metadata of the value `abc`, with all fields.
    const WHOLE: &str = r#"{"digest":"ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad","exported_at":"2026-11-21T10:00:00.000Z","source":"re-export","system_account_id":"acct1","index_name":"main","environment":"prod","changed_at":"2026-11-21T09:59:58Z"}"#;

    #[test]
    fn metadata_is_written_with_the_digest_of_the_values_bytes_and_read_as_written() {
        let whole = Metadata::parse(WHOLE).unwrap();
        let stored = StoredValue::new("abc", Metadata { digest: None, ..whole.clone() });
        assert_eq!(stored.metadata.as_ref().unwrap().get(), WHOLE);
        assert_eq!(stored.metadata(), Some(whole));
    }

    #[test]
    fn metadata_with_the_longest_names_has_1024_bytes() {
        let index = |name: &str| IndexRef::parse("acct1", name).unwrap();
        let room = MAX_METADATA_BYTES - LONGEST_WITHOUT_NAMES - "acct1".len();
        let longest = Metadata {
            index: index(&"x".repeat(room)),
            environment: Some("e".repeat(MAX_ENVIRONMENT_BYTES)),
            ..Metadata::parse(WHOLE).unwrap()
        };
        assert_eq!(Json::of(&longest).unwrap().get().len(), MAX_METADATA_BYTES);
        assert_eq!(check_metadata_size(&longest.index), Ok(()));
        for too_long in [index(&"x".repeat(room + 1)), index(&"\u{1}".repeat(200))] {
            assert!(check_metadata_size(&too_long).is_err(), "{too_long}");
        }
    }

    #[test]
    fn metadata_without_an_account_and_an_index_is_nobodys() {
        for json in [
            "7",
            "null",
            "{}",
            r#"["a","i"]"#,
            r#"{"system_account_id":"a"}"#,
            r#"{"system_account_id":"","index_name":"i"}"#,
            r#"{"system_account_id":"a","index_name":"i#j"}"#,
            r#"{"system_account_id":"a","index_name":7}"#,
        ] {
            assert_eq!(Metadata::parse(json), None, "{json}");
        }
    }

    #[test]
    fn a_spoilt_field_is_none_and_hides_no_other() {
        let too_exact = format!("2026-11-21T10:00:00.{}Z", "0".repeat(40));
        for (name, text) in [
            ("unknown", "s3cret"),
            ("digest", "s3cret"),
            ("digest", "ba78"),
            ("exported_at", "s3cret"),
            ("exported_at", &too_exact),
            ("changed_at", "s3cret"),
            ("source", "s3cret"),
        ] {
            let mut json: Value = serde_json::from_str(WHOLE).unwrap();
            json[name] = json!(text);
            let parsed = Metadata::parse(&json.to_string()).unwrap();
            json.as_object_mut().unwrap().remove(name);
            assert_eq!(serde_json::to_value(&parsed).unwrap(), json, "{name}");
        }
    }

    #[test]
    fn a_key_is_the_environments_that_it_names_and_ours_if_it_names_none() {
        let rows = [
            ("absent", json!({}), true),
            ("null", json!({"environment": null}), true),
            ("ours", json!({"environment": "7"}), true),
            ("another", json!({"environment": "test"}), false),
            ("empty", json!({"environment": ""}), false),
            ("no string", json!({"environment": 7}), false),
        ];
        for (name, mut json, expected) in rows {
            json["system_account_id"] = json!("a");
            json["index_name"] = json!("i");
            let metadata = Metadata::parse(&json.to_string()).unwrap();
            assert_eq!(metadata.is_of("7"), expected, "{name}");
        }
    }
}
