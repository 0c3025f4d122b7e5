//! The whole simulated world: the environments, the KV that they write to, the time, and what is
//! left to happen.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::{
    Change, Environment, Failure, Held, IndexRef, Invocation, Namespace, Past, Shape, Step,
};
use crate::choices::Choices;

/// The wall clock's time at which a history begins, in seconds.
pub const EPOCH: u64 = 1_795_183_203;

/// How long a dead gateway stays dead.
const DEAD_FOR: Duration = Duration::from_secs(300);

/// How old a response of KV may be.
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
    pub stragglers: Vec<(Duration, Vec<Change>)>,
    /// Keys for which the log need not tell what KV holds.
    pub uncertain: BTreeSet<(Namespace, String)>,
    /// The step at which the world was ready.
    pub prepared: Step,
    /// When a consumer was stopped, or got nowhere, from when to when.
    pub stops: Vec<(Duration, Duration)>,
    /// The number of calls that still fail, by environment and service.
    pub outages: BTreeMap<(usize, &'static str), u32>,
    pub events_left: u32,
    pub versions: u32,
    /// Nothing fails and nothing is slow any more.
    pub quiet: bool,
    /// Invocations under way.
    pub busy: u32,
    /// What only reconcile is asked to put right.
    pub excused: Excused,
    /// What the last reconcile said.
    pub report: serde_json::Value,
    pub counts: Counts,
    pub violation: Option<(&'static str, String)>,
    pub trace: Option<Vec<String>>,
}

/// What a history without reconcile may leave behind.
#[derive(Debug, Default)]
pub struct Excused {
    /// Keys of re-exports that died or failed half-way.
    pub half_re_exported: BTreeSet<(Namespace, String)>,
    /// Keys that invocations which died or failed had asked KV to delete.
    pub half_removed: BTreeSet<String>,
    /// Indexes of records that were parked, or rejected because the API keys service knew no account.
    pub given_up: BTreeSet<IndexRef>,
    /// Keys in requests of late records that Cloudflare refused for what they hold.
    pub refused: BTreeSet<(Namespace, String)>,
    /// Keys that KV said hold nothing, or are another owner's, against the truth.
    pub misread: BTreeSet<(Namespace, String)>,
}

/// How often things happened, by name.
pub type Counts = BTreeMap<&'static str, u64>;

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
            stragglers: Vec::new(),
            uncertain: BTreeSet::new(),
            prepared: 0,
            stops: Vec::new(),
            outages: BTreeMap::new(),
            versions: 0,
            quiet: false,
            busy: 0,
            excused: Excused::default(),
            report: serde_json::Value::Null,
            counts: Counts::from([("histories", 1)]),
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

    /// Returns the last step that had come some time before a step.
    pub fn before(&self, step: Step, time: Duration) -> Step {
        self.step_at(self.time_of(step).saturating_sub(time))
    }

    pub fn time_of(&self, step: Step) -> Duration {
        self.times[step as usize]
    }

    /// The oldest state of KV that a response may show now.
    pub fn oldest_visible(&self) -> Step {
        self.step_at(self.now().saturating_sub(MAX_AGE))
    }

    /// The oldest state of KV that a response to an invocation may show.
    pub fn visible_since_began(&self, invocation: usize) -> Step {
        self.before(self.invocations[invocation].began, MAX_AGE)
    }

    pub fn note(&mut self, text: impl FnOnce() -> String) {
        let now = self.now();
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:9.3} {}", now.as_secs_f64(), text()));
        }
    }

    pub fn count(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
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
            self.note(|| format!("a straggler changes {key:?}"));
            self.uncertain.insert((namespace, key.clone()));
            self.set_held(namespace, &key, held);
        }
    }

    /// Returns how the other cell's gateway fails at present.
    pub fn gateway_failure(&self) -> Option<Failure> {
        let is_dead = !self.quiet && self.now() < DEAD_FOR;
        self.shape.dead_gateway.filter(|_| is_dead)
    }

    pub fn is_drained(&self) -> bool {
        self.busy == 0 && self.environments.iter().all(Environment::is_drained)
    }
}
