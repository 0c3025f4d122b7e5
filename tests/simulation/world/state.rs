//! The whole simulated world: the environments, the KV that they write to, the time, and what is
//! left to happen.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{
    Call, Change, Environment, Fault, Held, IndexRef, Invocation, Namespace, Past, Shape, Step,
};
use crate::choices::Choices;

/// The wall clock's time at which a history begins, in seconds.
pub const EPOCH: u64 = 1_795_183_203;

/// How long a dead gateway stays dead.
const DEAD_FOR: Duration = Duration::from_secs(300);

/// How old an answer of KV may be.
pub const MAX_AGE: Duration = Duration::from_secs(60);

pub struct State {
    pub choices: Choices,
    pub shape: Shape,
    pub step: Step,
    /// When each step came.
    times: Vec<Duration>,
    began: Instant,
    pub environments: Vec<Environment>,
    pub kv: BTreeMap<(Namespace, String), Past<Option<Rc<Held>>>>,
    pub invocations: Vec<Invocation>,
    /// KV requests that land after their client gave up: when, and what they do.
    pub late: Vec<(Duration, Vec<Change>)>,
    /// Keys of which the log need not tell what KV holds.
    pub uncertain: BTreeSet<(Namespace, String)>,
    /// The step at which the world was ready.
    pub prepared: Step,
    /// When a consumer was stopped, or got nowhere, from when to when.
    pub stops: Vec<(Duration, Duration)>,
    /// The number of calls that still fail, by environment and service.
    pub outages: BTreeMap<(usize, &'static str), u32>,
    /// In scripted histories, everything that happens at calls.
    pub script: Vec<Planned>,
    pub events_left: u32,
    pub versions: u32,
    /// Nothing fails and nothing is slow any more.
    pub quiet: bool,
    /// Invocations under way.
    pub busy: u32,
    /// What only reconcile is asked to put right.
    pub excused: Excused,
    /// What the last reconcile said.
    pub report: Option<ecom_settings_exporter::export::reconcile::Report>,
    pub stats: Stats,
    pub violation: Option<(&'static str, String)>,
    pub trace: Option<Vec<String>>,
}

/// What a history without reconcile may leave behind.
#[derive(Debug, Default)]
pub struct Excused {
    /// Keys of re-exports that failed half-way.
    pub half_re_exported: BTreeSet<(Namespace, String)>,
    /// Keys that invocations which died after a delete had asked KV to delete.
    pub half_settled: BTreeSet<String>,
    /// Keys put back over what another invocation had written since they were deleted.
    pub put_back_over: BTreeSet<String>,
    /// Indexes of records that were parked, or rejected because Cloudflare refuses a pair or a delete.
    pub left_to_reconcile: BTreeSet<IndexRef>,
    /// Keys of which Cloudflare refuses the pair or the delete of a late record.
    pub refused: BTreeSet<(Namespace, String)>,
    /// Keys of which KV's answer named something else than it held.
    pub misread: BTreeSet<(Namespace, String)>,
    /// Settings keys of which KV said, against the truth, that they hold nothing.
    pub hidden: BTreeSet<String>,
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
    /// KV answers as it was before its last change.
    pub old: bool,
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
    /// Records that came late, and those of them that were parked.
    pub late: u64,
    pub parked: u64,
    /// Answers of KV that were old.
    pub old_answers: u64,
    /// Deletes and rewrites that a brake refused.
    pub refused: u64,
    /// Keys that were written over another environment's.
    pub taken: u64,
}

impl State {
    pub fn new(choices: Choices, shape: Shape) -> Self {
        let names = ["sim", "other"];
        let environment = |name: &&'static str| {
            let default_cell = shape.default_cell.then_some(super::DEFAULT_CELL);
            Environment { default_cell, ..Environment::new(name, shape.shards) }
        };
        Self {
            environments: names[..shape.environments].iter().map(environment).collect(),
            events_left: shape.events,
            choices,
            shape,
            step: 0,
            times: vec![Duration::ZERO],
            began: Instant::now(),
            kv: BTreeMap::new(),
            invocations: Vec::new(),
            late: Vec::new(),
            uncertain: BTreeSet::new(),
            prepared: 0,
            stops: Vec::new(),
            outages: BTreeMap::new(),
            script: Vec::new(),
            versions: 0,
            quiet: false,
            busy: 0,
            excused: Excused::default(),
            report: None,
            stats: Stats { histories: 1, ..Stats::default() },
            violation: None,
            trace: None,
        }
    }

    /// Time since the history began.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The wall clock's time, in seconds.
    pub fn wall_clock(&self) -> f64 {
        EPOCH as f64 + self.now().as_secs_f64()
    }

    pub fn next_step(&mut self) -> Step {
        self.step += 1;
        self.times.push(self.now());
        self.step
    }

    /// The last step that had come by `time`.
    pub fn step_at(&self, time: Duration) -> Step {
        self.times.partition_point(|at| *at <= time) as Step - 1
    }

    pub fn time_of(&self, step: Step) -> Duration {
        self.times[step as usize]
    }

    /// The oldest state of KV that an answer may show now.
    pub fn oldest_visible(&self) -> Step {
        self.step_at(self.now().saturating_sub(MAX_AGE))
    }

    /// The oldest state of KV that an answer to an invocation may show.
    pub fn visible_since_began(&self, invocation: usize) -> Step {
        let began = self.time_of(self.invocations[invocation].began);
        self.step_at(began.saturating_sub(MAX_AGE))
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let now = self.now();
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:9.3} {}", now.as_secs_f64(), text()));
        }
    }

    /// The first violation is the one that counts.
    pub fn violate(&mut self, rule: &'static str, detail: String) {
        self.note(|| format!("VIOLATION of {rule:?}: {detail}"));
        self.violation.get_or_insert((rule, detail));
    }

    /// The environment whose exporter an invocation is.
    pub fn environment_of(&self, invocation: usize) -> &Environment {
        &self.environments[self.invocations[invocation].environment]
    }

    /// An invocation, and its environment.
    pub fn run(&self, invocation: usize) -> (&Invocation, &Environment) {
        (&self.invocations[invocation], self.environment_of(invocation))
    }

    pub fn held(&self, namespace: Namespace, key: &str) -> Option<&Rc<Held>> {
        self.kv.get(&(namespace, key.to_owned()))?.last()?.as_ref()
    }

    pub fn set_held(&mut self, namespace: Namespace, key: &str, held: Option<Rc<Held>>) {
        let step = self.next_step();
        self.kv.entry((namespace, key.to_owned())).or_default().push(step, held);
    }

    /// Lets a request land after its client gave up.
    pub fn land(&mut self, changes: Vec<Change>) {
        for (namespace, key, held) in changes {
            self.note(|| format!("a late request changes {key:?}"));
            self.uncertain.insert((namespace, key.clone()));
            self.set_held(namespace, &key, held);
        }
    }

    /// Whether the other cell's gateway gives nothing at present.
    pub fn is_gateway_dead(&self) -> bool {
        self.shape.dead_gateway && !self.quiet && self.now() < DEAD_FOR
    }

    pub fn is_drained(&self) -> bool {
        self.busy == 0 && self.environments.iter().all(Environment::is_drained)
    }
}
