//! What KV holds.

use std::rc::Rc;

use serde_json::Value;

use super::{IndexRef, Namespace, version_of};

/// What KV holds under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub value: String,
    pub metadata: Option<String>,
    /// The index that its metadata names; where there is no metadata, the one that the value names.
    pub owner: Option<IndexRef>,
    /// The environment that its metadata names.
    pub environment: Option<String>,
    /// What a settings value says of itself; `None` for foreign values and for query configs.
    pub named: Option<Named>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub index: IndexRef,
    pub version: u32,
    pub api_key: String,
}

impl Held {
    pub fn new(namespace: Namespace, value: String, metadata: Option<String>) -> Rc<Self> {
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
        let told = metadata.as_deref().map(json);
        let owner = index_of(told.as_ref().unwrap_or(&json(&value)));
        let environment = told.and_then(|told| Some(told["environment"].as_str()?.to_owned()));
        let named = (namespace == Namespace::Settings).then(|| Named::read(&json(&value)));
        Rc::new(Self { value, metadata, owner, environment, named: named.flatten() })
    }

    /// Whether another environment wrote it.
    pub fn is_another_environments(&self, environment: &str) -> bool {
        self.environment.as_deref().is_some_and(|named| named != environment)
    }

    /// Whether it is the environment's own, for somebody who reads it.
    pub fn is_ours(&self, environment: &str) -> bool {
        self.owner.is_some() && !self.is_another_environments(environment)
    }

    /// Whether it is the environment's own by a listing, which has no values.
    pub fn is_listed_as_ours(&self, environment: &str) -> bool {
        self.metadata.is_some() && self.is_ours(environment)
    }
}

impl Named {
    fn read(value: &Value) -> Option<Self> {
        let api_key = value["marqo_api_key"].as_str().unwrap_or_default().to_owned();
        Some(Self { index: index_of(value)?, version: version_of(value)?, api_key })
    }
}

fn index_of(fields: &Value) -> Option<IndexRef> {
    let text = |name: &str| fields[name].as_str().map(str::to_owned);
    Some(IndexRef { account: text("system_account_id")?, name: text("index_name")? })
}

/// A key of KV, and what it changes to.
pub type Change = (Namespace, String, Option<Rc<Held>>);
