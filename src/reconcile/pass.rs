//! A pass over the table, or over one account's items, page by page.

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;

use crate::ports::{ScanColumns, Services, SettingsTable, TableError, TablePage};
use crate::record::{Item, ItemKey};
use crate::run::{OutOfTime, Run, Service};
use crate::settle::claims::SCAN_SEGMENTS;

/// A pass that is under way: every part of the table has one page on its way, and only the page
/// that is handed out is held decoded.
pub struct Pass<'a, S> {
    run: &'a Run<'a, S>,
    account: Option<&'a str>,
    pages: FuturesUnordered<LocalBoxFuture<'a, (u32, Answer)>>,
}

type Answer = Result<Result<TablePage, TableError>, OutOfTime>;

impl<'a, S: Services> Pass<'a, S> {
    /// A pass over everything, or over the items of `account`.
    pub fn new(run: &'a Run<'a, S>, account: Option<&'a str>) -> Self {
        let pass = Self { run, account, pages: FuturesUnordered::new() };
        let parts = if account.is_some() { 1 } else { SCAN_SEGMENTS };
        for part in 0..parts {
            pass.ask(part, None);
        }
        pass
    }

    /// The next page of any part; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<(ItemKey, Item)>>, String> {
        let Some((part, answer)) = self.pages.next().await else { return Ok(None) };
        let page = answer.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        if page.next.is_some() {
            self.ask(part, page.next);
        }
        Ok(Some(page.items))
    }

    fn ask(&self, part: u32, after: Option<ItemKey>) {
        let (run, account) = (self.run, self.account);
        self.pages.push(Box::pin(async move {
            let table = run.services.table();
            let answer = match account {
                Some(account) => {
                    run.call(Service::Table, table.account(account, after.as_ref())).await
                }
                None => {
                    let scan = table.scan(ScanColumns::All, part, SCAN_SEGMENTS, after.as_ref());
                    run.call(Service::Table, scan).await
                }
            };
            (part, answer)
        }));
    }
}
