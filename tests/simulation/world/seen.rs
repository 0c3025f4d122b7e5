//! What KV has told an invocation. Answers may be old, so this is what it has to be judged by.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use super::{Held, Namespace, Step};

/// The answers about one key.
#[derive(Debug, Default)]
pub struct Seen {
    /// From which step on an answer may have shown the key.
    pub from: Step,
    /// What it was told, and what it wrote itself; `None` for nothing there.
    pub answers: Vec<Option<Rc<Held>>>,
}

/// All that an invocation has been told of KV.
#[derive(Debug, Default)]
pub struct SeenKeys {
    keys: BTreeMap<(Namespace, String), Seen>,
    /// From which step on a listing of the namespace may have shown it.
    pub listed_from: BTreeMap<Namespace, Step>,
    /// Where a page has been listed. Names are listed again, once the brakes have counted.
    pub pages: BTreeSet<(Namespace, String)>,
    /// The keys that a first listing showed, and whether they are the environment's own.
    pub listed: BTreeMap<(Namespace, String), bool>,
}

impl SeenKeys {
    pub fn add(&mut self, namespace: Namespace, key: &str, from: Step, held: Option<Rc<Held>>) {
        let seen = self
            .keys
            .entry((namespace, key.to_owned()))
            .or_insert_with(|| Seen { from, answers: Vec::new() });
        seen.answers.push(held);
    }

    pub fn of(&self, namespace: Namespace, key: &str) -> Option<&Seen> {
        self.keys.get(&(namespace, key.to_owned()))
    }

    /// From which step on the invocation may have seen the key; `now` if it never looked.
    pub fn from(&self, namespace: Namespace, key: &str, now: Step) -> Step {
        let read = self.of(namespace, key).map(|seen| seen.from);
        let listed = self.listed_from.get(&namespace).copied();
        read.into_iter().chain(listed).min().unwrap_or(now)
    }
}

impl Seen {
    pub fn held(&self) -> impl DoubleEndedIterator<Item = &Rc<Held>> {
        self.answers.iter().flatten()
    }
}
