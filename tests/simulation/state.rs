//! The simulated world without its clock: the table with its stream, KV, the API keys, and what is
//! left to happen.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use ecom_settings_exporter::index::IndexRef;
use ecom_settings_exporter::item::ItemKey;
use ecom_settings_exporter::ports::Namespace;

use crate::choices::Choices;
use crate::faults::{Call, Fault};
use crate::held::{Change, Held};
use crate::keys::{index_of, item_key};
use crate::model::{Image, Settings};
use crate::past::{Past, Step};
use crate::shape::Shape;

pub struct State {
    pub choices: Choices,
    pub shape: Shape,
    pub step: Step,
    /// Items by key; `None` while an item does not exist.
    pub table: BTreeMap<ItemKey, Past<Option<Rc<Image>>>>,
    pub kv: BTreeMap<(Namespace, String), Past<Option<Rc<Held>>>>,
    pub shards: Vec<Shard>,
    /// The API keys that each account has had.
    pub api_keys: BTreeMap<String, Past<String>>,
    pub keyless: BTreeSet<String>,
    pub invocations: Vec<Invocation>,
    pub re_exports: Vec<(IndexRef, bool)>,
    /// Reconciles to come; whether each repairs.
    pub reconciles: Vec<bool>,
    /// KV requests that land after their client gave up: keys and what they do to them.
    pub late: Vec<Vec<Change>>,
    /// Keys that only a reconcile must repair.
    pub tainted: BTreeSet<(Namespace, String)>,
    /// Keys deleted by invocations that then died or failed.
    pub half_done: BTreeSet<String>,
    /// Keys put back over what another invocation had written since they were deleted.
    pub put_back_over: BTreeSet<String>,
    /// The number of calls that still fail, by service.
    pub outages: BTreeMap<&'static str, u32>,
    /// In scripted histories, everything that happens at calls.
    pub script: Vec<Planned>,
    pub events_left: u32,
    pub versions: u32,
    /// Nothing fails and nothing is slow any more.
    pub quiet: bool,
    /// Invocations under way.
    pub busy: u32,
    /// What the last reconcile said.
    pub report: Option<ecom_settings_exporter::export::reconcile::Report>,
    pub stats: Stats,
    pub violation: Option<(&'static str, String)>,
    pub trace: Option<Vec<String>>,
}

/// What happens at the `nth` call of this kind in an invocation.
pub struct Planned {
    pub invocation: usize,
    pub call: Call,
    pub nth: u32,
    /// Happens before the call.
    pub event: Option<fn(&mut State)>,
    /// Everything else overtakes the call.
    pub overtaken: bool,
    pub fault: Fault,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    pub histories: u64,
    pub steps: u64,
    pub faults: u64,
    pub crashes: u64,
    pub changes: u64,
    pub invocations: u64,
    pub withheld: u64,
    pub restored: u64,
    pub reused: u64,
}

#[derive(Debug, Default)]
pub struct Shard {
    pub records: Vec<Record>,
    pub checkpoint: usize,
}

#[derive(Debug)]
pub struct Record {
    pub number: String,
    pub json: String,
    /// `None` for garbage.
    pub item: Option<ItemKey>,
    pub old: Option<Rc<Image>>,
    pub new: Option<Rc<Image>>,
}

/// One run of the exporter.
#[derive(Debug, Default)]
pub struct Invocation {
    pub began: Step,
    pub is_stream: bool,
    /// Calls so far, by kind.
    pub calls: BTreeMap<Call, u32>,
    pub crashed: bool,
    /// Whether it stopped because the time was up.
    pub out_of_time: bool,
    /// The services that failed it in any way.
    pub failed_services: BTreeSet<&'static str>,
    /// Cells and accounts that were asked for a key and have not answered yet.
    pub unanswered: BTreeSet<(String, String)>,
    pub passes: u32,
    pub table_calls: u32,
    pub kv_reads: u32,
    /// Index images of the batch.
    pub images: BTreeSet<u32>,
    pub attempted: BTreeSet<(Namespace, String)>,
    /// Settings keys, and the version that was written to them first.
    pub first_written: BTreeMap<String, u32>,
    pub deleted: BTreeMap<String, (Step, Rc<Held>)>,
    pub deletes: BTreeSet<String>,
    /// Settings keys that it deleted and has not written since, with the step of the delete.
    pub deleted_at: BTreeMap<String, Step>,
}

impl State {
    pub fn new(choices: Choices, shape: Shape, shards: Vec<Shard>) -> Self {
        let events_left = shape.events;
        Self {
            choices,
            shape,
            step: 0,
            table: BTreeMap::new(),
            kv: BTreeMap::new(),
            shards,
            api_keys: BTreeMap::new(),
            keyless: BTreeSet::new(),
            invocations: Vec::new(),
            re_exports: Vec::new(),
            reconciles: Vec::new(),
            late: Vec::new(),
            tainted: BTreeSet::new(),
            half_done: BTreeSet::new(),
            put_back_over: BTreeSet::new(),
            outages: BTreeMap::new(),
            script: Vec::new(),
            events_left,
            versions: 0,
            quiet: false,
            busy: 0,
            report: None,
            stats: Stats { histories: 1, ..Stats::default() },
            violation: None,
            trace: None,
        }
    }

    pub fn next_step(&mut self) -> Step {
        self.step += 1;
        self.step
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(text());
        }
    }

    /// The first violation is the one that counts.
    pub fn violate(&mut self, rule: &'static str, detail: String) {
        self.note(|| format!("VIOLATION of {rule:?}: {detail}"));
        self.violation.get_or_insert((rule, detail));
    }

    pub fn held(&self, namespace: Namespace, key: &str) -> Option<&Rc<Held>> {
        self.kv.get(&(namespace, key.to_owned()))?.last()?.as_ref()
    }

    pub fn set_held(&mut self, namespace: Namespace, key: &str, held: Option<Rc<Held>>) {
        let step = self.next_step();
        self.kv.entry((namespace, key.to_owned())).or_default().push(step, held);
    }

    pub fn current(&self, key: &ItemKey) -> Option<&Rc<Image>> {
        self.table.get(key)?.last()?.as_ref()
    }

    /// What an index is at present.
    pub fn current_settings(&self, index: &IndexRef) -> Option<&Settings> {
        self.current(&item_key(index)).and_then(|image| image.settings())
    }

    /// All indexes that ever existed, with all their images.
    pub fn indexes(&self) -> impl Iterator<Item = (IndexRef, &Past<Option<Rc<Image>>>)> {
        self.table.iter().filter_map(|(key, past)| Some((index_of(key)?, past)))
    }

    pub fn past_of(&self, index: &IndexRef) -> Option<&Past<Option<Rc<Image>>>> {
        self.table.get(&item_key(index))
    }

    /// Whether the item can be exported: it is valid, and its account has an API key.
    pub fn exportable(&self, index: &IndexRef, settings: &Settings) -> bool {
        settings.is_valid() && !self.keyless.contains(&index.account)
    }

    /// Lets a request land after its client gave up.
    pub fn land(&mut self, changes: Vec<Change>) {
        for (namespace, key, held) in changes {
            self.note(|| format!("a late request changes {key:?}"));
            self.set_held(namespace, &key, held);
        }
    }

    pub fn is_drained(&self) -> bool {
        self.busy == 0
            && self.re_exports.is_empty()
            && self.reconciles.is_empty()
            && self.shards.iter().all(|shard| shard.checkpoint == shard.records.len())
    }
}
