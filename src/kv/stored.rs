//! What KV holds under a key, and takes: a value and its metadata, and what they say.

use std::fmt;
use std::rc::Rc;

use humantime::parse_rfc3339;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Digest;
use super::limits::{MAX_KEY_BYTES, MAX_METADATA_BYTES};
use crate::index::{IndexRef, ItemRef};
use crate::json::{Fields, Json};

/// A value with its metadata, as KV holds it and as a bulk write takes it. May hold an API key: `Debug` shows
/// the size only.
#[derive(Clone, PartialEq, Serialize)]
pub struct StoredValue {
    pub value: String,
    /// Not null.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<Json>,
}

/// What a bulk write puts under a key.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    pub key: String,
    /// Shared with the index's other key.
    #[serde(flatten)]
    pub stored: Rc<StoredValue>,
    /// The item that it was made for. `None` for what is put back.
    #[serde(skip)]
    pub item: Option<ItemRef>,
}

/// The parts of a stored value that the exporter looks at.
pub struct StoredSettings {
    pub index: IndexRef,
    /// Not empty.
    pub shop_id: Option<String>,
    /// The API key, if a header can take it.
    pub api_key: Option<SecretString>,
    /// The query, where the value is a query config's.
    pub query: Option<String>,
}

impl StoredValue {
    /// Returns a value whose metadata has its digest. KV's limits were checked when the item was decoded.
    pub fn new(value: impl Into<String>, metadata: Metadata) -> Self {
        let value = value.into();
        let digest = Some(Digest::of(value.as_bytes()));
        // Metadata can always be written: only a map whose keys are no strings can't.
        let metadata = Json::of(&Metadata { digest, ..metadata }).ok();
        Self { value, metadata }
    }

    /// Returns how many bytes the value and its metadata take in a request, at most.
    pub fn body_bytes(&self) -> usize {
        let escape = |byte| match byte {
            b'"' | b'\\' => 1,
            // `\u0000`
            0..b' ' => 5,
            _ => 0,
        };
        let escapes: usize = self.value.bytes().map(escape).sum();
        self.value.len() + escapes + self.metadata.as_ref().map_or(0, |json| json.get().len())
    }

    /// Returns `None` where there is no metadata, or where no exporter wrote it.
    pub fn metadata(&self) -> Option<Metadata> {
        Metadata::parse(self.metadata.as_ref()?.get())
    }

    /// Returns the value's settings, where it names an account and an index. Its other fields may be anything.
    pub fn settings(&self) -> Option<StoredSettings> {
        let fields: Fields<'_> = serde_json::from_str(&self.value).ok()?;
        let text = |name| fields.get(name).filter(|text: &String| !text.is_empty());
        Some(StoredSettings {
            index: IndexRef::parse(&text("system_account_id")?, &text("index_name")?)?,
            shop_id: text("shop_id"),
            api_key: text("marqo_api_key").and_then(usable_api_key),
            query: text("normalized_query"),
        })
    }

    /// Returns the item that a query config's value refers to.
    pub fn query_config(&self) -> Option<ItemRef> {
        let StoredSettings { index, query, .. } = self.settings()?;
        query.map(|query| ItemRef { index, query: Some(query) })
    }
}

impl fmt::Debug for StoredValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredValue").field("bytes", &self.value.len()).finish_non_exhaustive()
    }
}

const MAX_API_KEY_CHARACTERS: usize = 1024;

/// Returns an API key that a header takes: 1 to 1,024 visible ASCII characters.
pub fn usable_api_key(text: String) -> Option<SecretString> {
    let usable = text.len() <= MAX_API_KEY_CHARACTERS && fits_a_header(&text);
    usable.then(|| text.into())
}

pub fn fits_a_header(secret: &str) -> bool {
    !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic())
}

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
        let environment = fields.get("environment").filter(|json: &&RawValue| json.get() != "null");
        Some(Self {
            index: IndexRef::parse(&text("system_account_id")?, &text("index_name")?)?,
            // What is no text becomes the empty name. No environment has it, so the key is not ours.
            environment: environment
                .map(|json| serde_json::from_str(json.get()).unwrap_or_default()),
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
pub fn check_metadata_size(index: &IndexRef) -> Result<(), &'static str> {
    let escaped = |name| Json::string(name).get().len() - "\"\"".len();
    let names = escaped(&index.account) + escaped(&index.name);
    let fits = names <= MAX_METADATA_BYTES - LONGEST_WITHOUT_NAMES;
    if fits { Ok(()) } else { Err("gives KV metadata of more than 1,024 bytes") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;
    use serde_json::{Value, json};

    fn stored(value: &str) -> StoredValue {
        StoredValue { value: value.to_owned(), metadata: None }
    }

    #[test]
    fn a_body_is_no_longer_than_it_was_measured() {
        for value in ["", "größe", "a\"b\\", "\u{0}\n\u{1f}\u{7f}"] {
            let written = serde_json::to_string(value).unwrap().len() - 2;
            assert!(written <= stored(value).body_bytes(), "{value:?}");
        }
    }

    #[test]
    fn debug_shows_no_value() {
        assert_eq!(format!("{:?}", stored("abc")), "StoredValue { bytes: 3, .. }");
    }

    #[test]
    fn a_value_names_its_index_and_query_and_whatever_else_can_be_read() {
        let names = r#""system_account_id":"a","index_name":"i""#;
        // The value's fields beside the names; shop id, API key, and query that it then has.
        let rows = [
            ("", None, None, None),
            (r#","x":[{}]"#, None, None, None),
            (r#","shop_id":"s","marqo_api_key":"k""#, Some("s"), Some("k"), None),
            (r#","shop_id":"","marqo_api_key":"a b","normalized_query":"""#, None, None, None),
            (r#","shop_id":7,"marqo_api_key":null,"normalized_query":[]"#, None, None, None),
            (r#","normalized_query":"größe""#, None, None, Some("größe")),
        ];
        for (fields, shop_id, api_key, query) in rows {
            let stored = stored(&format!("{{{names}{fields}}}"));
            let settings = stored.settings().unwrap();
            assert_eq!(settings.index.to_string(), "a/i", "{fields}");
            assert_eq!(settings.shop_id.as_deref(), shop_id, "{fields}");
            assert_eq!(settings.api_key.as_ref().map(|key| key.expose_secret()), api_key);
            let query_config = stored.query_config().map(|item| item.to_string());
            assert_eq!(query_config, query.map(|query| format!("a/i {query:?}")), "{fields}");
        }
    }

    #[test]
    fn an_api_key_is_1_to_1024_visible_ascii_characters() {
        for good in ["k", "!~", &"k".repeat(1024)] {
            assert!(usable_api_key(good.to_owned()).is_some(), "{good}");
        }
        for bad in ["", " ", "a b", "a\nb", "\u{200b}k", "schlüssel", "k\u{7f}", &"k".repeat(1025)]
        {
            assert!(usable_api_key(bad.to_owned()).is_none(), "{bad}");
        }
    }

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
    fn a_value_and_metadata_without_an_account_and_an_index_are_a_strangers() {
        for json in [
            "",
            "7",
            "null",
            "{}",
            r#"["a","i","s","k"]"#,
            r#"{"index_name":"i"}"#,
            r#"{"system_account_id":"a"}"#,
            r#"{"system_account_id":"","index_name":"i"}"#,
            r#"{"system_account_id":"a","index_name":"i#j"}"#,
            r#"{"system_account_id":"a","index_name":7}"#,
        ] {
            assert_eq!(Metadata::parse(json), None, "{json}");
            assert!(stored(json).settings().is_none(), "{json}");
            assert!(stored(json).query_config().is_none(), "{json}");
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
