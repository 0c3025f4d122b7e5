//! What both the table and KV are about: an index of an account, and an item that is exported.

use std::fmt;

use serde::Serialize;

/// The name under which the table has an account's defaults, where an index has its own.
const DEFAULT_CONFIG: &str = "DEFAULT_CONFIG";

/// An index, ordered by account, then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct IndexRef {
    /// Not empty.
    #[serde(rename = "system_account_id")]
    pub account: String,
    /// Not empty, without `#`.
    #[serde(rename = "index_name")]
    pub name: String,
}

impl IndexRef {
    /// Returns `None` where the name can't be an index's: empty, `DEFAULT_CONFIG`, or with a `#`.
    pub fn parse(account: &str, name: &str) -> Option<Self> {
        let is_name = !["", DEFAULT_CONFIG].contains(&name) && !name.contains('#');
        let is_index = is_name && !account.is_empty();
        is_index.then(|| Self { account: account.to_owned(), name: name.to_owned() })
    }

    /// Returns the index id, `{system_account_id}-{index_name}`, which is also a KV key.
    pub fn index_id(&self) -> String {
        format!("{}-{}", self.account, self.name)
    }
}

impl fmt::Display for IndexRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.name)
    }
}

/// An item that is exported: the settings of an index, or one of its query configs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemRef {
    pub index: IndexRef,
    /// `normalized_query`, if the item is a query config.
    pub query: Option<String>,
}

impl From<IndexRef> for ItemRef {
    fn from(index: IndexRef) -> Self {
        Self { index, query: None }
    }
}

impl fmt::Display for ItemRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.query {
            None => self.index.fmt(f),
            Some(query) => write!(f, "{} {query:?}", self.index),
        }
    }
}
