//! Reads of the settings table: items, and passes over all of it.

use std::collections::{BTreeMap, VecDeque};
use std::pin::pin;

use futures_util::StreamExt;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use super::invocation::{Invocation, OutOfTime, Service};
use super::retry::Retries;
use crate::item::{Item, ItemKey};
use crate::ports::{Query, ScanColumns, Services, SettingsTable, TableError, TablePage};

/// Segments of a pass over the table. A page holds 1 MB and takes a good part of a second on a
/// large table; eight at once divide that without asking for much of the table's capacity.
const SCAN_SEGMENTS: u32 = 8;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    #[error(transparent)]
    Table(#[from] TableError),
    #[error(transparent)]
    OutOfTime(#[from] OutOfTime),
}

/// Reads items; those that aren't there are absent, and so are those that the table can't hold.
pub async fn read_items<S: Services>(
    invocation: &Invocation<'_, S>,
    keys: impl IntoIterator<Item = ItemKey>,
) -> Result<BTreeMap<ItemKey, Item>, ReadError> {
    read_items_until(invocation, invocation.deadline, keys.into_iter().collect()).await
}

/// The same, with an answer by `until`.
pub async fn read_items_until<S: Services>(
    invocation: &Invocation<'_, S>,
    until: Instant,
    mut keys: Vec<ItemKey>,
) -> Result<BTreeMap<ItemKey, Item>, ReadError> {
    keys.retain(ItemKey::fits_the_table);
    let items = invocation.services.table().get(&keys);
    Ok(invocation.call(Service::Table, until, items).await??)
}

pub async fn query_config_page<S: Services>(
    invocation: &Invocation<'_, S>,
    query: Query<'_>,
    after: Option<&ItemKey>,
) -> Result<TablePage, ReadError> {
    let page = invocation.services.table().query(query, after);
    Ok(invocation.call(Service::Table, invocation.deadline, page).await??)
}

pub async fn for_each_query_config<S: Services>(
    invocation: &Invocation<'_, S>,
    query: Query<'_>,
    mut found: impl FnMut(ItemKey, Item),
) -> Result<(), ReadError> {
    let mut after = None;
    loop {
        let page = query_config_page(invocation, query, after.as_ref()).await?;
        page.items.into_iter().for_each(|(key, item)| found(key, item));
        after = page.last_read;
        if after.is_none() {
            return Ok(());
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub enum PassOver<'a> {
    Table(ScanColumns),
    Account(&'a str),
}

/// A pass that is under way. Every segment of the table has one page on its way, and only the page
/// that is handed out is held decoded. When a page is throttled, fewer segments are read at once, and
/// it is asked for again.
pub struct Pass<'a, S> {
    invocation: &'a Invocation<'a, S>,
    over: PassOver<'a>,
    /// How many pages may be on their way.
    width: usize,
    on_their_way: FuturesUnordered<LocalBoxFuture<'a, Arrived>>,
    to_ask: VecDeque<Request>,
    /// Pages that came while something else was awaited.
    arrived: VecDeque<Arrived>,
}

type Arrived = (Request, Result<TablePage, ReadError>);

struct Request {
    segment: u32,
    after: Option<ItemKey>,
    retries: Retries,
}

impl Request {
    fn new(segment: u32, after: Option<ItemKey>) -> Self {
        Self { segment, after, retries: Retries::default() }
    }
}

impl<'a, S: Services> Pass<'a, S> {
    pub fn new(invocation: &'a Invocation<'a, S>, over: PassOver<'a>) -> Self {
        let segments = match over {
            PassOver::Table(_) => SCAN_SEGMENTS,
            PassOver::Account(_) => 1,
        };
        let mut pass = Self {
            invocation,
            over,
            width: usize::try_from(segments).unwrap_or(1),
            on_their_way: FuturesUnordered::new(),
            to_ask: (0..segments).map(|segment| Request::new(segment, None)).collect(),
            arrived: VecDeque::new(),
        };
        pass.ask();
        pass
    }

    /// The next page of any segment; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Vec<(ItemKey, Item)>>, ReadError> {
        loop {
            let arrived = match self.arrived.pop_front() {
                Some(arrived) => Some(arrived),
                None => self.on_their_way.next().await,
            };
            let Some((request, page)) = arrived else { return Ok(None) };
            match page {
                Ok(page) => {
                    if page.last_read.is_some() {
                        self.to_ask.push_back(Request::new(request.segment, page.last_read));
                    }
                    self.ask();
                    return Ok(Some(page.items));
                }
                Err(ReadError::Table(error)) if error.throttled && request.retries.are_left() => {
                    self.width = (self.width / 2).max(1);
                    self.ask_for(request, Some(error));
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Awaits something else. What was asked for goes on arriving meanwhile.
    pub async fn while_waiting<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        loop {
            tokio::select! {
                biased;
                answer = &mut other => return answer,
                Some(arrived) = self.on_their_way.next() => self.arrived.push_back(arrived),
            }
        }
    }

    /// Asks for as many pages as may be on their way.
    fn ask(&mut self) {
        while self.on_their_way.len() < self.width {
            let Some(request) = self.to_ask.pop_front() else { return };
            self.ask_for(request, None);
        }
    }

    /// Asks for a page, after a wait where this is another try.
    fn ask_for(&self, mut request: Request, failed: Option<TableError>) {
        let (invocation, over) = (self.invocation, self.over);
        self.on_their_way.push(Box::pin(async move {
            let until = invocation.deadline;
            if let Some(error) = failed
                && !request.retries.wait(invocation, Service::Table, until, &error).await
            {
                return (request, Err(error.into()));
            }
            let page = read_page(invocation, over, &request).await;
            (request, page)
        }));
    }
}

async fn read_page<S: Services>(
    invocation: &Invocation<'_, S>,
    over: PassOver<'_>,
    Request { segment, after, .. }: &Request,
) -> Result<TablePage, ReadError> {
    let (table, until) = (invocation.services.table(), invocation.deadline);
    let page = match over {
        PassOver::Table(columns) => {
            let page = table.scan(columns, *segment, SCAN_SEGMENTS, after.as_ref());
            invocation.call(Service::Table, until, page).await
        }
        PassOver::Account(account) => {
            let page = table.query(Query::Account(account), after.as_ref());
            invocation.call(Service::Table, until, page).await
        }
    };
    Ok(page??)
}
