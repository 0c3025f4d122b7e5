//! What the exporter needs of the outside world, in its own types. One call is one attempt: retries,
//! budgets and deadlines are the core's, so that the simulation exercises them too.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use secrecy::SecretString;

use crate::index::IndexRef;
use crate::item::{Item, ItemKey};
use crate::kv::{Metadata, Pair, StoredValue};

/// The services of one deployment.
pub trait Services {
    /// Cloudflare KV.
    type Kv: KvStore;
    /// The API keys service.
    type ApiKeys: ApiKeyService;
    /// The settings table.
    type Table: SettingsTable;
    /// Time and chance.
    type Clock: Clock;

    /// Cloudflare KV.
    fn kv(&self) -> &Self::Kv;
    /// The API keys service.
    fn api_keys(&self) -> &Self::ApiKeys;
    /// The settings table.
    fn table(&self) -> &Self::Table;
    /// Time and chance.
    fn clock(&self) -> &Self::Clock;
    /// The readings of the Cloudflare token's secret that ended since this was last called. They
    /// belong to no call of a port: the first one is under way before any invocation.
    fn take_secret_calls(&self) -> ServiceCalls {
        ServiceCalls::default()
    }
}

/// Calls to one service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServiceCalls {
    /// How many there were.
    pub requests: u64,
    /// Their durations added up.
    pub duration: Duration,
}

/// Time and chance. Monotonic time and sleeping are tokio's, which tests can pause.
pub trait Clock {
    /// The wall clock's time.
    fn now(&self) -> SystemTime;
    /// Evenly distributed over 0.0 (included) to 1.0 (excluded): by how much a wait is shortened.
    fn jitter(&self) -> f64;
}

/// The two KV namespaces that the search proxy reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Namespace {
    /// Binding `KV`.
    Settings,
    /// Binding `KV_QCFG`.
    QueryConfigs,
}

/// Cloudflare KV's bulk API.
#[expect(async_fn_in_trait, reason = "the function runs on one thread: no future needs Send")]
pub trait KvStore {
    /// Writes up to 10,000 pairs of distinct keys.
    async fn put(&self, namespace: Namespace, pairs: &[Pair]) -> Result<BulkReply, KvError>;
    /// Deletes up to 10,000 keys; those that aren't there succeed.
    async fn delete(&self, namespace: Namespace, keys: &[String]) -> Result<BulkReply, KvError>;
    /// Reads up to 100 keys with their metadata; those that aren't there are absent.
    async fn get(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BTreeMap<String, StoredValue>, KvError>;
    /// Lists up to 1,000 keys, from the start or from a cursor.
    async fn list(
        &self,
        namespace: Namespace,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<ListPage, KvError>;
}

/// What a bulk request did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BulkReply {
    /// Keys that have to be sent again; they may be partly done.
    pub unsuccessful: Vec<String>,
}

/// A page of a listing.
#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// Names in ascending order, each with its metadata where that is ours.
    pub keys: Vec<(String, Option<Metadata>)>,
    /// Where to go on; `None` at the end.
    pub cursor: Option<String>,
}

/// Why a request to KV failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// Trying the same again may help.
    #[error("Cloudflare KV: {reason}")]
    Transient {
        /// What happened.
        reason: String,
        /// How long Cloudflare asks to wait.
        retry_after: Option<Duration>,
    },
    /// Too much at once: a time-out, 413 or 524. Halves may get through.
    #[error("Cloudflare KV: {reason}")]
    TooMuch {
        /// What happened.
        reason: String,
    },
    /// 401 or 403, also after the token was read again.
    #[error(
        "CloudflareAuthRejected: Cloudflare refuses the API token ({reason}); check the secret and that the token may edit Workers KV Storage of this account"
    )]
    AuthRejected {
        /// What Cloudflare says.
        reason: String,
    },
    /// Secrets Manager gives no token.
    #[error("Cloudflare API token: {reason}")]
    NoToken {
        /// What happened.
        reason: String,
    },
    /// The request is refused; the same again would be too.
    #[error("Cloudflare KV refuses the request: {reason}")]
    Refused {
        /// What Cloudflare says.
        reason: String,
    },
    /// Something in the request is refused: halves find out what.
    #[error("Cloudflare KV refuses the request: {reason}")]
    RefusedContent {
        /// What Cloudflare says.
        reason: String,
    },
    /// The key is among `unsuccessful_keys` after all tries.
    #[error("Cloudflare KV lists the key as unsuccessful after all tries")]
    Unsuccessful,
    /// The invocation's time is up.
    #[error("the invocation's time is up")]
    OutOfTime,
}

/// Whether a failed request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again.
    Never,
    /// After the usual wait, and no earlier than the service asks for.
    After(Option<Duration>),
}

/// An error that says whether the same request may be sent again within the same invocation.
pub trait Retryable {
    /// The verdict.
    fn retry(&self) -> Retry;
}

impl Retryable for KvError {
    fn retry(&self) -> Retry {
        match self {
            Self::Transient { retry_after, .. } => Retry::After(*retry_after),
            Self::TooMuch { .. } | Self::Unsuccessful => Retry::After(None),
            Self::AuthRejected { .. }
            | Self::NoToken { .. }
            | Self::Refused { .. }
            | Self::RefusedContent { .. }
            | Self::OutOfTime => Retry::Never,
        }
    }
}

impl KvError {
    /// Whether every other request would fail likewise: each would read the token again.
    pub fn concerns_every_request(&self) -> bool {
        matches!(self, Self::AuthRejected { .. } | Self::NoToken { .. })
    }
}

impl Retryable for ApiKeyError {
    fn retry(&self) -> Retry {
        match self {
            Self::Unavailable { retry, .. } => *retry,
            Self::NotFound | Self::BadName { .. } => Retry::Never,
        }
    }
}

/// The API keys service.
#[expect(async_fn_in_trait, reason = "the function runs on one thread: no future needs Send")]
pub trait ApiKeyService {
    /// Asks the gateway of `cell` for the key of `account`.
    async fn fetch(&self, cell: &str, account: &str) -> Result<SecretString, ApiKeyError>;
}

/// Why the service gives no API key for an account.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    /// 404: the account has none.
    #[error("the account has no API key")]
    NotFound,
    /// The name of the account or the cell can't be part of a URL (`.` or `..`).
    #[error("{path} can't be part of a URL")]
    BadName {
        /// Which name.
        path: &'static str,
    },
    /// The service gives none at the moment.
    #[error("API keys service: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
        /// Whether the service may be asked again at once.
        retry: Retry,
    },
}

/// The settings table. Every read is consistent.
#[expect(async_fn_in_trait, reason = "the function runs on one thread: no future needs Send")]
pub trait SettingsTable {
    /// Reads any number of items; those that aren't there are absent.
    async fn get(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, TableError>;
    /// A page of query configs in ascending order of their keys, after `after`.
    async fn query_configs(
        &self,
        part: QueryConfigs<'_>,
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
    /// A page of one account's items, after `after`.
    async fn account_items(
        &self,
        account: &str,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError>;
}

/// Which query configs are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryConfigs<'a> {
    /// All of an index.
    All(&'a IndexRef),
    /// Those of one index from a key to another, both included.
    Between(&'a ItemKey, &'a ItemKey),
}

/// What a scan asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanColumns {
    /// Who asks for which key and points at whom: nearly all query configs are left out, and so is
    /// every attribute but the shop id and the aliases.
    Claims,
    /// Everything.
    All,
}

/// A page of items.
#[derive(Debug, Clone, Default)]
pub struct TablePage {
    /// The items, by key.
    pub items: Vec<(ItemKey, Item)>,
    /// The last key that was read, where to go on after; `None` at the end.
    pub last_read: Option<ItemKey>,
}

/// A request to the table that failed, with the SDK's own retries behind it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("settings table: {reason}")]
pub struct TableError {
    /// What happened.
    pub reason: String,
}
