//! Values as KV holds them, and what they say of themselves.

use std::fmt;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;

use crate::index::IndexRef;
use crate::json::{Json, from_object};
use crate::kv::Metadata;

/// A value as KV holds it. May hold an API key: `Debug` shows the size only.
#[derive(Clone, PartialEq)]
pub struct StoredValue {
    pub value: String,
    /// Not null.
    pub metadata: Option<Json>,
}

impl StoredValue {
    /// Whether the value counts by what it names: it is this environment's, or has no metadata, as
    /// the predecessor's. Any other is a stranger's, whatever it names.
    pub fn counts_for(&self, environment: &str) -> bool {
        self.metadata.as_ref().is_none_or(|json| {
            Metadata::parse(json.get()).is_some_and(|metadata| metadata.is_of(environment))
        })
    }
}

impl fmt::Debug for StoredValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredValue").field("bytes", &self.value.len()).finish_non_exhaustive()
    }
}

/// The parts of a stored settings value that this function looks at.
pub struct StoredSettings {
    pub index: IndexRef,
    pub shop_id: Option<String>,
    /// The API key, where it can be used again.
    pub api_key: Option<SecretString>,
}

impl StoredSettings {
    /// `None` where the value names no account and index.
    pub fn parse(value: &str) -> Option<Self> {
        // `Value` for the two that may be of any type without making the value a stranger's.
        #[derive(Deserialize)]
        struct Fields {
            system_account_id: String,
            index_name: String,
            shop_id: Option<Value>,
            marqo_api_key: Option<Value>,
        }
        let fields: Fields = from_object(value).ok()?;
        let index = IndexRef::parse(&fields.system_account_id, &fields.index_name)?;
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        Some(Self {
            index,
            shop_id: text(fields.shop_id),
            api_key: text(fields.marqo_api_key).and_then(usable_api_key),
        })
    }
}

const MAX_API_KEY_CHARACTERS: usize = 1024;

/// An API key that a header takes: 1 to 1,024 visible ASCII characters.
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

    #[test]
    fn a_value_is_ours_where_it_names_account_and_index() {
        let stored = StoredSettings::parse(
            r#"{"system_account_id":"a","index_name":"i","shop_id":"","marqo_api_key":"k","x":1}"#,
        )
        .unwrap();
        assert_eq!(stored.index.to_string(), "a/i");
        assert_eq!(stored.shop_id, None);
        assert_eq!(stored.api_key.unwrap().expose_secret(), "k");
        let odd = r#"{"system_account_id":"a","index_name":"i","shop_id":7,"marqo_api_key":null}"#;
        assert!(StoredSettings::parse(odd).is_some_and(|stored| stored.api_key.is_none()));
        for foreign in ["", "null", "7", "{}", r#"["a","i","s","k"]"#, r#"{"index_name":"i"}"#] {
            assert!(StoredSettings::parse(foreign).is_none(), "{foreign}");
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

    #[test]
    fn a_value_counts_unless_its_metadata_is_a_strangers() {
        let counts = |metadata: &str| {
            let metadata = serde_json::from_str(metadata).ok();
            StoredValue { value: String::new(), metadata }.counts_for("prod")
        };
        assert!(StoredValue { value: String::new(), metadata: None }.counts_for("prod"));
        let ours = r#"{"system_account_id":"a","index_name":"i","environment":"prod"}"#;
        assert!(counts(ours) && counts(&ours.replace(r#","environment":"prod""#, "")));
        assert!(!counts(&ours.replace("prod", "test")) && !counts(r#"{"other":1}"#));
    }

    #[test]
    fn debug_shows_no_value() {
        let stored = StoredValue { value: "s3cret".into(), metadata: None };
        assert!(!format!("{stored:?}").contains("s3cret"));
    }
}
