//! The whole simulated world: the environments, the KV that they write to, the time, and what is
//! left to happen.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ecom_settings_exporter::ports::ErrorKind;
use tokio::time::Instant;

use super::{Environment, Held, Image, Invocation, ItemKey, KvKey, Past, Shape, Step};
use crate::choices::Choices;

/// The wall clock's time at which a history begins, in seconds.
pub const EPOCH: u64 = 1_795_183_203;

/// How long a dead gateway stays dead.
const DEAD_FOR: Duration = Duration::from_secs(300);

/// How old a response of KV may be.
pub const MAX_AGE: Duration = Duration::from_secs(60);

/// What a request to KV changes.
pub type Changes = Vec<(KvKey, Option<Rc<Held>>)>;

pub struct State {
    pub choices: Choices,
    pub shape: Shape,
    pub step: Step,
    /// When each step came.
    times: Vec<Duration>,
    began: Instant,
    pub environments: Vec<Environment>,
    pub kv: BTreeMap<KvKey, Past<Option<Rc<Held>>>>,
    pub invocations: Vec<Invocation>,
    /// KV requests that land after their client gave up: when, and what they do.
    pub stragglers: Vec<(Duration, Changes)>,
    /// The step at which the world was ready.
    pub prepared: Step,
    /// When a consumer was stopped, or got nowhere, from when to when.
    pub stops: Vec<(Duration, Duration)>,
    /// The number of calls that still fail, by environment and service.
    pub outages: BTreeMap<(usize, &'static str), u32>,
    pub events_left: u32,
    versions: u32,
    /// Nothing fails and nothing is slow any more.
    pub quiet: bool,
    /// Invocations under way.
    pub busy: u32,
    /// Whether something happened that only a repair is asked to put right.
    pub needs_repair: bool,
    pub counts: Counts,
    pub violation: Option<(&'static str, String)>,
    pub trace: Option<Vec<String>>,
}

/// How often things happened, by name.
pub type Counts = BTreeMap<&'static str, u64>;

impl State {
    pub fn new(choices: Choices, shape: Shape) -> Self {
        let names = ["sim", "other"];
        let environments = names[..shape.environments].iter();
        Self {
            environments: environments.map(|name| Environment::new(name, shape.shards)).collect(),
            events_left: shape.events,
            choices,
            shape,
            step: 0,
            times: vec![Duration::ZERO],
            began: Instant::now(),
            kv: BTreeMap::new(),
            invocations: Vec::new(),
            stragglers: Vec::new(),
            prepared: 0,
            stops: Vec::new(),
            outages: BTreeMap::new(),
            versions: 0,
            quiet: false,
            busy: 0,
            needs_repair: false,
            counts: Counts::from([("histories", 1)]),
            violation: None,
            trace: None,
        }
    }

    /// Time since the history began.
    pub fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub fn next_version(&mut self) -> u32 {
        self.versions += 1;
        self.versions
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

    /// An invocation, and its environment.
    pub fn run(&self, invocation: usize) -> (&Invocation, &Environment) {
        let run = &self.invocations[invocation];
        (run, &self.environments[run.environment])
    }

    /// Changes an item without a stream record, as a restored table does.
    pub fn set_item(&mut self, environment: usize, key: &ItemKey, image: Option<Rc<Image>>) {
        let step = self.next_step();
        self.environments[environment].set_item(step, key, image);
    }

    pub fn held(&self, key: &KvKey) -> Option<&Rc<Held>> {
        self.kv.get(key)?.last()?.as_ref()
    }

    pub fn set_held(&mut self, key: &KvKey, held: Option<Rc<Held>>) {
        let step = self.next_step();
        self.kv.entry(key.clone()).or_default().push(step, held);
    }

    /// Lets a request land after its client gave up.
    pub fn land(&mut self, changes: Changes) {
        for (key, held) in changes {
            self.note(|| format!("a straggler changes {:?}", key.name));
            self.set_held(&key, held);
        }
    }

    /// Returns what the other cell's gateway says at present.
    pub fn dead_gateway(&self) -> Option<ErrorKind> {
        let is_dead = !self.quiet && self.now() < DEAD_FOR;
        self.shape.dead_gateway.filter(|_| is_dead)
    }

    pub fn is_drained(&self) -> bool {
        self.busy == 0 && self.environments.iter().all(Environment::is_drained)
    }
}
