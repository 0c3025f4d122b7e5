//! What was gathered about an index or a key, before it is judged.

use std::collections::BTreeSet;

use crate::export::differs::ApiKeyCheck;
use crate::index::IndexRef;
use crate::item::{ItemKey, Rejection};
use crate::kv::{Metadata, StoredSettings, StoredValue};

#[derive(Default)]
pub struct Gathered {
    /// The index that it is about; `None` where nothing says which.
    pub index: Option<IndexRef>,
    /// Its item, or its query config's.
    pub item: AskedItem,
    /// Its keys, and the one that was asked about.
    pub keys: Vec<KeyFacts>,
    /// Whether they are of the query-config namespace.
    pub of_query_config: bool,
    /// The other items whose active aliases point at it.
    pub pointers: BTreeSet<ItemKey>,
    /// Index ids that its own active aliases point at and that have neither an item nor a key.
    pub dangling: BTreeSet<String>,
}

/// An item as the table has it now.
#[derive(Default, PartialEq, Eq)]
pub enum AskedItem {
    /// It can be exported, perhaps but for its API key at the moment.
    Exportable,
    Rejected(Rejection),
    #[default]
    Absent,
}

/// What is known of one key.
#[derive(Default)]
pub struct KeyFacts {
    pub key: String,
    pub stored: Option<StoredValue>,
    /// The items that ask for the key, the first by account and index first.
    pub claimants: Vec<IndexRef>,
    /// The one of them that the key is for.
    pub claimant: Option<IndexRef>,
    pub due: Due,
}

/// What should become of a key.
#[derive(Default)]
pub enum Due {
    /// It should hold this value.
    Value { value: String, api_key: ApiKeyCheck },
    /// It stays as it is: the item that it is for, or that its value names, can't be exported.
    KeptForRejected,
    /// It stays: aliases of these items point at what it holds.
    Withheld(BTreeSet<ItemKey>),
    /// It is deleted.
    Deleted,
    /// It can't be deleted: it is of a query config, and its value does not say of which.
    OfUnknownQueryConfig,
    /// Nothing is done to it: its value names no index.
    #[default]
    LeftAlone,
}

/// The index that a value of either namespace names, or else its metadata, whichever environment
/// wrote them.
pub fn named_by(stored: &StoredValue) -> Option<IndexRef> {
    let by_value = StoredSettings::parse(&stored.value).map(|settings| settings.index);
    let metadata = stored.metadata.as_ref().and_then(|json| Metadata::parse(json.get()));
    by_value.or_else(|| metadata.map(|metadata| metadata.index))
}
