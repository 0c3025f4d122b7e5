//! What the exporter needs from the outside world, in its own types. A call is one attempt: retries,
//! budgets and deadlines belong to `export`, so that the simulation exercises them too. There are three
//! exceptions: the AWS SDK retries, a request with a refused token is repeated once with a token that was
//! read again, and keys that `BatchGetItem` leaves unprocessed are asked for again.

#![expect(async_fn_in_trait, reason = "the function runs on one thread: no future needs Send")]

mod error;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use secrecy::SecretString;

pub use self::error::{BackOff, ErrorKind, Service, ServiceError};
use crate::index::IndexRef;
use crate::item::{Item, ItemKey};
use crate::kv::{Metadata, Namespace, Pair, StoredValue};

pub trait Services: Clock {
    fn kv(&self) -> &impl KvStore;
    fn api_keys(&self) -> &impl ApiKeyService;
    fn table(&self) -> &impl SettingsTable;
}

/// Time and chance. Monotonic time and sleeping are tokio's, which tests can pause.
pub trait Clock {
    fn now(&self) -> SystemTime;
    /// Returns which share of a back-off's ceiling to wait, evenly distributed from 0.0 up to but not including 1.0.
    fn jitter(&self) -> f64;
}

/// Cloudflare KV's REST API.
pub trait KvStore {
    /// Writes up to 10,000 pairs of distinct keys.
    async fn put(&self, namespace: Namespace, pairs: &[Pair]) -> Result<BulkReply, ServiceError>;
    /// Deletes up to 10,000 keys. A key that isn't there succeeds.
    async fn delete(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BulkReply, ServiceError>;
    /// Reads up to 100 keys with their metadata. A key that isn't there is absent from the result.
    async fn get(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BTreeMap<String, StoredValue>, ServiceError>;
    /// Lists up to 1,000 keys, from the start or from a cursor.
    async fn list(
        &self,
        namespace: Namespace,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<ListPage, ServiceError>;
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BulkReply {
    /// Keys to send again. They may be partly written or deleted.
    pub unsuccessful: BTreeSet<String>,
    pub retry_after: Option<Duration>,
    /// Whether the request was refused, and not only some storage failed.
    pub is_refusal: bool,
}

#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// Names in ascending order. Each has its metadata, if that names an account and an index.
    pub keys: Vec<(String, Option<Metadata>)>,
    /// Where the next page begins; `None` at the end.
    pub cursor: Option<String>,
}

pub trait ApiKeyService {
    /// Asks the gateway of `cell` for the key of `account`. Both names have to fit a URL, see [`fits_a_url`].
    async fn fetch(&self, cell: &str, account: &str) -> Result<SecretString, ServiceError>;
}

/// Returns whether the name of a cell or an account can be a segment of the service's URL. A URL parser
/// takes `.` and `..`, encoded or not, for steps up the path.
pub fn fits_a_url(name: &str) -> bool {
    name != "." && name != ".."
}

/// The settings table. Every read is strongly consistent except a scan of [`ScanColumns::All`].
pub trait SettingsTable {
    /// Reads any number of items, 100 a request. An item that isn't there is absent from the result.
    async fn get(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, ServiceError>;
    /// Reads a page of a part of the table: the items that follow the key `after`.
    async fn page(
        &self,
        part: TablePart<'_>,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, ServiceError>;
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
