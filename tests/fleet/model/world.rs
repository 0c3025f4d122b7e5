//! One environment: a fleet, what has changed in it, and what was asked of its services.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use ecom_settings_exporter::item::{Item, ItemKey};
use ecom_settings_exporter::kv::Digest;
use ecom_settings_exporter::ports::Namespace;
use tokio::time::Instant;

use super::{Fleet, Found, Held, ItemId, Limit, Namespaces, Pace, Size};

/// What was asked of the services.
#[derive(Debug, Default)]
pub struct Asked {
    /// When KV was asked, each time.
    pub kv: Vec<Instant>,
    /// The namespace that was listed last, and how many of its pages.
    pub lists: Option<(Namespace, u64)>,
    pub table: u64,
    /// Segments of scans that were begun.
    pub segments: u64,
    /// Bytes that were read by consistent reads, as DynamoDB counts them.
    pub consistent_bytes: u64,
    pub eventual_bytes: u64,
    pub api_keys: u64,
    /// Accounts of which the table was asked for something.
    pub accounts: BTreeSet<String>,
    /// How many keys were written and deleted.
    pub changes: u64,
    /// How many keys were deleted, those that KV lacked left out.
    pub deleted: u64,
    /// How many pairs each request had that wrote to a namespace.
    pub puts: Vec<(Namespace, usize)>,
    /// What was written under a key, and when.
    pub written: BTreeMap<String, Vec<(Instant, Digest)>>,
}

/// How a cell's gateway behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gateway {
    /// It never answers.
    Hangs,
    /// It answers 503.
    Fails,
    /// It refuses accounts whose name ends in 0 at once.
    RefusesSome,
}

/// An environment.
pub struct World {
    pub fleet: Fleet,
    pub namespaces: Namespaces,
    /// Items that were changed, each with its version.
    pub versions: RefCell<BTreeMap<ItemId, u32>>,
    pub limit: Rc<Limit>,
    pub pace: Pace,
    /// Keys in a page of a listing.
    pub page_keys: usize,
    /// What the table reads for one page, in bytes.
    pub page_bytes: usize,
    /// Whether answers say what is left of the limit.
    pub says_what_is_left: bool,
    pub gateways: BTreeMap<String, Gateway>,
    /// Every so many requests to KV are refused with 429; none where this is 0.
    pub refuses_one_in: u64,
    /// Pages of a scan that fail before one is answered again.
    pub throttled: Cell<u32>,
    pub asked: RefCell<Asked>,
    pub began: Instant,
}

impl World {
    pub fn new(size: Size) -> Self {
        Self {
            fleet: Fleet::new(size),
            namespaces: Namespaces::default(),
            versions: RefCell::default(),
            limit: Rc::new(Limit::new()),
            pace: Pace::TEMPLATE,
            page_keys: 1_000,
            page_bytes: 1024 * 1024,
            says_what_is_left: true,
            gateways: BTreeMap::new(),
            refuses_one_in: 0,
            throttled: Cell::new(0),
            asked: RefCell::default(),
            began: Instant::now(),
        }
    }

    /// The wall clock's time.
    pub fn now(&self) -> SystemTime {
        let began = SystemTime::UNIX_EPOCH + Duration::from_millis(1_800_000_000_123);
        began + self.began.elapsed()
    }

    /// Passes over the table that were begun.
    pub fn passes(&self) -> u64 {
        self.asked.borrow().segments.div_ceil(8)
    }

    /// The table's version of an item.
    pub fn version(&self, item: ItemId) -> u32 {
        self.versions.borrow().get(&item).copied().unwrap_or_default()
    }

    /// What the table holds of an item, with only what settling asks for where `claims`.
    pub fn item(&self, item: ItemId, claims: bool) -> (ItemKey, Item) {
        self.fleet.item(item, self.version(item), claims)
    }

    /// Changes an item in the table; answers with its new version.
    pub fn change(&self, item: ItemId) -> u32 {
        let mut versions = self.versions.borrow_mut();
        let version = versions.entry(item).or_default();
        *version += 1;
        *version
    }

    /// All keys of a namespace, each with the digest of what it holds.
    pub fn snapshot(&self, namespace: Namespace) -> BTreeMap<String, Option<Digest>> {
        let blocks = 0..Namespaces::blocks(&self.fleet, namespace);
        let keys = blocks.flat_map(|block| self.namespaces.block(&self.fleet, namespace, block));
        keys.map(|(key, held)| (key, held.digest(&self.fleet))).collect()
    }

    pub fn held(&self, namespace: Namespace, key: &str) -> Option<Held> {
        self.namespaces.get(&self.fleet, namespace, key)
    }

    /// What KV and the table have in common and not, counted without the exporter.
    pub fn compare(&self, namespace: Namespace) -> Found {
        let mut found = Found::default();
        for block in 0..Namespaces::blocks(&self.fleet, namespace) {
            let wanted = self.wanted(namespace, block);
            let held = self.namespaces.block(&self.fleet, namespace, block);
            found.desired += wanted.len() as u64;
            found.listed += held.len() as u64;
            for (key, item) in &wanted {
                let Some(held) = held.get(key) else {
                    found.missing += 1;
                    continue;
                };
                let should = Held::FromTheBeginning(*item, self.version(*item));
                found.stale += u64::from(held.digest(&self.fleet) != should.digest(&self.fleet));
            }
            found.orphaned += held.keys().filter(|key| !wanted.contains_key(*key)).count() as u64;
        }
        found
    }

    /// The keys of a block that the table asks for, each with its item.
    fn wanted(&self, namespace: Namespace, block: usize) -> BTreeMap<String, ItemId> {
        let fleet = &self.fleet;
        match namespace {
            Namespace::Settings => {
                let item = ItemId::settings(block % fleet.indexes());
                let key = match block < fleet.indexes() {
                    true => fleet.index_ref(item.index).index_id(),
                    false => fleet.shop_id(item.index),
                };
                fleet.has_item(item).then_some((key, item)).into_iter().collect()
            }
            Namespace::QueryConfigs => {
                let index_id = fleet.index_ref(block).index_id();
                let items = fleet.hashes().iter().map(|(hash, query)| {
                    (format!("qcfg-{index_id}-{hash}"), ItemId::query_config(block, *query))
                });
                items.filter(|(_, item)| fleet.has_item(*item)).collect()
            }
        }
    }
}
