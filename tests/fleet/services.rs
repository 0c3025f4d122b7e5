//! A fleet's table and KV, what is asked of them, and how long they take. Time is tokio's paused clock.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use ecom_settings_exporter::item::{Item, ItemKey};
use ecom_settings_exporter::kv::{Digest, Metadata, Namespace, Source, StoredValue};
use ecom_settings_exporter::lambda::Handler;
use ecom_settings_exporter::ports::{
    ApiKeyService, Clock, ErrorKind, ScanColumns, Service, ServiceError, TablePage, TablePart,
};
use secrecy::SecretString;
use tokio::time::{Instant, sleep};

use super::items::{Drift, ItemId, Size, Version, api_key};
use super::memory::{
    Backend, Change, KvFault, KvRequest, Memory, Row, config, part_has, table_page,
};

/// The version that KV holds of a stale item. The table's versions count from 0.
const STALE: u32 = 999;

/// What the function's share of a CPU, at 256 MB, takes for an item or a listed key.
const WORK: Duration = Duration::from_micros(50);

/// What KV holds under a key.
#[derive(Debug, Clone)]
pub enum Held {
    Before(Version),
    Written(StoredValue),
}

/// What requests take.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// A page of a KV listing.
    pub list: Duration,
    /// Any other request to KV.
    pub kv: Duration,
    /// A page of the table.
    pub page: Duration,
    pub api_key: Duration,
}

/// What was asked of the services.
#[derive(Debug, Default)]
pub struct Asked {
    /// When KV was asked, each time.
    pub kv: Vec<Instant>,
    pub table: u64,
    /// Bytes read in pages.
    pub table_bytes: usize,
    pub passes: u64,
    pub api_keys: u64,
    /// Accounts that the table was asked about, without a scan.
    pub accounts: BTreeSet<String>,
    /// How many keys were written, and how many were deleted that KV had.
    pub written: u64,
    pub deleted: u64,
}

/// What a reconcile of everything has to find.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Found {
    pub desired: u64,
    pub listed: u64,
    pub missing: u64,
    pub stale: u64,
    pub orphaned: u64,
}

pub struct World {
    pub size: Size,
    pub table: RefCell<BTreeMap<ItemKey, Version>>,
    pub kv: RefCell<BTreeMap<(Namespace, String), Held>>,
    pub pace: Pace,
    /// Keys in a page of a listing.
    pub page_keys: usize,
    /// What the table reads for a page, in bytes.
    pub page_bytes: usize,
    /// The gateways that give nothing, and how long they take for that.
    pub silent_cells: BTreeMap<String, Duration>,
    /// Pages of a scan that fail before one succeeds again.
    pub throttled: Cell<u32>,
    pub asked: RefCell<Asked>,
    pub began: Instant,
}

impl World {
    pub fn new(size: Size) -> Self {
        let world = Self {
            size,
            table: RefCell::default(),
            kv: RefCell::default(),
            pace: Pace {
                list: Duration::from_millis(200),
                kv: Duration::from_millis(300),
                page: Duration::from_millis(100),
                api_key: Duration::from_millis(20),
            },
            page_keys: 1_000,
            page_bytes: 1024 * 1024,
            silent_cells: BTreeMap::new(),
            throttled: Cell::new(0),
            asked: RefCell::default(),
            began: Instant::now(),
        };
        size.items().for_each(|id| world.begin_with(id));
        world
    }

    /// Puts an item into the table and into KV, with its drift.
    fn begin_with(&self, id: ItemId) {
        let current = Version { id, version: 0 };
        let drift = self.size.drift(id);
        let mut keys = self.size.kv_keys(id);
        if id.query.is_none() || drift != Some(Drift::Orphaned) {
            self.put(current);
        }
        let stale = Version { id, version: STALE };
        match drift {
            Some(Drift::Missing) => drop(keys.remove(0)),
            Some(Drift::Stale) => self.hold(&keys.pop().expect("a key"), stale),
            Some(Drift::Orphaned) if id.query.is_none() => {
                let previous = keys[1].replace("example", "previous");
                self.hold(&previous, stale);
            }
            Some(Drift::Orphaned) | None => {}
        }
        keys.iter().for_each(|key| self.hold(key, current));
    }

    pub fn put(&self, version: Version) {
        self.table.borrow_mut().insert(self.size.item_ref(version.id).key(), version);
    }

    fn hold(&self, key: &str, version: Version) {
        let namespace = self.size.item_ref(version.id).namespace();
        self.kv.borrow_mut().insert((namespace, key.to_owned()), Held::Before(version));
    }

    /// Takes all items of these indexes out of the table.
    pub fn lose(&self, indexes: std::ops::Range<usize>) {
        self.table.borrow_mut().retain(|_, version| !indexes.contains(&version.id.index));
    }

    /// Returns what KV and the table have in common and not, counted without the exporter.
    pub fn compare(&self, namespace: Namespace) -> Found {
        let mut wanted = BTreeMap::new();
        for version in self.table.borrow().values() {
            if self.size.item_ref(version.id).namespace() == namespace {
                let keys = self.size.kv_keys(version.id).into_iter();
                wanted.extend(keys.map(|key| (key, *version)));
            }
        }
        let kv = self.kv.borrow();
        let held = || kv.iter().filter(|((found, _), _)| *found == namespace);
        let mut found = Found {
            desired: wanted.len() as u64,
            listed: held().count() as u64,
            ..Found::default()
        };
        for ((_, key), held) in held() {
            match wanted.remove(key) {
                None => found.orphaned += 1,
                Some(version) => found.stale += u64::from(!self.is_of(held, version)),
            }
        }
        found.missing = wanted.len() as u64;
        found
    }

    fn is_of(&self, held: &Held, version: Version) -> bool {
        match held {
            Held::Before(before) => *before == version,
            Held::Written(stored) => stored.value == self.size.value(version),
        }
    }

    fn stored(&self, held: &Held) -> StoredValue {
        match held {
            Held::Written(stored) => stored.clone(),
            Held::Before(version) => {
                let value = self.size.value(*version);
                let metadata = self.metadata_of(*version, &value);
                StoredValue::new(value, metadata)
            }
        }
    }

    fn metadata_of(&self, version: Version, value: &str) -> Metadata {
        Metadata {
            index: self.size.item_ref(version.id).index,
            environment: Some(ENVIRONMENT.to_owned()),
            digest: Some(Digest::of(value.as_bytes())),
            exported_at: Some("2026-11-20T10:00:00Z".to_owned()),
            changed_at: None,
            source: Some(Source::Stream),
        }
    }
}

pub const ENVIRONMENT: &str = "fleet";

/// What one process sees of its world.
pub struct Ports {
    pub world: Rc<World>,
    chance: Cell<u64>,
}

/// Starts a process of the function.
pub fn process(world: &Rc<World>) -> Handler<Memory<Ports>> {
    let ports = Ports { world: Rc::clone(world), chance: Cell::new(0) };
    Handler::new(Memory(ports), config(ENVIRONMENT))
}

impl Backend for Ports {
    async fn ask_kv(&self, _: Namespace, request: KvRequest<'_>) -> Option<KvFault> {
        self.world.asked.borrow_mut().kv.push(Instant::now());
        let Pace { list, kv, .. } = self.world.pace;
        let (takes, keys) = match request {
            KvRequest::Write(changes) => (kv, changes.len()),
            KvRequest::Read(keys) => (kv, keys.len()),
            KvRequest::List => (list, self.world.page_keys),
        };
        sleep(takes + WORK * u32::try_from(keys).expect("a page")).await;
        None
    }

    fn change(&self, namespace: Namespace, (key, stored): Change) {
        let mut kv = self.world.kv.borrow_mut();
        let mut asked = self.world.asked.borrow_mut();
        match stored {
            Some(stored) => {
                asked.written += 1;
                kv.insert((namespace, key), Held::Written(stored));
            }
            None => asked.deleted += u64::from(kv.remove(&(namespace, key)).is_some()),
        }
    }

    fn held(&self, namespace: Namespace, key: &str) -> Option<StoredValue> {
        let kv = self.world.kv.borrow();
        kv.get(&(namespace, key.to_owned())).map(|held| self.world.stored(held))
    }

    /// Without the value's and the metadata's JSON, which a listing does not show.
    fn listed(&self, namespace: Namespace, key: &str) -> Option<Option<Metadata>> {
        match self.world.kv.borrow().get(&(namespace, key.to_owned()))? {
            Held::Written(stored) => Some(stored.metadata()),
            Held::Before(version) => {
                let value = self.world.size.value(*version);
                Some(Some(self.world.metadata_of(*version, &value)))
            }
        }
    }

    fn keys_from(&self, namespace: Namespace, first: &str, most: usize) -> Vec<String> {
        let kv = self.world.kv.borrow();
        let keys = kv.range((namespace, first.to_owned())..).map(|(key, _)| key);
        let keys = keys.take_while(|(found, _)| *found == namespace).take(most);
        keys.map(|(_, key)| key.clone()).collect()
    }

    fn page_keys(&self) -> usize {
        self.world.page_keys
    }

    async fn items(&self, keys: &[ItemKey]) -> Result<BTreeMap<ItemKey, Item>, ServiceError> {
        let world = &self.world;
        world.asked.borrow_mut().table += 1;
        sleep(world.pace.page).await;
        world.asked.borrow_mut().accounts.extend(keys.iter().map(|key| key.pk.clone()));
        let table = world.table.borrow();
        let versions = keys.iter().filter_map(|key| table.get(key));
        Ok(versions.map(|version| world.size.item(*version, false)).collect())
    }

    async fn page(
        &self,
        part: TablePart<'_>,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, ServiceError> {
        let world = &self.world;
        world.asked.borrow_mut().table += 1;
        let mut claims = false;
        if let TablePart::Segment { columns, segment, .. } = part {
            claims = columns == ScanColumns::Claims;
            if let Some(left) = world.throttled.get().checked_sub(1) {
                world.throttled.set(left);
                sleep(world.pace.page).await;
                let kind = ErrorKind::Transient;
                return Err(ServiceError::new(Service::Table, kind, "throttled"));
            }
            let is_first = segment == 0 && after.is_none();
            world.asked.borrow_mut().passes += u64::from(is_first);
        }
        let (page, bytes) = {
            let table = world.table.borrow();
            let first = after.map_or(Bound::Unbounded, Bound::Excluded);
            let mut bytes = 0;
            let rows = table.range::<ItemKey, _>((first, Bound::Unbounded));
            let rows = rows.filter(|(key, _)| part_has(part, key)).map(|(key, version)| {
                let is_shown = !claims || version.id.query.is_none();
                let item = is_shown.then(|| world.size.item(*version, claims).1);
                bytes += world.size.bytes(version.id);
                Row { key: key.clone(), bytes: world.size.bytes(version.id), item }
            });
            (table_page(rows, world.page_bytes), bytes)
        };
        world.asked.borrow_mut().table_bytes += bytes;
        sleep(world.pace.page + WORK * u32::try_from(page.items.len()).expect("a page")).await;
        Ok(page)
    }
}

impl Clock for Ports {
    fn now(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + self.world.began.elapsed()
    }

    fn jitter(&self) -> f64 {
        self.chance.set((self.chance.get() + 37) % 100);
        self.chance.get() as f64 / 100.0
    }
}

impl ApiKeyService for Ports {
    async fn fetch(&self, cell: &str, account: &str) -> Result<SecretString, ServiceError> {
        self.world.asked.borrow_mut().api_keys += 1;
        let silent = self.world.silent_cells.get(cell);
        sleep(*silent.unwrap_or(&self.world.pace.api_key)).await;
        match silent {
            Some(_) => Err(ServiceError::new(Service::ApiKeys, ErrorKind::Transient, "no API key")),
            None => Ok(api_key(account).into()),
        }
    }
}
