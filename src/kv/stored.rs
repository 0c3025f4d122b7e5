//! Values as KV holds them, and what they refer to.

use std::fmt;

use secrecy::SecretString;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::Metadata;
use crate::index::{IndexRef, ItemRef};
use crate::json::{Json, from_object};

/// A value as KV holds it. May hold an API key: `Debug` shows the size only.
#[derive(Clone, PartialEq)]
pub struct StoredValue {
    pub value: String,
    /// Not null.
    pub metadata: Option<Json>,
}

/// The parts of a stored settings value that the exporter looks at.
pub struct StoredSettings {
    pub index: IndexRef,
    /// Not empty.
    pub shop_id: Option<String>,
    /// The API key, where it can be used again.
    pub api_key: Option<SecretString>,
}

/// What a value refers to. The last three may be anything without making the value a stranger's.
#[derive(Deserialize)]
struct Fields<'a> {
    system_account_id: String,
    index_name: String,
    #[serde(borrow)]
    shop_id: Option<&'a RawValue>,
    #[serde(borrow)]
    marqo_api_key: Option<&'a RawValue>,
    #[serde(borrow)]
    normalized_query: Option<&'a RawValue>,
}

impl StoredValue {
    /// Returns `None` where there is no metadata, or where no exporter wrote it.
    pub fn metadata(&self) -> Option<Metadata> {
        Metadata::parse(self.metadata.as_ref()?.get())
    }

    /// Returns the value's settings, where it names an account and an index.
    pub fn settings(&self) -> Option<StoredSettings> {
        let (index, fields) = self.fields()?;
        let api_key = text(fields.marqo_api_key).and_then(usable_api_key);
        Some(StoredSettings { index, shop_id: text(fields.shop_id), api_key })
    }

    /// Returns the item that a query config's value refers to.
    pub fn query_config(&self) -> Option<ItemRef> {
        let (index, fields) = self.fields()?;
        Some(ItemRef { index, query: Some(text(fields.normalized_query)?) })
    }

    fn fields(&self) -> Option<(IndexRef, Fields<'_>)> {
        let fields: Fields<'_> = from_object(&self.value).ok()?;
        Some((IndexRef::parse(&fields.system_account_id, &fields.index_name)?, fields))
    }
}

impl fmt::Debug for StoredValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredValue").field("bytes", &self.value.len()).finish_non_exhaustive()
    }
}

/// Returns a string that is not empty.
fn text(json: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(json?.get()).ok().filter(|text: &String| !text.is_empty())
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
