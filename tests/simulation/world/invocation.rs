//! One run of the exporter: what it was asked for, what it was told, what it did.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use super::{Call, Held, IndexRef, ItemKey, Namespace, Reconcile, Record, SeenKeys, Step};

/// A record is late when it is older than this, in seconds.
const LATE_AFTER: f64 = 60.0;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Stream { shard: usize, batch: Range<usize> },
    ReExport(IndexRef),
    Reconcile(Reconcile),
}

impl Default for Kind {
    fn default() -> Self {
        Self::Stream { shard: 0, batch: 0..0 }
    }
}

#[derive(Debug, Default)]
pub struct Invocation {
    /// Whose exporter it is.
    pub environment: usize,
    pub kind: Kind,
    pub began: Step,
    /// The wall clock's time when it began, in seconds.
    pub began_at: f64,
    pub ended: bool,
    /// Whether it stopped because the time was up.
    pub out_of_time: bool,
    /// The services that failed it in any way.
    pub failed_services: BTreeSet<&'static str>,
    /// The longest that a call took, by kind.
    pub slowest: BTreeMap<Call, Duration>,
    /// What all calls to the table took together.
    pub table_time: Duration,
    /// Cells and accounts for which the API keys service was asked, and gave no key.
    pub without_api_key: BTreeSet<(String, String)>,
    /// Passes over the table that it began.
    pub passes: u32,
    /// What a batch says of its items.
    pub batch: BTreeMap<ItemKey, Told>,
    pub seen: SeenKeys,
    /// Keys that it asked KV to change.
    pub attempted: BTreeSet<(Namespace, String)>,
    /// Whether Cloudflare refused a request for what it holds.
    pub was_refused: bool,
    /// Keys in writes that it refused so.
    pub refused: BTreeSet<(Namespace, String)>,
    /// Settings keys, and the index that each was first written for.
    pub first_written: BTreeMap<String, IndexRef>,
    /// Settings keys that it asked KV to delete.
    pub delete_attempts: BTreeSet<String>,
    /// Settings keys that it deleted, and has not written since.
    pub deleted: BTreeMap<String, Deleted>,
    /// Settings keys that it put back since its last pass began.
    pub put_back: BTreeSet<String>,
    /// Indexes that owned the settings keys that it deleted.
    pub removed: BTreeSet<IndexRef>,
    /// Keys that a reconcile deleted and rewrote, over its whole chain of runs.
    pub done: Done,
}

/// A delete that took effect.
#[derive(Debug, Clone)]
pub struct Deleted {
    pub step: Step,
    /// What the invocation was told that the key held.
    pub was: Option<Rc<Held>>,
    /// Whether it has tried to write the key since.
    pub write_tried: bool,
}

/// What a reconcile's brakes bound.
#[derive(Debug, Clone, Default)]
pub struct Done {
    pub deleted: BTreeMap<Namespace, BTreeSet<String>>,
    pub rewritten: BTreeMap<Namespace, BTreeSet<String>>,
    /// Runs of the chain that died. Each may have used up its brakes.
    pub killed: u64,
}

/// What a batch says of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The position of its last record.
    pub last: usize,
    pub is_removal: bool,
    /// The version of the last record's image, where that can be read.
    pub version: Option<u32>,
    /// When the table took the change, where the last record says it.
    pub created: Option<u64>,
    pub late: bool,
}

/// Returns what the records say of each item, at this time of the wall clock.
pub fn told(records: &[Record], now: f64) -> BTreeMap<ItemKey, Told> {
    let mut batch = BTreeMap::new();
    for (last, record) in records.iter().enumerate() {
        let Some(item) = &record.item else { continue };
        let version = record.new.as_ref().filter(|_| record.is_readable);
        let told = Told {
            last,
            is_removal: record.new.is_none(),
            version: version.and_then(|image| image.version()),
            created: record.created,
            late: record.created.is_some_and(|created| now - created as f64 > LATE_AFTER),
        };
        batch.insert(item.clone(), told);
    }
    batch
}

impl Invocation {
    pub fn is_stream(&self) -> bool {
        matches!(self.kind, Kind::Stream { .. })
    }

    /// Returns what the metadata of its entries names as their source.
    pub fn source(&self) -> &'static str {
        match self.kind {
            Kind::Stream { .. } => "stream",
            Kind::ReExport(_) => "re-export",
            Kind::Reconcile(_) => "reconcile",
        }
    }

    /// Whether it was asked to write this item: by a record of its batch, or by name.
    pub fn is_about(&self, item: &ItemKey, index: &IndexRef) -> bool {
        match &self.kind {
            Kind::Stream { .. } => self.batch.contains_key(item),
            Kind::ReExport(asked) => asked == index,
            Kind::Reconcile(_) => false,
        }
    }

    /// Whether some cell gave no API key for the account.
    pub fn lacks_api_key(&self, account: &str) -> bool {
        self.without_api_key.iter().any(|(_, asked)| asked == account)
    }

    /// Returns the longest that a call of this kind took.
    pub fn slowest(&self, call: Call) -> Duration {
        self.slowest.get(&call).copied().unwrap_or_default()
    }

    /// Returns what its slowest pass took at most: the table, API keys, and KV for the API keys it holds.
    pub fn pass_time(&self) -> Duration {
        self.table_time + self.slowest(Call::ApiKey) + self.slowest(Call::KvRead)
    }

    /// Whether a service other than this one failed it, or its time was too short.
    pub fn was_hindered_but_by(&self, service: &str) -> bool {
        self.out_of_time || self.failed_services.iter().any(|failed| *failed != service)
    }
}
