//! The services in memory for the unit tests of `src/export`. A call succeeds unless a fault is
//! scripted for it; each call takes the next entry of its service's script.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::api_keys::{ApiKeys, BATCH_TIME_FOR_API_KEYS, Exportable, Patience, Reuse};
use super::invocation::Invocation;
use super::memory::{Backend, Change, Listing, Memory, Part, config, table_page};
pub use super::memory::{Keys, KvFault};
use crate::config::ExporterConfig;
use crate::index::IndexRef;
use crate::item::{IndexSettings, Item, ItemKey};
use crate::kv::limits::MAX_LIST_KEYS;
use crate::kv::{Entry, Metadata, Pair, Source, Stamp, StoredValue};
use crate::ports::{
    ApiKeyError, ApiKeyService, Cause, Clock, KvError, ListPage, Namespace, TableError, TablePage,
};

/// How long an invocation has.
pub const TIME_LEFT: Duration = Duration::from_secs(60);

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

/// Stands still, and waits half of each back-off's ceiling.
impl Clock for Scripted {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn jitter(&self) -> f64 {
        0.5
    }
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

    async fn read_request(&self, keys: &[String]) -> Result<(), KvError> {
        self.requests.borrow_mut().push(keys.to_vec());
        match self.faults.next() {
            None => Ok(()),
            Some(fault) => fault.end().await,
        }
    }
}

impl Backend for Scripted {
    type Held = StoredValue;

    fn held(_namespace: Namespace, entry: &Entry) -> StoredValue {
        entry.to_stored()
    }

    async fn write(
        &self,
        _namespace: Namespace,
        changes: &[Change<StoredValue>],
    ) -> Option<KvFault> {
        let keys = changes.iter().map(|(key, _)| key.clone()).collect();
        self.kv.requests.borrow_mut().push(keys);
        self.kv.faults.next()
    }

    fn change(&self, _namespace: Namespace, key: String, held: Option<StoredValue>) {
        let mut all = self.kv.held.borrow_mut();
        drop(match held {
            Some(held) => all.insert(key, held),
            None => all.remove(&key),
        });
    }

    async fn read(
        &self,
        _namespace: Namespace,
        keys: &[String],
    ) -> Result<BTreeMap<String, StoredValue>, KvError> {
        self.kv.read_request(keys).await?;
        let held = self.kv.held.borrow();
        Ok(keys.iter().filter_map(|key| Some((key.clone(), held.get(key)?.clone()))).collect())
    }

    async fn list(&self, of: Listing<'_>) -> Result<ListPage, KvError> {
        self.kv.read_request(&[]).await?;
        let held = self.kv.held.borrow().clone();
        let metadata = |_: &str, stored: StoredValue| {
            Some(stored.metadata.and_then(|json| Metadata::parse(json.get())))
        };
        Ok(of.page(held, MAX_LIST_KEYS, metadata))
    }

    async fn items(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, TableError> {
        match self.table.changes.next() {
            None => {}
            Some(TableChange::Put(item)) => self.table.put(item),
            Some(TableChange::Remove(key)) => drop(self.table.items.borrow_mut().remove(&key)),
            Some(TableChange::Fails) => {
                let cause = Cause::new("down");
                return Err(TableError { operation: "BatchGetItem", throttled: false, cause });
            }
        }
        let items = self.table.items.borrow();
        Ok(keys.iter().filter_map(|key| Some((key.clone(), items.get(key)?.clone()))).collect())
    }

    /// All in one page. The first segment of a scan has everything.
    async fn page(&self, part: Part<'_>, after: Option<&ItemKey>) -> Result<TablePage, TableError> {
        let items = self.table.items.borrow();
        let has = |key: &ItemKey| match part {
            Part::Segment { segment, .. } => segment == 0,
            part => part.has(key),
        };
        let entries = items.iter().filter(|(key, _)| after < Some(*key) && has(key));
        let item = |(key, item): &(&ItemKey, &Item)| Some(((*key).clone(), (*item).clone()));
        Ok(table_page(entries, usize::MAX, |_| 1, |(key, _)| (*key).clone(), item))
    }
}

/// The API keys service: the key of every account is `k`.
#[derive(Default)]
pub struct FakeApiKeys {
    pub faults: Script<ApiKeyError>,
    /// How long the answers for these accounts take.
    pub delays: RefCell<BTreeMap<String, Duration>>,
}

impl ApiKeyService for Scripted {
    async fn fetch(&self, _cell: &str, account: &str) -> Result<SecretString, ApiKeyError> {
        let delay = self.api_keys.delays.borrow().get(account).copied();
        tokio::time::sleep(delay.unwrap_or_default()).await;
        self.api_keys.faults.next().map_or_else(|| Ok("k".into()), Err)
    }
}

/// A gateway that is down; trying at once may help.
pub fn down() -> ApiKeyError {
    ApiKeyError::Silent(Cause::new("down"))
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
    let entry = Rc::new(Entry::new(r#"{"x":1}"#, &index("i"), &stamp));
    keys.iter().map(|key| Pair { key: (*key).to_owned(), entry: Rc::clone(&entry) }).collect()
}

/// The rules that all tests share, held here: the exporter survives most of what breaks them.
mod rules {
    use super::*;
    use crate::ports::{KvStore, Query, ScanColumns, Services, SettingsTable};

    const NAMESPACE: Namespace = Namespace::Settings;

    #[tokio::test]
    async fn a_page_of_a_listing_begins_after_its_cursor_and_has_only_keys_with_the_prefix() {
        let fakes = Fakes::new();
        let names = (0..1_500).map(|number| format!("b{number:04}"));
        let names: Vec<String> = ["a".to_owned()].into_iter().chain(names).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).chain(["c"]).collect();
        fakes.put(NAMESPACE, &pairs(&names)).await.unwrap();
        let of = Listing { namespace: NAMESPACE, prefix: "b", cursor: None };
        let first = fakes.0.list(of).await.unwrap();
        let cursor = first.cursor.as_deref();
        let second = fakes.0.list(Listing { cursor, ..of }).await.unwrap();
        assert_eq!((cursor, second.cursor), (Some("b0999"), None));
        let listed: Vec<_> =
            first.keys.into_iter().chain(second.keys).map(|(key, _)| key).collect();
        assert_eq!(listed, names[1..=1_500]);
    }

    #[tokio::test]
    async fn of_a_faulty_request_the_keys_are_done_that_the_fault_says() {
        let error = || KvError::Refused(Cause::new("scripted"));
        let (done, none): (&[&str], &[&str]) = (&["a", "b", "c"], &[]);
        for (fault, listed, held) in [
            (KvFault::Fails(error()), none, none),
            (KvFault::IsDoneAndFails(Keys::All, error()), none, done),
            (KvFault::IsDoneAndFails(Keys::EverySecond, error()), none, &["a", "c"]),
            (KvFault::ListsAsUnsuccessful(Keys::EverySecond), &["a", "c"], &["b"]),
            (KvFault::ListsAsUnsuccessful(Keys::Named(&["b", "z"])), &["b", "z"], &["a", "c"]),
            (KvFault::IsDoneAndListsAsUnsuccessful(Keys::All), done, done),
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

    #[tokio::test]
    async fn a_read_of_the_table_has_what_it_asks_for_and_nothing_else() {
        let fakes = Fakes::new();
        let items: Vec<_> =
            (0..250).map(|number| index_item(&format!("i{number}"), &json!({}))).collect();
        items.iter().cloned().for_each(|item| fakes.table.put(item));
        let keys: Vec<ItemKey> = items.into_iter().map(|(key, _)| key).collect();
        let table = fakes.table();
        assert_eq!(SettingsTable::get(table, &keys).await.unwrap().len(), 250);
        let of_index = Query::ConfigsOf(&index("i1"));
        assert!(table.query(of_index, None).await.unwrap().items.is_empty());
        for (account, items) in [("a", 250), ("b", 0)] {
            assert_eq!(
                table.query(Query::Account(account), None).await.unwrap().items.len(),
                items
            );
        }
        let columns = ScanColumns::All;
        let has = |key, segment| Part::Segment { columns, segment, segments: 3 }.has(key);
        for key in &keys {
            assert_eq!((0..3).filter(|segment| has(key, *segment)).count(), 1, "{key}");
        }
    }

    #[test]
    fn what_a_page_leaves_out_is_read_all_the_same() {
        let item = |number: &i32| index_item(&number.to_string(), &json!({}));
        let page = |from| {
            let shown = |number: &i32| (*number != 1).then(|| item(number));
            let page = table_page(from..5, 2, |_| 1, |number| item(number).0, shown);
            (page.items.len(), page.last_read)
        };
        assert_eq!(page(0), (1, Some(item(&1).0)));
        assert_eq!(page(3), (2, None));
    }
}
