//! A pass over the table, or over one account's items, some pages at a time.

use futures_util::future::try_join_all;
use serde_dynamo::Item;

use crate::ports::{ScanColumns, Services, SettingsTable, TablePage};
use crate::record::ItemKey;
use crate::run::{Run, Service};
use crate::settle::claims::SCAN_SEGMENTS;

/// A pass that is under way.
pub struct Pass<'a> {
    account: Option<&'a str>,
    /// Where each part stands; `None` where it is through.
    parts: Vec<Option<Start>>,
}

#[derive(Clone)]
enum Start {
    Beginning,
    After(ItemKey),
}

impl<'a> Pass<'a> {
    /// A pass over everything, or over the items of `account`.
    pub fn new(account: Option<&'a str>) -> Self {
        let parts = if account.is_some() { 1 } else { SCAN_SEGMENTS };
        Self { account, parts: (0..parts).map(|_| Some(Start::Beginning)).collect() }
    }

    /// The next page of every part; `None` at the end.
    pub async fn next<S: Services>(
        &mut self,
        run: &Run<'_, S>,
    ) -> Result<Option<Vec<(ItemKey, Item)>>, String> {
        let open: Vec<(u32, Start)> = (0..)
            .zip(&self.parts)
            .filter_map(|(part, start)| Some((part, start.clone()?)))
            .collect();
        if open.is_empty() {
            return Ok(None);
        }
        let pages = open.into_iter().map(async |(part, start)| {
            let after = match &start {
                Start::Beginning => None,
                Start::After(key) => Some(key),
            };
            let page = self.page(run, part, after).await?;
            Ok::<(u32, TablePage), String>((part, page))
        });
        let pages = try_join_all(pages).await?;
        let mut items = Vec::new();
        for (part, page) in pages {
            let part = usize::try_from(part).unwrap_or(usize::MAX);
            if let Some(start) = self.parts.get_mut(part) {
                *start = page.next.map(Start::After);
            }
            items.extend(page.items);
        }
        Ok(Some(items))
    }

    async fn page<S: Services>(
        &self,
        run: &Run<'_, S>,
        part: u32,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, String> {
        let table = run.services.table();
        let answer = match self.account {
            Some(account) => run.call(Service::Table, table.account(account, after)).await,
            None => {
                let scan = table.scan(ScanColumns::All, part, SCAN_SEGMENTS, after);
                run.call(Service::Table, scan).await
            }
        };
        answer.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }
}
