//! The services in memory for the unit tests of `src/export`. Each call takes the next entry of its
//! service's script, and succeeds where there is none.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::memory::{Backend, Change, KvRequest, Memory, Row, config, part_has, table_page};
pub use super::memory::{Keys, KvFault, kv_error};
use crate::config::ExporterConfig;
use crate::export::invocation::{Budget, Invocation};
use crate::index::{IndexRef, ItemRef};
use crate::item::keys::QUERY_SEPARATOR;
use crate::item::{CLAIM_PATHS, Item, ItemKey};
use crate::kv::limits::MAX_LIST_KEYS;
use crate::kv::{Metadata, Namespace, Pair, Source, StoredValue};
use crate::ports::{
    ApiKeyService, Clock, ErrorKind, ListPage, ScanColumns, Service, ServiceError, TablePage,
    TablePart,
};

/// The clock's time, which stands still.
pub const NOW: Duration = Duration::from_secs(1_000_000_000);

/// How long an invocation has.
pub const TIME_LEFT: Duration = Duration::from_secs(300);

/// What the next calls meet, one entry a call. `None` is a call to which nothing happens.
pub struct Script<T>(RefCell<VecDeque<Option<T>>>);

impl<T> Script<T> {
    /// Adds entries for the calls after those that are scripted already.
    pub fn then(&self, entries: impl IntoIterator<Item = T>) {
        self.0.borrow_mut().extend(entries.into_iter().map(Some));
    }

    /// Adds calls to which nothing happens.
    pub fn then_nothing(&self, calls: usize) {
        self.0.borrow_mut().extend((0..calls).map(|_| None));
    }

    /// Adds calls to which nothing happens, and entries for those after them.
    pub fn then_after(&self, calls: usize, entries: impl IntoIterator<Item = T>) {
        self.then_nothing(calls);
        self.then(entries);
    }

    fn next(&self) -> Option<T> {
        self.0.borrow_mut().pop_front().flatten()
    }
}

impl<T> Default for Script<T> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

/// All services in memory.
pub type Fakes = Memory<Scripted>;

/// What they hold, and what is scripted for them.
pub struct Scripted {
    pub config: ExporterConfig,
    pub kv: FakeKv,
    pub api_keys: FakeApiKeys,
    pub table: FakeTable,
}

impl Fakes {
    pub fn new() -> Self {
        Self(Scripted {
            config: ExporterConfig { default_cell: Some("cell".into()), ..config("prod") },
            kv: FakeKv::default(),
            api_keys: FakeApiKeys::default(),
            table: FakeTable::default(),
        })
    }

    /// An invocation that is bounded by nothing but its deadline.
    pub fn invocation(&self, source: Source) -> Invocation<'_, Self> {
        let budget = Budget::until(Instant::now() + TIME_LEFT);
        Invocation::new(self, &self.config, budget, source)
    }
}

impl Clock for Scripted {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + NOW
    }

    /// Every wait is half of the back-off's ceiling.
    fn jitter(&self) -> f64 {
        0.5
    }
}

/// Both KV namespaces. Keys that begin with `qcfg-` are in the query configs', all others in the settings'.
#[derive(Default)]
pub struct FakeKv {
    pub faults: Script<KvFault>,
    /// Pages of a listing, in the place of what is held.
    pub pages: Script<ListPage>,
    /// The keys of each request so far, the failed ones too. A listing's are none.
    pub requests: RefCell<Vec<Vec<String>>>,
    pub held: RefCell<BTreeMap<String, StoredValue>>,
}

impl FakeKv {
    /// Puts a value without metadata under a key, as the predecessor did.
    pub fn hold(&self, key: &str, value: &Value) {
        let stored = StoredValue { value: value.to_string(), metadata: None };
        self.held.borrow_mut().insert(key.to_owned(), stored);
    }

    /// Puts an entry under a key without a request.
    pub fn hold_entry(&self, key: &str, entry: &StoredValue) {
        self.held.borrow_mut().insert(key.to_owned(), entry.clone());
    }

    /// Returns the keys that hold a value.
    pub fn keys(&self) -> Vec<String> {
        self.held.borrow().keys().cloned().collect()
    }

    /// Returns the value under a key.
    pub fn value(&self, key: &str) -> Value {
        serde_json::from_str(&self.held.borrow()[key].value).unwrap()
    }
}

impl Backend for Scripted {
    async fn ask_kv(&self, _: Namespace, request: KvRequest<'_>) -> Option<KvFault> {
        let keys = match request {
            KvRequest::Write(changes) => changes.iter().map(|(key, _)| key.clone()).collect(),
            KvRequest::Read(keys) => keys.to_vec(),
            KvRequest::List => Vec::new(),
        };
        self.kv.requests.borrow_mut().push(keys);
        self.kv.faults.next()
    }

    fn change(&self, _: Namespace, (key, stored): Change) {
        let mut all = self.kv.held.borrow_mut();
        match stored {
            Some(stored) => all.insert(key, stored),
            None => all.remove(&key),
        };
    }

    fn held(&self, _: Namespace, key: &str) -> Option<StoredValue> {
        self.kv.held.borrow().get(key).cloned()
    }

    fn keys_from(&self, namespace: Namespace, first: &str, most: usize) -> Vec<String> {
        let held = self.kv.held.borrow();
        let of_query_configs = namespace == Namespace::QueryConfigs;
        let keys = held.range(first.to_owned()..).map(|(key, _)| key.clone());
        keys.filter(|key| key.starts_with("qcfg-") == of_query_configs).take(most).collect()
    }

    fn page_keys(&self) -> usize {
        MAX_LIST_KEYS
    }

    fn scripted_page(&self) -> Option<ListPage> {
        self.kv.pages.next()
    }

    async fn items(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, ServiceError> {
        self.table.read("BatchGetItem").await?;
        let items = self.table.items.borrow();
        Ok(keys.iter().filter_map(|key| Some((key.clone(), items.get(key)?.clone()))).collect())
    }

    /// All in one page. The first segment of a scan has everything, but for the query configs that a scan of claims
    /// leaves out; the others take nothing from the script.
    async fn page(
        &self,
        part: TablePart<'_>,
        _after: Option<&ItemKey>,
    ) -> Result<TablePage, ServiceError> {
        let is_query = !matches!(part, TablePart::Segment { .. });
        let claims = matches!(part, TablePart::Segment { columns: ScanColumns::Claims, .. });
        if matches!(part, TablePart::Segment { segment: 1.., .. }) {
            return Ok(TablePage::default());
        }
        self.table.read(if is_query { "Query" } else { "Scan" }).await?;
        let items = self.table.items.borrow();
        let items = items.iter().filter(|(key, _)| !is_query || part_has(part, key));
        let rows = items.map(|(key, item)| Row {
            key: key.clone(),
            bytes: item.bytes(),
            item: (!claims || may_claim(key, item)).then(|| item.clone()),
        });
        Ok(table_page(rows, usize::MAX))
    }
}

/// Returns whether a scan of claims has an item: all but query configs without an attribute that could claim.
fn may_claim(key: &ItemKey, item: &Item) -> bool {
    let attributes = item.attributes();
    let has = |path: &&str| match path.split_once('.') {
        None => attributes.get(path).is_some(),
        Some((map, name)) => attributes.map(map).is_some_and(|map| map.get(name).is_some()),
    };
    !key.sk.contains(QUERY_SEPARATOR) || CLAIM_PATHS.iter().any(has)
}

/// The API keys service: the key of every account is `k`.
#[derive(Default)]
pub struct FakeApiKeys {
    pub faults: Script<ServiceError>,
    /// How long the responses for these accounts take.
    pub delays: RefCell<BTreeMap<String, Duration>>,
    /// The cell and account of each request so far.
    pub requests: RefCell<Vec<(String, String)>>,
}

impl ApiKeyService for Scripted {
    async fn fetch(&self, cell: &str, account: &str) -> Result<SecretString, ServiceError> {
        self.api_keys.requests.borrow_mut().push((cell.to_owned(), account.to_owned()));
        let delay = self.api_keys.delays.borrow().get(account).copied();
        tokio::time::sleep(delay.unwrap_or_default()).await;
        self.api_keys.faults.next().map_or_else(|| Ok("k".into()), Err)
    }
}

/// A failure of the API keys service.
pub fn api_keys_error(kind: ErrorKind) -> ServiceError {
    ServiceError::new(Service::ApiKeys, kind, "scripted")
}

/// A gateway that is down; trying at once may help.
pub fn down() -> ServiceError {
    api_keys_error(ErrorKind::Transient)
}

/// What happens to the table just before a read.
pub enum TableChange {
    /// An item is written.
    Put((ItemKey, Item)),
    /// An item is removed.
    Remove(ItemKey),
    /// The read fails.
    Fails,
    /// The read is refused because it comes too soon.
    Throttles,
    /// No response ever comes.
    Hangs,
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

    /// Removes an item.
    pub fn remove(&self, key: &ItemKey) {
        self.items.borrow_mut().remove(key);
    }

    async fn read(&self, operation: &'static str) -> Result<(), ServiceError> {
        match self.changes.next() {
            None => {}
            Some(TableChange::Put(item)) => self.put(item),
            Some(TableChange::Remove(key)) => self.remove(&key),
            Some(TableChange::Hangs) => std::future::pending().await,
            Some(change @ (TableChange::Fails | TableChange::Throttles)) => {
                let kind = match change {
                    TableChange::Throttles => ErrorKind::Transient,
                    _ => ErrorKind::Refused,
                };
                return Err(ServiceError::new(Service::Table, kind, format!("{operation}: down")));
            }
        }
        Ok(())
    }
}

/// Index `name` of account `a`.
pub fn index(name: &str) -> IndexRef {
    IndexRef::parse("a", name).unwrap()
}

/// The settings of index `name`.
pub fn settings_of(name: &str) -> ItemRef {
    index(name).into()
}

/// Attributes with this shop id.
pub fn shop(id: &str) -> Value {
    json!({"shop_id": {"S": id}})
}

/// Attributes with this pixel id, which tells one value from another.
pub fn pixel(id: &str) -> Value {
    json!({"pixel_id": {"S": id}})
}

/// Query config `query` of index `name`.
pub fn query_config(name: &str, query: &str) -> ItemRef {
    ItemRef { index: index(name), query: Some(query.to_owned()) }
}

/// The item of index `name` with an endpoint and these attributes; null takes one out.
pub fn index_item(name: &str, attributes: &Value) -> (ItemKey, Item) {
    let mut all = json!({"index_endpoint": {"S": "https://h"}});
    all.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
    all.as_object_mut().unwrap().retain(|_, attribute| !attribute.is_null());
    item(&index(name).into(), &all)
}

/// An item with these attributes.
pub fn item(item: &ItemRef, attributes: &Value) -> (ItemKey, Item) {
    let ItemKey { pk, sk } = item.key();
    let mut all = json!({"pk": {"S": pk}, "sk": {"S": sk}});
    all.as_object_mut().unwrap().extend(attributes.as_object().unwrap().clone());
    Item::parse(serde_json::value::to_raw_value(&all).unwrap()).unwrap()
}

/// What an exporter of environment `prod` writes for index `name`.
pub fn entry(name: &str, value: &Value) -> StoredValue {
    let metadata = Metadata {
        index: index(name),
        environment: Some("prod".to_owned()),
        digest: None,
        exported_at: Some("t".to_owned()),
        changed_at: None,
        source: Some(Source::Stream),
    };
    StoredValue::new(value.to_string(), metadata)
}

/// Pairs under these keys with one entry, of index `i`.
pub fn pairs(keys: &[&str]) -> Vec<Pair> {
    let stored = Rc::new(entry("i", &json!({"x": 1})));
    let pair = |key: &&str| Pair { key: (*key).to_owned(), stored: stored.clone(), item: None };
    keys.iter().map(pair).collect()
}

/// Rules that all tests rely on, and that the exporter hides when they are broken.
mod rules {
    use super::*;
    use crate::ports::KvStore;

    const NAMESPACE: Namespace = Namespace::Settings;

    #[tokio::test]
    async fn a_page_of_a_listing_begins_after_its_cursor_and_has_only_keys_with_the_prefix() {
        let fakes = Fakes::new();
        let names: Vec<String> = (0..1_500).map(|number| format!("b{number:04}")).collect();
        let others = ["a", "c"].into_iter();
        let all: Vec<&str> = names.iter().map(String::as_str).chain(others).collect();
        fakes.put(NAMESPACE, &pairs(&all)).await.unwrap();
        let first = KvStore::list(&fakes, NAMESPACE, "b", None).await.unwrap();
        assert_eq!(first.cursor.as_deref(), Some("b0999"));
        let second = KvStore::list(&fakes, NAMESPACE, "b", first.cursor.as_deref()).await.unwrap();
        assert_eq!(second.cursor, None);
        let listed: Vec<String> =
            first.keys.into_iter().chain(second.keys).map(|(key, _)| key).collect();
        assert_eq!(listed, names);
    }

    #[tokio::test]
    async fn a_faulty_request_does_the_keys_that_its_fault_says() {
        let error = || kv_error(ErrorKind::Refused);
        let (all, none): (&[&str], &[&str]) = (&["a", "b", "c"], &[]);
        for (fault, listed, held) in [
            (KvFault::Fails(error()), none, none),
            (KvFault::IsDoneAndFails(Keys::All, error()), none, all),
            (KvFault::IsDoneAndFails(Keys::EverySecond, error()), none, &["a", "c"]),
            (KvFault::ListsAsUnsuccessful(Keys::EverySecond), &["a", "c"], &["b"]),
            (KvFault::ListsAsUnsuccessful(Keys::Named(&["b"])), &["b"], &["a", "c"]),
            (KvFault::IsDoneAndListsAsUnsuccessful(Keys::All), all, all),
        ] {
            let fakes = Fakes::new();
            let case = format!("{fault:?}");
            fakes.kv.faults.then([fault]);
            let reply = fakes.put(NAMESPACE, &pairs(&["a", "b", "c"])).await;
            let unsuccessful = reply.map(|reply| reply.unsuccessful).unwrap_or_default();
            assert_eq!(unsuccessful.iter().collect::<Vec<_>>(), listed, "{case}");
            assert_eq!(fakes.kv.keys(), held, "{case}");
        }
    }
}
