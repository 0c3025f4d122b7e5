//! KV and the table in memory, for the unit tests, the simulation and the fleet.
//!
//! [`Memory`] has the rules that all of them share: which keys of a faulty request are done, a listing's
//! pages and cursors, which items a read finds, its pages, and how many items one `BatchGetItem` takes.
//! Its [`Backend`] says what is held, how long a call takes and what goes wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::ops::Deref;
use std::time::{Duration, SystemTime};

use ecom_settings_exporter::config::ExporterConfig;
use ecom_settings_exporter::item::{Item, ItemKey};
use ecom_settings_exporter::kv::limits::MAX_BULK_PAIRS;
use ecom_settings_exporter::kv::{Metadata, Namespace, Pair, StoredValue};
use ecom_settings_exporter::ports::{
    ApiKeyService, BulkReply, Clock, ErrorKind, KvStore, ListPage, Service, ServiceError, Services,
    SettingsTable, TablePage, TablePart,
};

/// How long one request may take.
pub const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

/// Items in one `BatchGetItem`.
const GET_ITEMS: usize = 100;

/// A function with the template's defaults, and without a default cell.
pub fn config(environment: &str) -> ExporterConfig {
    ExporterConfig {
        environment: environment.to_owned(),
        table_name: format!("{environment}-EcomIndexSettingsTable"),
        default_cell: None,
        bulk_max_pairs: MAX_BULK_PAIRS,
        removals_up_to: 100,
        http_timeout: HTTP_TIMEOUT,
        retry_base: Duration::from_secs(1),
        dry_run: false,
        in_aws: false,
    }
}

/// All services.
pub struct Memory<B>(pub B);

/// A key of KV, and what it is to hold.
pub type Change = (String, Option<StoredValue>);

/// A request to KV that is about to be made.
pub enum KvRequest<'a> {
    Write(&'a [Change]),
    Read(&'a [String]),
    List,
}

/// What differs between the services of one kind of test and another.
pub trait Backend: ApiKeyService + Clock {
    /// Lets a request to KV take its time. Returns what goes wrong with it.
    async fn ask_kv(&self, namespace: Namespace, request: KvRequest<'_>) -> Option<KvFault>;
    /// A key of a request takes effect.
    fn change(&self, namespace: Namespace, change: Change);
    /// Returns what KV tells about a key.
    fn held(&self, namespace: Namespace, key: &str) -> Option<StoredValue>;
    /// Returns what a listing tells about a key that holds a value.
    fn listed(&self, namespace: Namespace, key: &str) -> Option<Option<Metadata>> {
        Some(self.held(namespace, key)?.metadata())
    }
    /// Returns at most `most` keys, those that come first from `first` on, in ascending order.
    fn keys_from(&self, namespace: Namespace, first: &str, most: usize) -> Vec<String>;
    /// Keys in a page of a listing.
    fn page_keys(&self) -> usize;
    /// Returns a page in the place of what is held.
    fn scripted_page(&self) -> Option<ListPage> {
        None
    }
    /// Reads up to 100 items.
    async fn items(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, ServiceError>;
    async fn page(
        &self,
        part: TablePart<'_>,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, ServiceError>;
}

/// What goes wrong with a request to KV.
#[derive(Debug, Clone)]
pub enum KvFault {
    /// It fails, and nothing is done.
    Fails(ServiceError),
    /// These keys are done, and then it fails.
    IsDoneAndFails(Keys, ServiceError),
    /// These keys are listed as unsuccessful; the others are done.
    ListsAsUnsuccessful(Keys),
    /// The same, with a `Retry-After`.
    ListsAndAsksToWait(Keys, Duration),
    /// The same, with a status that refuses the request.
    RefusesAndLists(Keys),
    /// These keys are listed as unsuccessful; all are done.
    IsDoneAndListsAsUnsuccessful(Keys),
    /// It fails after a request's time-out.
    TimesOut,
    /// No response ever comes.
    Hangs,
    /// All of it is done, and no response ever comes.
    IsDoneAndHangs,
}

/// A failure of KV.
pub fn kv_error(kind: ErrorKind) -> ServiceError {
    ServiceError::new(Service::Kv, kind, "scripted")
}

/// Some keys of a request.
#[derive(Debug, Clone, Copy)]
pub enum Keys {
    All,
    EverySecond,
    Named(&'static [&'static str]),
}

impl Keys {
    fn have(self, position: usize, key: &str) -> bool {
        match self {
            Self::All => true,
            Self::EverySecond => position.is_multiple_of(2),
            Self::Named(keys) => keys.contains(&key),
        }
    }
}

impl KvFault {
    /// Returns whether a key of the request is done.
    fn does(&self, position: usize, key: &str) -> bool {
        match self {
            Self::Fails(_) | Self::TimesOut | Self::Hangs => false,
            Self::IsDoneAndFails(keys, _) => keys.have(position, key),
            Self::ListsAsUnsuccessful(keys)
            | Self::ListsAndAsksToWait(keys, _)
            | Self::RefusesAndLists(keys) => !keys.have(position, key),
            Self::IsDoneAndListsAsUnsuccessful(_) | Self::IsDoneAndHangs => true,
        }
    }

    /// Returns whether the reply lists a key of the request as unsuccessful.
    fn lists(&self, position: usize, key: &str) -> bool {
        match self {
            Self::ListsAsUnsuccessful(keys)
            | Self::ListsAndAsksToWait(keys, _)
            | Self::RefusesAndLists(keys)
            | Self::IsDoneAndListsAsUnsuccessful(keys) => keys.have(position, key),
            _ => false,
        }
    }

    /// Returns how the request ends, once it has done what it does.
    pub async fn end(self) -> Result<(), ServiceError> {
        match self {
            Self::ListsAsUnsuccessful(_)
            | Self::ListsAndAsksToWait(..)
            | Self::RefusesAndLists(_)
            | Self::IsDoneAndListsAsUnsuccessful(_) => Ok(()),
            Self::Fails(error) | Self::IsDoneAndFails(_, error) => Err(error),
            Self::TimesOut => {
                tokio::time::sleep(HTTP_TIMEOUT).await;
                Err(kv_error(ErrorKind::TimedOut))
            }
            Self::Hangs | Self::IsDoneAndHangs => pending().await,
        }
    }
}

/// Returns whether a part of the table has an item.
pub fn part_has(part: TablePart<'_>, key: &ItemKey) -> bool {
    match part {
        TablePart::Account(account) => key.pk == account,
        TablePart::ConfigsOf(index) => {
            let prefix = format!("INDEX#{}#QUERY#", index.name);
            key.pk == index.account && key.sk.starts_with(&prefix)
        }
        TablePart::Segment { segment, segments, .. } => {
            let hash = key.pk.bytes().chain(key.sk.bytes()).map(u32::from).sum::<u32>();
            hash % segments == segment
        }
    }
}

/// An item that a read comes upon.
pub struct Row {
    pub key: ItemKey,
    pub bytes: usize,
    /// `None` if the read leaves it out.
    pub item: Option<Item>,
}

/// Returns a page: rows are read in order until their sizes come to `most` bytes.
pub fn table_page(rows: impl IntoIterator<Item = Row>, most: usize) -> TablePage {
    let mut rows = rows.into_iter().peekable();
    let (mut page, mut read) = (TablePage::default(), 0);
    while let Some(Row { key, bytes, item }) = rows.next() {
        read += bytes;
        if read >= most && rows.peek().is_some() {
            page.last_read = Some(key.clone());
        }
        page.items.extend(item.map(|item| (key, item)));
        if page.last_read.is_some() {
            break;
        }
    }
    page
}

impl<B: Backend> Memory<B> {
    async fn bulk(
        &self,
        namespace: Namespace,
        changes: Vec<Change>,
    ) -> Result<BulkReply, ServiceError> {
        let fault = self.ask_kv(namespace, KvRequest::Write(&changes)).await;
        let mut unsuccessful = BTreeSet::new();
        for (position, change) in changes.into_iter().enumerate() {
            let key = &change.0;
            if fault.as_ref().is_some_and(|fault| fault.lists(position, key)) {
                unsuccessful.insert(key.clone());
            }
            if fault.as_ref().is_none_or(|fault| fault.does(position, key)) {
                self.change(namespace, change);
            }
        }
        let is_refusal = matches!(fault, Some(KvFault::RefusesAndLists(_)));
        let retry_after = match fault {
            Some(KvFault::ListsAndAsksToWait(_, wait)) => Some(wait),
            _ => None,
        };
        if let Some(fault) = fault {
            fault.end().await?;
        }
        Ok(BulkReply { unsuccessful, retry_after, is_refusal })
    }

    async fn read(&self, namespace: Namespace, request: KvRequest<'_>) -> Result<(), ServiceError> {
        match self.ask_kv(namespace, request).await {
            None => Ok(()),
            Some(fault) => fault.end().await,
        }
    }
}

impl<B: Backend> KvStore for Memory<B> {
    async fn put(&self, namespace: Namespace, pairs: &[Pair]) -> Result<BulkReply, ServiceError> {
        let change = |pair: &Pair| (pair.key.clone(), Some(StoredValue::clone(&pair.stored)));
        self.bulk(namespace, pairs.iter().map(change).collect()).await
    }

    async fn delete(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BulkReply, ServiceError> {
        self.bulk(namespace, keys.iter().map(|key| (key.clone(), None)).collect()).await
    }

    async fn get(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BTreeMap<String, StoredValue>, ServiceError> {
        self.read(namespace, KvRequest::Read(keys)).await?;
        let found = keys.iter().map(|key| (key, self.held(namespace, key)));
        Ok(found.filter_map(|(key, held)| Some((key.clone(), held?))).collect())
    }

    /// A page may have fewer keys than its most, as KV's may.
    async fn list(
        &self,
        namespace: Namespace,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<ListPage, ServiceError> {
        self.read(namespace, KvRequest::List).await?;
        if let Some(page) = self.scripted_page() {
            return Ok(page);
        }
        let most = self.page_keys();
        let mut names = self.keys_from(namespace, cursor.unwrap_or(prefix), most.saturating_add(2));
        names.retain(|name| name.starts_with(prefix) && Some(name.as_str()) != cursor);
        let is_last = names.len() <= most;
        names.truncate(most);
        let cursor = names.last().filter(|_| !is_last).cloned();
        let listed = |name: String| {
            let metadata = self.0.listed(namespace, &name)?;
            Some((name, metadata))
        };
        Ok(ListPage { keys: names.into_iter().filter_map(listed).collect(), cursor })
    }
}

impl<B: Backend> SettingsTable for Memory<B> {
    async fn get(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, ServiceError> {
        let mut found = BTreeMap::new();
        for keys in keys.chunks(GET_ITEMS) {
            found.append(&mut self.items(keys).await?);
        }
        Ok(found)
    }

    async fn page(
        &self,
        part: TablePart<'_>,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, ServiceError> {
        Backend::page(&self.0, part, after).await
    }
}

impl<B: Backend> Services for Memory<B> {
    fn kv(&self) -> &impl KvStore {
        self
    }

    fn api_keys(&self) -> &impl ApiKeyService {
        &self.0
    }

    fn table(&self) -> &impl SettingsTable {
        self
    }
}

impl<B: Backend> Clock for Memory<B> {
    fn now(&self) -> SystemTime {
        self.0.now()
    }

    fn jitter(&self) -> f64 {
        self.0.jitter()
    }
}

impl<B> Deref for Memory<B> {
    type Target = B;

    fn deref(&self) -> &B {
        &self.0
    }
}
