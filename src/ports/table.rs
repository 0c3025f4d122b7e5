//! The settings table.

use std::collections::BTreeMap;

use super::{Cause, Retry, Retryable};
use crate::index::IndexRef;
use crate::item::{Item, ItemKey};

/// The settings table. Every read is strongly consistent except a scan of [`ScanColumns::All`].
pub trait SettingsTable {
    /// Reads any number of items, 100 a request. An item that isn't there is absent from the result.
    async fn get(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, TableError>;
    /// Reads a page of a part of the table: the items that follow the key `after`.
    async fn page(
        &self,
        part: TablePart<'_>,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError>;
}

/// A part of the table. The first two are read in ascending order of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TablePart<'a> {
    Account(&'a str),
    ConfigsOf(&'a IndexRef),
    /// Segment `segment` of `segments`.
    Segment {
        columns: ScanColumns,
        segment: u32,
        segments: u32,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanColumns {
    /// The shop ids and aliases of index items, by strongly consistent reads: which keys each item asks for,
    /// and which it points at. Nearly all query configs are left out.
    Claims,
    /// Whole items, by eventually consistent reads, which cost half as much.
    All,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct TablePage {
    pub items: Vec<(ItemKey, Item)>,
    /// The key after which the next page begins; `None` at the end of the part.
    pub last_read: Option<ItemKey>,
}

/// A request to the table that failed after the SDK's own retries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("settings table: {operation}")]
pub struct TableError {
    pub operation: &'static str,
    /// Whether the table asks for fewer requests.
    pub throttled: bool,
    #[source]
    pub cause: Cause,
}

impl Retryable for TableError {
    fn retry(&self) -> Option<Retry> {
        self.throttled.then_some(Retry { after_whole_back_off: false, asked_wait: None })
    }
}
