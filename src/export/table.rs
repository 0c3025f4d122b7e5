//! Reads of the settings table: items, and passes over all of it.

use std::collections::BTreeMap;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;

use tokio::time::Instant;

use super::invocation::{Invocation, OutOfTime, Service};
use crate::item::{Item, ItemKey};
use crate::ports::{QueryConfigs, ScanColumns, Services, SettingsTable, TableError, TablePage};

/// Segments of a pass over the table. A page holds 1 MB and takes a good part of a second on a
/// large table; eight at once divide that without asking for much of the table's capacity.
const SCAN_SEGMENTS: u32 = 8;

/// Why the table could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The request failed.
    #[error(transparent)]
    Table(#[from] TableError),
    /// There was no time left for the answer.
    #[error(transparent)]
    OutOfTime(#[from] OutOfTime),
}

/// Reads items; those that aren't there are absent.
pub async fn read_items<S: Services>(
    invocation: &Invocation<'_, S>,
    keys: impl IntoIterator<Item = ItemKey>,
) -> Result<BTreeMap<ItemKey, Item>, ReadError> {
    read_items_until(invocation, invocation.deadline, keys.into_iter().collect()).await
}

/// Reads items, with an answer by `until`.
pub async fn read_items_until<S: Services>(
    invocation: &Invocation<'_, S>,
    until: Instant,
    keys: Vec<ItemKey>,
) -> Result<BTreeMap<ItemKey, Item>, ReadError> {
    let items = invocation.services.table().get(&keys);
    Ok(invocation.call_until(Service::Table, until, items).await??)
}

/// Reads a page of query configs, after `after`.
pub async fn query_config_page<S: Services>(
    invocation: &Invocation<'_, S>,
    part: QueryConfigs<'_>,
    after: Option<&ItemKey>,
) -> Result<TablePage, ReadError> {
    let page = invocation.services.table().query_configs(part, after);
    Ok(invocation.call(Service::Table, page).await??)
}

/// What a pass goes over.
#[derive(Debug, Clone, Copy)]
pub enum PassOver<'a> {
    /// The whole table.
    Table(ScanColumns),
    /// One account's items.
    Account(&'a str),
}

/// A pass that is under way. Every segment of the table has one page on its way, and only the page
/// that is handed out is held decoded.
pub struct Pass<'a, S> {
    invocation: &'a Invocation<'a, S>,
    over: PassOver<'a>,
    pages: FuturesUnordered<LocalBoxFuture<'a, (u32, Result<TablePage, ReadError>)>>,
}

impl<'a, S: Services> Pass<'a, S> {
    /// Starts a pass.
    pub fn new(invocation: &'a Invocation<'a, S>, over: PassOver<'a>) -> Self {
        let pass = Self { invocation, over, pages: FuturesUnordered::new() };
        let segments = match over {
            PassOver::Table(_) => SCAN_SEGMENTS,
            PassOver::Account(_) => 1,
        };
        for segment in 0..segments {
            pass.ask(segment, None);
        }
        pass
    }

    /// The next page of any segment; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<(ItemKey, Item)>>, ReadError> {
        let Some((segment, page)) = self.pages.next().await else { return Ok(None) };
        let page = page?;
        if page.last_read.is_some() {
            self.ask(segment, page.last_read);
        }
        Ok(Some(page.items))
    }

    fn ask(&self, segment: u32, after: Option<ItemKey>) {
        let Self { invocation, over, .. } = *self;
        self.pages.push(Box::pin(async move {
            (segment, read_page(invocation, over, segment, after.as_ref()).await)
        }));
    }
}

async fn read_page<S: Services>(
    invocation: &Invocation<'_, S>,
    over: PassOver<'_>,
    segment: u32,
    after: Option<&ItemKey>,
) -> Result<TablePage, ReadError> {
    let table = invocation.services.table();
    let page = match over {
        PassOver::Table(columns) => {
            let page = table.scan(columns, segment, SCAN_SEGMENTS, after);
            invocation.call(Service::Table, page).await
        }
        PassOver::Account(account) => {
            invocation.call(Service::Table, table.account_items(account, after)).await
        }
    };
    Ok(page??)
}
