//! One run of the exporter: what it was asked for, what it was told, what it did.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use ecom_settings_exporter::kv::Source;

use super::{Held, Image, IndexRef, ItemKey, KvKey, Namespace, Reconcile, Step};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    Stream { shard: usize, batch: Range<usize> },
    ReExport(IndexRef),
    Reconcile(Reconcile),
}

#[derive(Debug)]
pub struct Invocation {
    /// Whose exporter it is.
    pub environment: usize,
    pub kind: Kind,
    pub began: Step,
    /// The items of its batch, and the images of their last records; `None` for a removal.
    pub batch: BTreeMap<ItemKey, Option<Rc<Image>>>,
    /// Whether a call to the table failed.
    pub table_failed: bool,
    /// What all calls to the table took together.
    pub table_time: Duration,
    /// Cells and accounts for which the API keys service was asked, and gave no key.
    pub without_api_key: BTreeSet<(String, String)>,
    /// Cells and accounts whose API key was given. Others may not even have been asked for: their time was up.
    pub with_api_key: BTreeSet<(String, String)>,
    /// What KV has told it of each key. Responses may be stale, so this is what it has to be judged by.
    pub seen: BTreeMap<KvKey, Seen>,
    /// The first step that a listing of each namespace may have shown.
    pub listed_from: BTreeMap<Namespace, Step>,
    /// Whether it asked KV to change anything.
    pub wrote: bool,
    /// Keys that it asked KV to delete.
    pub delete_attempts: BTreeSet<KvKey>,
    /// Settings keys that it deleted, and has not written since.
    pub deleted: BTreeMap<KvKey, Deleted>,
    /// Settings keys that it put back since its last pass began.
    pub put_back: BTreeSet<KvKey>,
    /// Indexes that owned the settings keys that it deleted.
    pub removed: BTreeSet<IndexRef>,
    /// Keys that a reconcile deleted and rewrote, over its whole chain of runs.
    pub done: Done,
}

/// What was told about one key.
#[derive(Debug)]
pub struct Seen {
    /// The first step at which the key may have been as it was told.
    pub from: Step,
    /// What was told, and what the invocation wrote itself; `None` for nothing there.
    pub told: Vec<Option<Rc<Held>>>,
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
    pub deleted: BTreeSet<KvKey>,
    pub rewritten: BTreeSet<KvKey>,
    /// Keys that it wrote where it had been told of nothing.
    pub added: BTreeSet<KvKey>,
    /// Runs of the chain that died. Each may have used up its brakes.
    pub killed: u64,
}

impl Invocation {
    pub fn new(environment: usize, kind: Kind, began: Step) -> Self {
        Self {
            environment,
            kind,
            began,
            batch: BTreeMap::new(),
            table_failed: false,
            table_time: Duration::ZERO,
            without_api_key: BTreeSet::new(),
            with_api_key: BTreeSet::new(),
            seen: BTreeMap::new(),
            listed_from: BTreeMap::new(),
            wrote: false,
            delete_attempts: BTreeSet::new(),
            deleted: BTreeMap::new(),
            put_back: BTreeSet::new(),
            removed: BTreeSet::new(),
            done: Done::default(),
        }
    }

    /// Returns what the metadata of its entries names as their source.
    pub fn source(&self) -> Source {
        match self.kind {
            Kind::Stream { .. } => Source::Stream,
            Kind::ReExport(_) => Source::ReExport,
            Kind::Reconcile(_) => Source::Reconcile,
        }
    }

    /// Whether it was asked to write this item: by a record of its batch, or by name.
    pub fn is_about(&self, item: &ItemKey) -> bool {
        match &self.kind {
            Kind::Stream { .. } => self.batch.contains_key(item),
            Kind::ReExport(asked) => item.item().is_some_and(|item| item.index == *asked),
            Kind::Reconcile(_) => false,
        }
    }

    /// Whether some cell gave no API key for the account, or this one was not asked.
    pub fn lacks_api_key(&self, cell: &str, account: &str) -> bool {
        let is_without = self.without_api_key.iter().any(|(_, asked)| asked == account);
        is_without || !self.with_api_key.contains(&(cell.to_owned(), account.to_owned()))
    }

    /// Notes what was told about a key, which may have been so since `from`.
    pub fn see(&mut self, key: &KvKey, from: Step, held: Option<Rc<Held>>) {
        let seen = self.seen.entry(key.clone());
        seen.or_insert_with(|| Seen { from, told: Vec::new() }).told.push(held);
    }

    pub fn told(&self, key: &KvKey) -> &[Option<Rc<Held>>] {
        self.seen.get(key).map_or(&[], |seen| &seen.told)
    }

    /// Returns the first step at which it may have seen the key; `now` if it never looked.
    pub fn seen_from(&self, key: &KvKey, now: Step) -> Step {
        let read = self.seen.get(key).map(|seen| seen.from);
        let listed = self.listed_from.get(&key.namespace).copied();
        read.into_iter().chain(listed).min().unwrap_or(now)
    }
}
