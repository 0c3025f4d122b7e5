//! Values as KV holds and takes them, and what they refer to.

use std::fmt;
use std::rc::Rc;

use secrecy::SecretString;
use serde::Serialize;

use super::{Digest, Metadata};
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

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret;

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
    fn a_value_without_an_account_and_an_index_is_a_strangers() {
        for value in ["", "null", "7", "{}", r#"["a","i","s","k"]"#, r#"{"index_name":"i"}"#] {
            assert!(stored(value).settings().is_none(), "{value}");
            assert!(stored(value).query_config().is_none(), "{value}");
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
}
