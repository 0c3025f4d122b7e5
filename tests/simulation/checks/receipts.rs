//! Receipts: the lines alone tell what KV holds.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::world::{Namespace, State, sha256};

/// What the log says, in its order.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<BTreeMap<&'static str, String>>>>);

struct Line(BTreeMap<&'static str, String>);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

impl Subscriber for Log {
    fn enabled(&self, line: &Metadata<'_>) -> bool {
        line.is_event() && line.target().ends_with("export::bulk")
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(BTreeMap::new());
        event.record(&mut line);
        self.0.lock().unwrap().push(line.0);
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// Notes a key that changes while another invocation that has asked for a change of it is under way:
/// which of the two has its line last is left to chance.
pub fn note_change(state: &mut State, invocation: usize, namespace: Namespace, key: &str) {
    let key = (namespace, key.to_owned());
    let mut others = state.invocations.iter().enumerate();
    let contested =
        others.any(|(at, run)| at != invocation && !run.ended && run.attempted.contains(&key));
    if contested {
        state.uncertain.insert(key);
    }
}

/// Checks each key that no invocation left uncertain: by a fault, a death, or beside another one.
pub fn check(state: &mut State, log: &Log) {
    let mut told: BTreeMap<(Namespace, String), (bool, Option<String>)> = BTreeMap::new();
    for line in log.0.lock().unwrap().iter() {
        let exported = match line.get("message").map(String::as_str) {
            Some("exported") => true,
            Some("removed") => false,
            _ => continue,
        };
        let key = line["key"].clone();
        let namespace = match key.starts_with("qcfg-") {
            true => Namespace::QueryConfigs,
            false => Namespace::Settings,
        };
        told.insert((namespace, key), (exported, line.get("digest").cloned()));
    }
    let mut problems = Vec::new();
    for (key, past) in &state.kv {
        if past.changed() <= state.prepared || state.uncertain.contains(key) {
            continue;
        }
        let holds = past.last().and_then(Option::as_ref).map(|held| sha256(&held.value));
        // What the predecessor wrote has no digest, and may be put back.
        let agrees = told.get(key).is_some_and(|(exported, digest)| match &holds {
            None => !exported,
            Some(holds) => *exported && digest.as_ref().is_none_or(|digest| digest == holds),
        });
        if !agrees {
            problems.push(format!("{key:?} holds {holds:?}, the log says {:?}", told.get(key)));
        }
    }
    for problem in problems {
        state.violate("the log alone tells what KV holds", problem);
    }
}
