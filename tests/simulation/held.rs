//! What KV holds.

use std::rc::Rc;

use ecom_settings_exporter::index::IndexRef;
use ecom_settings_exporter::ports::Namespace;
use serde_json::Value;

use crate::model::version_of;

/// What KV holds under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub value: String,
    pub metadata: Option<String>,
    /// What a settings value says of itself; `None` for foreign values and for query configs.
    pub named: Option<Named>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub index: IndexRef,
    pub version: u32,
    pub shop: Option<String>,
    pub api_key: String,
}

impl Held {
    pub fn new(namespace: Namespace, value: String, metadata: Option<String>) -> Rc<Self> {
        let named = (namespace == Namespace::Settings).then(|| Named::read(&value)).flatten();
        Rc::new(Self { value, metadata, named })
    }
}

impl Named {
    fn read(value: &str) -> Option<Self> {
        let value: Value = serde_json::from_str(value).ok()?;
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let index = IndexRef { account: text("system_account_id")?, name: text("index_name")? };
        Some(Self {
            index,
            version: version_of(&value)?,
            shop: text("shop_id"),
            api_key: text("marqo_api_key").unwrap_or_default(),
        })
    }
}

/// A key of KV, and what it changes to.
pub type Change = (Namespace, String, Option<Rc<Held>>);
