//! What became of each record of a batch.

use crate::export::error::KeyError;
use crate::index::ItemName;
use crate::item::Rejection;

/// What became of a record.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordOutcome {
    /// Not ours.
    Skipped,
    /// A later record of the same item decides, or the table, which has the item no more.
    Superseded,
    /// Done.
    Exported,
    /// A removal of a flood, which was not begun.
    Held,
    /// Trying again can't help.
    Rejected {
        /// The item, where it is known.
        item: Option<ItemName>,
        /// What is wrong.
        rejection: Rejection,
    },
    /// Trying again may help.
    Failed {
        /// The item.
        item: ItemName,
        /// The cell whose gateway gives no API key, if that is the cause.
        cell: Option<String>,
        /// What happened.
        error: KeyError,
    },
    /// Late, and only an API key is missing, its account's or that of another item which asks for a key
    /// that it leaves behind: left to reconcile, so that one dead gateway does not hold the shard.
    Parked {
        /// The item.
        item: ItemName,
        /// The cell whose gateway gives no API key.
        cell: String,
        /// What happened.
        error: KeyError,
    },
}
