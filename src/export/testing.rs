//! The ports in memory, for the unit tests of this folder. A call succeeds unless a fault is
//! scripted for it; each call takes the next entry of its port's script.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::pending;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api_keys::{ApiKeys, BATCH_TIME_FOR_API_KEYS, Exportable, Patience, Reuse};
use super::invocation::Invocation;
use crate::config::ExporterConfig;
use crate::index::IndexRef;
use crate::item::{IndexSettings, Item, ItemKey, ItemKind};
use crate::kv::limits::MAX_LIST_KEYS;
use crate::kv::{Entry, Metadata, Pair, Source, Stamp, StoredValue};
use crate::ports::{
    ApiKeyError, ApiKeyService, BulkReply, Clock, KvError, KvStore, ListPage, Namespace,
    QueryConfigs, Retry, ScanColumns, Services, SettingsTable, TableError, TablePage,
};

/// How long an invocation has.
pub const TIME_LEFT: Duration = Duration::from_secs(60);

/// How long one request may take.
const HTTP_TIMEOUT: Duration = Duration::from_secs(30);

/// What the next calls meet, one entry a call.
pub struct Script<T>(RefCell<VecDeque<T>>);

impl<T> Script<T> {
    /// Adds entries for the calls after those that are scripted already.
    pub fn then(&self, entries: impl IntoIterator<Item = T>) {
        self.0.borrow_mut().extend(entries);
    }

    fn next(&self) -> Option<T> {
        self.0.borrow_mut().pop_front()
    }
}

impl<T> Default for Script<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

/// All services in memory.
pub struct Fakes {
    pub config: ExporterConfig,
    pub kv: FakeKv,
    pub api_keys: FakeApiKeys,
    pub table: FakeTable,
    clock: FakeClock,
}

impl Fakes {
    pub fn new() -> Self {
        Self {
            config: ExporterConfig {
                environment: "prod".into(),
                default_cell: Some("cell".into()),
                bulk_max_pairs: 10_000,
                removals_up_to: 100,
                http_timeout: HTTP_TIMEOUT,
                retry_base: Duration::from_secs(1),
                dry_run: false,
            },
            kv: FakeKv::default(),
            api_keys: FakeApiKeys::default(),
            table: FakeTable::default(),
            clock: FakeClock,
        }
    }

    /// An invocation that has [`TIME_LEFT`] from now.
    pub fn invocation(&self) -> Invocation<'_, Self> {
        let deadline = Instant::now() + TIME_LEFT;
        Invocation::new(self, &self.config, deadline, Source::Stream)
    }

    /// The index item of [`index_settings`], with the owner of its API key.
    pub fn exportable(&self, name: &str, attributes: &Value) -> Exportable {
        Exportable::new(index_settings(name, attributes), &self.config).unwrap()
    }
}

/// API keys that are asked for as a batch does.
pub fn batch_api_keys() -> ApiKeys {
    ApiKeys::new(Patience::InAll(BATCH_TIME_FOR_API_KEYS), Reuse::FromKv)
}

impl Services for Fakes {
    type Kv = FakeKv;
    type ApiKeys = FakeApiKeys;
    type Table = FakeTable;
    type Clock = FakeClock;

    fn kv(&self) -> &FakeKv {
        &self.kv
    }

    fn api_keys(&self) -> &FakeApiKeys {
        &self.api_keys
    }

    fn table(&self) -> &FakeTable {
        &self.table
    }

    fn clock(&self) -> &FakeClock {
        &self.clock
    }
}

/// Stands still, and waits half of each back-off's ceiling.
pub struct FakeClock;

impl Clock for FakeClock {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn jitter(&self) -> f64 {
        0.5
    }
}

/// What goes wrong with one request to KV.
pub enum KvFault {
    /// It fails, and nothing is done.
    Fails(KvError),
    /// All of it is done, and then it fails.
    IsDoneAndFails(KvError),
    /// These keys are listed as unsuccessful; the others are done.
    ListsAsUnsuccessful(&'static [&'static str]),
    /// It fails after a request's time-out.
    TimesOut,
    /// It never answers.
    Hangs,
}

/// One KV namespace.
#[derive(Default)]
pub struct FakeKv {
    pub faults: Script<KvFault>,
    /// The keys of each request so far, the failed ones too.
    pub requests: RefCell<Vec<Vec<String>>>,
    pub held: RefCell<BTreeMap<String, StoredValue>>,
}

impl FakeKv {
    /// Puts a value under a key without a request.
    pub fn hold(&self, key: &str, value: &Value) {
        let stored = StoredValue { value: value.to_string(), metadata: None };
        self.held.borrow_mut().insert(key.to_owned(), stored);
    }

    /// The keys that hold a value.
    pub fn keys(&self) -> Vec<String> {
        self.held.borrow().keys().cloned().collect()
    }

    /// The value under a key.
    pub fn value(&self, key: &str) -> Value {
        serde_json::from_str(&self.held.borrow()[key].value).unwrap()
    }

    /// Does `work` for each key, as far as the next fault of the script lets it.
    async fn request(
        &self,
        keys: Vec<String>,
        work: impl FnMut(&String),
    ) -> Result<BulkReply, KvError> {
        self.requests.borrow_mut().push(keys.clone());
        match self.faults.next() {
            None => {
                keys.iter().for_each(work);
                Ok(BulkReply::default())
            }
            Some(KvFault::Fails(error)) => Err(error),
            Some(KvFault::IsDoneAndFails(error)) => {
                keys.iter().for_each(work);
                Err(error)
            }
            Some(KvFault::ListsAsUnsuccessful(listed)) => {
                keys.iter().filter(|key| !listed.contains(&key.as_str())).for_each(work);
                let unsuccessful = listed.iter().map(|key| (*key).to_owned()).collect();
                Ok(BulkReply { unsuccessful, retry_after: None })
            }
            Some(KvFault::TimesOut) => {
                tokio::time::sleep(HTTP_TIMEOUT).await;
                Err(KvError::TooMuch { reason: "time-out".into() })
            }
            Some(KvFault::Hangs) => pending().await,
        }
    }
}

impl KvStore for FakeKv {
    async fn put(&self, _namespace: Namespace, pairs: &[Pair]) -> Result<BulkReply, KvError> {
        let entries: BTreeMap<&String, &Rc<Entry>> =
            pairs.iter().map(|pair| (&pair.key, &pair.entry)).collect();
        self.request(pairs.iter().map(|pair| pair.key.clone()).collect(), |key| {
            self.held.borrow_mut().insert(key.clone(), entries[key].to_stored());
        })
        .await
    }

    async fn delete(&self, _namespace: Namespace, keys: &[String]) -> Result<BulkReply, KvError> {
        self.request(keys.to_vec(), |key| drop(self.held.borrow_mut().remove(key))).await
    }

    async fn get(
        &self,
        _namespace: Namespace,
        keys: &[String],
    ) -> Result<BTreeMap<String, StoredValue>, KvError> {
        let mut found = BTreeMap::new();
        self.request(keys.to_vec(), |key| {
            found.extend(self.held.borrow().get(key).map(|stored| (key.clone(), stored.clone())));
        })
        .await?;
        Ok(found)
    }

    async fn list(
        &self,
        _namespace: Namespace,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<ListPage, KvError> {
        self.request(Vec::new(), |_| {}).await?;
        let held = self.held.borrow();
        let after =
            held.iter().skip_while(|(key, _)| cursor.is_some_and(|last| last >= key.as_str()));
        let listed = after.filter(|(key, _)| key.starts_with(prefix)).take(MAX_LIST_KEYS);
        let metadata = |stored: &StoredValue| Metadata::parse(stored.metadata.as_deref()?.get());
        let keys: Vec<_> = listed.map(|(key, stored)| (key.clone(), metadata(stored))).collect();
        let last = keys.last().map(|(key, _)| key.clone());
        Ok(ListPage { cursor: last.filter(|_| keys.len() == MAX_LIST_KEYS), keys })
    }
}

/// The API keys service: the key of every account is `k`.
#[derive(Default)]
pub struct FakeApiKeys {
    pub faults: Script<ApiKeyError>,
    /// How long the answers for these accounts take.
    pub delays: RefCell<BTreeMap<String, Duration>>,
}

impl ApiKeyService for FakeApiKeys {
    async fn fetch(&self, _cell: &str, account: &str) -> Result<SecretString, ApiKeyError> {
        let delay = self.delays.borrow().get(account).copied();
        tokio::time::sleep(delay.unwrap_or_default()).await;
        self.faults.next().map_or_else(|| Ok("k".into()), Err)
    }
}

/// A gateway that is down; trying at once may help.
pub fn down() -> ApiKeyError {
    ApiKeyError::Unavailable { reason: "down".into(), retry: Retry::After(None) }
}

/// What happens to the table just before a read.
pub enum TableChange {
    /// An item is written.
    Put((ItemKey, Item)),
    /// An item is removed.
    Remove(ItemKey),
    /// The read fails.
    Fails,
}

/// The settings table.
#[derive(Default)]
pub struct FakeTable {
    pub changes: Script<TableChange>,
    items: RefCell<BTreeMap<ItemKey, Item>>,
}

impl FakeTable {
    /// Writes an item.
    pub fn put(&self, (key, item): (ItemKey, Item)) {
        self.items.borrow_mut().insert(key, item);
    }

    /// The one page of the items that pass.
    fn page(&self, after: Option<&ItemKey>, passes: impl Fn(&ItemKey) -> bool) -> TablePage {
        let items = self.items.borrow();
        let items = items.iter().filter(|(key, _)| after < Some(*key) && passes(key));
        let items = items.map(|(key, item)| (key.clone(), item.clone())).collect();
        TablePage { items, last_read: None }
    }
}

impl SettingsTable for FakeTable {
    async fn get(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, TableError> {
        match self.changes.next() {
            None => {}
            Some(TableChange::Put(item)) => self.put(item),
            Some(TableChange::Remove(key)) => drop(self.items.borrow_mut().remove(&key)),
            Some(TableChange::Fails) => {
                return Err(TableError { reason: "down".into(), throttled: false });
            }
        }
        let items = self.items.borrow();
        let found = keys.iter().filter_map(|key| Some((key.clone(), items.get(key)?.clone())));
        Ok(found.collect())
    }

    async fn query_configs(
        &self,
        part: QueryConfigs<'_>,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        Ok(self.page(after, |key| match (part, key.kind()) {
            (QueryConfigs::All(index), ItemKind::QueryConfig(config)) => config.index == *index,
            (QueryConfigs::All(_), _) => false,
            (QueryConfigs::Between(first, last), _) => (first..=last).contains(&key),
        }))
    }

    async fn scan(
        &self,
        _columns: ScanColumns,
        segment: u32,
        _segments: u32,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        Ok(self.page(after, |_| segment == 0))
    }

    async fn account_items(
        &self,
        account: &str,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, TableError> {
        Ok(self.page(after, |key| key.pk == account))
    }
}

/// Index `name` of account `a`.
pub fn index(name: &str) -> IndexRef {
    IndexRef::parse("a", name).unwrap()
}

/// The item of index `name` of account `a`, with an endpoint and these attributes; null takes one out.
pub fn index_item(name: &str, attributes: &Value) -> (ItemKey, Item) {
    let ItemKey { pk, sk } = ItemKey::of_index(&index(name));
    let mut item = json!({"pk": {"S": pk}, "sk": {"S": sk}, "index_endpoint": {"S": "https://h"}});
    item.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
    item.as_object_mut().unwrap().retain(|_, attribute| !attribute.is_null());
    Item::parse(serde_json::value::to_raw_value(&item).unwrap()).unwrap()
}

/// The settings of that item.
pub fn index_settings(name: &str, attributes: &Value) -> IndexSettings {
    let (_, item) = index_item(name, attributes);
    IndexSettings::decode(&index(name), &item.attributes()).unwrap()
}

/// Pairs under these keys, of one entry.
pub fn pairs(keys: &[&str]) -> Vec<Pair> {
    let stamp = Stamp {
        exported_at: "t".into(),
        source: Source::Stream,
        environment: "prod".into(),
        changed_at: None,
    };
    let entry = Rc::new(Entry::new(r#"{"x":1}"#, &index("i"), &stamp).unwrap());
    keys.iter().map(|key| Pair { key: (*key).to_owned(), entry: Rc::clone(&entry) }).collect()
}
