//! One run of the exporter: what it was asked for, what it was told, what it did.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use super::{
    Call, Environment, Held, IndexRef, ItemKey, Namespace, Naming, Reconcile, Record, SeenKeys,
    Step, index_of, query_of,
};

/// A record is late when it is older than this.
const LATE_AFTER: f64 = 60.0;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Kind {
    Stream {
        shard: usize,
        batch: Range<usize>,
    },
    #[default]
    ReExport,
    Reconcile(Reconcile),
}

#[derive(Debug, Default)]
pub struct Invocation {
    /// Whose exporter it is.
    pub environment: usize,
    pub kind: Kind,
    pub began: Step,
    /// The wall clock's time when it began, in seconds.
    pub began_at: f64,
    /// Calls so far, by kind.
    pub calls: BTreeMap<Call, u32>,
    pub crashed: bool,
    pub ended: bool,
    /// Whether it stopped because the time was up.
    pub out_of_time: bool,
    /// The services that failed it in any way.
    pub failed_services: BTreeSet<&'static str>,
    /// The longest that a call took, by kind.
    pub slowest: BTreeMap<Call, Duration>,
    /// What all calls to the table took together.
    pub table_time: Duration,
    /// Cells and accounts that were asked for a key and have not answered yet.
    pub unanswered: BTreeSet<(String, String)>,
    pub passes: u32,
    pub table_calls: u32,
    pub kv_reads: u32,
    pub batch: Batch,
    pub seen: SeenKeys,
    pub attempted: BTreeSet<(Namespace, String)>,
    /// Keys of requests that Cloudflare refused for what they hold.
    pub refused: BTreeSet<(Namespace, String)>,
    /// Settings keys, and the version that was written to them first.
    pub first_written: BTreeMap<String, u32>,
    /// Settings keys that it has asked KV to delete.
    pub delete_attempts: BTreeSet<String>,
    /// Settings keys that it deleted and that are not there again by its doing.
    pub deleted: BTreeMap<String, Deleted>,
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
}

/// What the records of a batch ask for.
#[derive(Debug, Default)]
pub struct Batch {
    /// The record that decides, by item.
    pub deciding: BTreeMap<ItemKey, Deciding>,
    /// What the batch's removals name: the index, and the shop ids of its records.
    pub removed: Vec<Naming>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deciding {
    /// Its position in the batch.
    pub position: usize,
    /// Its image's version; `None` for a removal.
    pub version: Option<u32>,
    /// Whether the table took the change long before the invocation began.
    pub late: bool,
    pub created: Option<u64>,
}

impl Batch {
    pub fn new(environment: &Environment, records: &[Record], old_images: bool, now: f64) -> Self {
        let mut batch = Self::default();
        let mut shops: BTreeMap<IndexRef, BTreeSet<String>> = BTreeMap::new();
        for (position, record) in records.iter().enumerate() {
            let Some(item) = &record.item else { continue };
            let old = record.old.as_ref().filter(|_| old_images);
            if let Some(index) = index_of(item) {
                let settings = old.into_iter().chain(&record.new);
                let named = settings.filter_map(|image| image.settings()?.shop.clone());
                shops.entry(index).or_default().extend(named);
            }
            let new = record.new.as_ref();
            let settings = new.and_then(|image| image.settings());
            if settings.is_some_and(|settings| !environment.is_valid(settings)) {
                continue;
            }
            let late = record.created.is_some_and(|created| now - created as f64 > LATE_AFTER);
            let version = new.and_then(|image| image.version());
            let deciding = Deciding { position, version, late, created: record.created };
            if index_of(item).is_some() || query_of(item).is_some() {
                batch.deciding.insert(item.clone(), deciding);
            }
        }
        let removed = batch.deciding.iter().filter(|(_, deciding)| deciding.version.is_none());
        let removed = removed.filter_map(|(item, _)| index_of(item));
        batch.removed = removed
            .map(|index| Naming { shops: shops.remove(&index).unwrap_or_default(), index })
            .collect();
        batch
    }

    /// What an answer of KV that a key holds nothing is taken to hide.
    pub fn removals_naming<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a Naming> {
        self.removed.iter().filter(move |naming| naming.keys().contains(key))
    }
}

impl Invocation {
    pub fn is_stream(&self) -> bool {
        matches!(self.kind, Kind::Stream { .. })
    }

    /// What the metadata of its entries names as their source.
    pub fn source(&self) -> &'static str {
        match self.kind {
            Kind::Stream { .. } => "stream",
            Kind::ReExport => "re-export",
            Kind::Reconcile(_) => "reconcile",
        }
    }

    /// The longest that a call of this kind took.
    pub fn slowest(&self, call: Call) -> Duration {
        self.slowest.get(&call).copied().unwrap_or_default()
    }

    /// What its slowest look took at the most: the table, API keys, and KV for the API keys it holds.
    pub fn look_time(&self) -> Duration {
        self.table_time + self.slowest(Call::ApiKey) + self.slowest(Call::KvRead)
    }

    /// Whether a service other than this one failed it, or its time was too short.
    pub fn was_hindered_but_by(&self, service: &str) -> bool {
        self.out_of_time || self.failed_services.iter().any(|failed| *failed != service)
    }
}
