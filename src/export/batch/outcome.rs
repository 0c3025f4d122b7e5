//! What becomes of a record.

use crate::error_chain::Chain;
use crate::export::error::KeyError;
use crate::index::ItemName;
use crate::item::Rejection;

#[derive(Debug, Clone, PartialEq)]
pub enum RecordOutcome {
    /// Not ours.
    Skipped,
    /// A later record of the same item decides, or the table, which no longer has the item.
    Superseded,
    Exported,
    /// A removal of a flood, which was not begun.
    Held,
    /// Trying again can't help. The item is `None` where not even that can be read.
    Rejected(Option<ItemName>, Rejection),
    /// Trying again may help.
    Failed(ItemName, KeyError),
    /// Late, and only an API key is missing, its account's or that of another item which asks for a key
    /// that it leaves behind: left to reconcile, so that one dead gateway does not hold the shard.
    Parked(ItemName, KeyError),
}

impl RecordOutcome {
    pub fn rejected(item: impl Into<ItemName>, rejection: Rejection) -> Self {
        Self::Rejected(Some(item.into()), rejection)
    }

    /// The outcome of an item that can't be done. A late record must not hold the shard where it lacks
    /// nothing but an API key, or where Cloudflare refuses one of its pairs or deletes alone.
    pub fn of_error(item: impl Into<ItemName>, error: KeyError, late: bool) -> Self {
        let item = item.into();
        match (error.missing_api_key(), error.refused_alone()) {
            _ if !late => Self::Failed(item, error),
            (Some(missing), _) if missing.parks_late_records() => Self::Parked(item, error),
            (_, Some(refusal)) => {
                Self::rejected(item, Rejection::new("(pair)", Chain(refusal).to_string()))
            }
            _ => Self::Failed(item, error),
        }
    }

    /// The outcome of an item with two of them: what may help has to be tried again.
    pub fn and(self, other: Self) -> Self {
        if matches!(self, Self::Failed(..)) { self } else { other }
    }
}
