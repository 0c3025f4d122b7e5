//! The settings table.

use std::collections::BTreeMap;

use super::{Cause, Retry, Retryable};
use crate::index::IndexRef;
use crate::item::{Item, ItemKey};

/// The settings table. Every read is strongly consistent, but for a scan of `AllEventuallyConsistent`.
#[expect(async_fn_in_trait, reason = "the function runs on one thread: no future needs Send")]
pub trait SettingsTable {
    /// Reads any number of items; those that aren't there are absent.
    async fn get(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, TableError>;
    /// A page of items in ascending order of their keys, after `after`.
    async fn query(
        &self,
        query: Query<'_>,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError>;
    /// A page of segment `segment` of `segments` of the table, after `after`.
    async fn scan(
        &self,
        columns: ScanColumns,
        segment: u32,
        segments: u32,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError>;
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Query<'a> {
    Account(&'a str),
    ConfigsOf(&'a IndexRef),
    /// The items of one account from a key to another, both included.
    Between(&'a ItemKey, &'a ItemKey),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanColumns {
    /// Who asks for which key and points at whom: nearly all query configs are left out, and so is
    /// every attribute but the shop id and the aliases.
    Claims,
    All,
    /// Everything, by reads that may be a second old and cost half as much.
    AllEventuallyConsistent,
}

#[derive(Debug, Clone, Default)]
pub struct TablePage {
    pub items: Vec<(ItemKey, Item)>,
    /// The last key that was read, where to go on after; `None` at the end.
    pub last_read: Option<ItemKey>,
}

/// A request to the table that failed, after the SDK's own retries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("settings table: {operation}")]
pub struct TableError {
    pub operation: &'static str,
    /// Whether the table asks for fewer requests at a time.
    pub throttled: bool,
    #[source]
    pub cause: Cause,
}

impl Retryable for TableError {
    fn retry(&self) -> Retry {
        if self.throttled { Retry::After(None) } else { Retry::Never }
    }
}
