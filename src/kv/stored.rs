//! Values as KV holds them, and what they say of themselves.

use std::fmt;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::index::IndexRef;
use crate::json::from_object;

/// A value as KV holds it. May hold an API key: `Debug` shows the size only.
#[derive(Clone)]
pub struct StoredValue {
    /// The value's text.
    pub value: String,
    /// The metadata, a JSON value other than null.
    pub metadata: Option<Box<RawValue>>,
}

impl PartialEq for StoredValue {
    fn eq(&self, other: &Self) -> bool {
        let metadata = |stored: &Self| stored.metadata.as_ref().map(|json| json.get().to_owned());
        self.value == other.value && metadata(self) == metadata(other)
    }
}

impl fmt::Debug for StoredValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredValue").field("bytes", &self.value.len()).finish_non_exhaustive()
    }
}

/// The parts of a stored settings value that this function looks at.
pub struct StoredSettings {
    /// The index that the value names.
    pub index: IndexRef,
    /// The shop id that the value names.
    pub shop_id: Option<String>,
    /// The API key, where it can be used again.
    pub api_key: Option<SecretString>,
}

impl StoredSettings {
    /// Reads a value; `None` where it names no account and index.
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
        let text = |value: Option<Value>| match value {
            Some(Value::String(text)) if !text.is_empty() => Some(text),
            _ => None,
        };
        Some(Self {
            index: IndexRef { account: fields.system_account_id, name: fields.index_name },
            shop_id: text(fields.shop_id),
            api_key: text(fields.marqo_api_key).map(SecretString::from),
        })
    }
}

/// The query config that a stored value names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StoredQueryConfig {
    /// The account.
    pub system_account_id: String,
    /// The index.
    pub index_name: String,
    /// The query.
    pub normalized_query: String,
}

impl StoredQueryConfig {
    /// Reads a value; `None` where it doesn't say whose it is.
    pub fn parse(value: &str) -> Option<Self> {
        from_object(value).ok()
    }
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
    fn debug_shows_no_value() {
        let stored = StoredValue { value: "s3cret".into(), metadata: None };
        assert!(!format!("{stored:?}").contains("s3cret"));
    }
}
