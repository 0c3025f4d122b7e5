//! What KV holds.

use std::collections::BTreeSet;
use std::rc::Rc;

use serde_json::Value;

use super::{IndexRef, Namespace, index_id, version_of};

/// What KV holds under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub value: String,
    pub metadata: Option<String>,
    pub owner: Owner,
    /// What a settings value says of itself; `None` for foreign values and for query configs.
    pub named: Option<Named>,
}

/// Who wrote it, by its metadata.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The predecessor, or something foreign: there is no metadata.
    Untold,
    /// Something foreign, whose metadata names no index.
    Foreign,
    /// An exporter of an earlier version, which named no environment.
    AnyEnvironment,
    Environment(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    pub index: IndexRef,
    pub version: u32,
    pub shop: Option<String>,
    pub api_key: String,
}

/// An index that a value names, or is taken to name, with its shop ids.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    pub index: IndexRef,
    pub shops: BTreeSet<String>,
}

impl Held {
    pub fn new(namespace: Namespace, value: String, metadata: Option<String>) -> Rc<Self> {
        let named = (namespace == Namespace::Settings).then(|| Named::read(&value)).flatten();
        let owner = Owner::read(metadata.as_deref());
        Rc::new(Self { value, metadata, owner, named })
    }

    /// Whether another environment wrote it.
    pub fn is_another_environments(&self, environment: &str) -> bool {
        matches!(&self.owner, Owner::Environment(owner) if owner != environment)
    }

    /// Whether reconcile takes it for one of the environment's.
    pub fn is_ours(&self, environment: &str) -> bool {
        match &self.owner {
            Owner::Untold | Owner::Foreign => false,
            Owner::AnyEnvironment => true,
            Owner::Environment(owner) => owner == environment,
        }
    }

    /// What it names, as far as that counts for settling in the environment.
    pub fn named_for(&self, environment: &str) -> Option<&Named> {
        let counts = self.owner == Owner::Untold || self.is_ours(environment);
        self.named.as_ref().filter(|_| counts)
    }
}

impl Owner {
    fn read(metadata: Option<&str>) -> Self {
        let Some(metadata) = metadata else { return Self::Untold };
        let metadata: Value = serde_json::from_str(metadata).unwrap_or_default();
        let names = |field: &str| metadata[field].is_string();
        match metadata["environment"].as_str() {
            _ if !names("system_account_id") || !names("index_name") => Self::Foreign,
            None => Self::AnyEnvironment,
            Some(environment) => Self::Environment(environment.to_owned()),
        }
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

    pub fn naming(&self) -> Naming {
        Naming { index: self.index.clone(), shops: self.shop.iter().cloned().collect() }
    }
}

impl Naming {
    /// Every key that the index may have been exported under.
    pub fn keys(&self) -> BTreeSet<String> {
        self.shops.iter().cloned().chain([index_id(&self.index)]).collect()
    }
}

/// A key of KV, and what it changes to.
pub type Change = (Namespace, String, Option<Rc<Held>>);
