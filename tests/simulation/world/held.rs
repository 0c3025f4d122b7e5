//! What KV holds.

use std::rc::Rc;

use ecom_settings_exporter::kv::{Metadata, StoredValue};
use serde_json::Value;

use super::{IndexRef, image};

/// What KV holds under a key, and whose it is.
#[derive(Debug, PartialEq)]
pub struct Held {
    pub stored: StoredValue,
    /// The index that its metadata names; where there is no metadata, the one that the value names.
    pub owner: Option<IndexRef>,
    /// The environment that its metadata names.
    pub environment: Option<String>,
    /// The version of the image that it was made from.
    pub version: Option<u32>,
}

impl Held {
    pub fn new(stored: StoredValue) -> Rc<Self> {
        let metadata = stored.metadata.as_ref().map(|json| Metadata::parse(json.get()));
        let (owner, environment) = match metadata {
            None => (stored.settings().map(|settings| settings.index), None),
            Some(None) => (None, None),
            Some(Some(metadata)) => (Some(metadata.index), metadata.environment),
        };
        let value = serde_json::from_str::<Value>(&stored.value).unwrap_or_default();
        Rc::new(Self { owner, environment, version: image::version_of(&value), stored })
    }

    pub fn is_another_environments(&self, environment: &str) -> bool {
        self.environment.as_deref().is_some_and(|named| named != environment)
    }

    /// Whether it is the environment's own, for somebody who reads it.
    pub fn is_ours(&self, environment: &str) -> bool {
        self.owner.is_some() && !self.is_another_environments(environment)
    }

    /// The same by a listing, which has no values.
    pub fn is_listed_as_ours(&self, environment: &str) -> bool {
        self.stored.metadata.is_some() && self.is_ours(environment)
    }
}
