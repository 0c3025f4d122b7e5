//! What was gathered about an index or a key, before it is judged.

use std::collections::BTreeSet;

use crate::index::IndexRef;
use crate::item::{ItemKey, Rejection};
use crate::kv::{Metadata, StoredSettings, StoredValue};

/// What was gathered.
#[derive(Debug)]
pub struct Gathered {
    /// The index that it is about; `None` where nothing says which.
    pub index: Option<IndexRef>,
    /// Its item, or its query config's.
    pub item: AskedItem,
    /// Its keys, and the one that was asked about.
    pub keys: Vec<KeyFacts>,
    /// The other items whose active aliases point at it.
    pub pointers: BTreeSet<ItemKey>,
    /// Whether the keys are of the query-config namespace.
    pub of_query_config: bool,
    /// Whether more items may point at the index than could be remembered.
    pub forgot_some: bool,
}

/// An item as the table has it now.
#[derive(Debug, PartialEq, Eq)]
pub enum AskedItem {
    /// It can be exported, perhaps but for its API key at the moment.
    Exportable,
    /// It can't be exported.
    Rejected(Rejection),
    /// There is none.
    Absent,
}

/// What is known of one key.
#[derive(Debug)]
pub struct KeyFacts {
    /// The key.
    pub key: String,
    /// What KV holds under it.
    pub stored: Option<StoredValue>,
    /// The index that the value names, or its metadata.
    pub named: Option<IndexRef>,
    /// The items that ask for it, the first by account and index first.
    pub claimants: Vec<IndexRef>,
    /// The one of them that has it.
    pub owner: Option<IndexRef>,
    /// What should be there.
    pub wanted: Wanted,
}

/// What should be under a key.
pub enum Wanted {
    /// This value.
    Value(String),
    /// This value with the account's API key, which was unavailable.
    ValueWithoutApiKey(String),
    /// What is there: the item that asks for the key can't be exported.
    WhatIsThere,
    /// What becomes of a key that no item asks for.
    Unclaimed(Unclaimed),
}

/// What becomes of a key that no item asks for, where it is ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unclaimed {
    /// It is deleted.
    Deleted,
    /// It stays: aliases of these items point at what it holds.
    Withheld(BTreeSet<ItemKey>),
    /// It stays: the index that its value names has an item that can't be exported.
    KeptForRejected,
    /// Nothing is done to it: its value names no index.
    LeftAlone,
    /// It can't be deleted: it is of a query config, and its value does not say of which.
    OfUnknownQueryConfig,
}

/// The index that a value of either namespace names, or else its metadata, whichever environment
/// wrote them.
pub fn named_by(stored: &StoredValue) -> Option<IndexRef> {
    let by_value = StoredSettings::parse(&stored.value).map(|settings| settings.index);
    let metadata = stored.metadata.as_ref().and_then(|json| Metadata::parse(json.get()));
    by_value.or_else(|| metadata.map(|metadata| metadata.index))
}

impl std::fmt::Debug for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(value) | Self::ValueWithoutApiKey(value) => {
                write!(f, "Value({} bytes)", value.len())
            }
            Self::WhatIsThere => f.write_str("WhatIsThere"),
            Self::Unclaimed(unclaimed) => unclaimed.fmt(f),
        }
    }
}
