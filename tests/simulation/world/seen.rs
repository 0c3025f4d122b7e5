//! What KV has told an invocation. Its responses may be stale, so this is what an invocation has to be
//! judged by.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Held, Namespace, Step};

/// What was told about one key.
#[derive(Debug, Default)]
pub struct Seen {
    /// The first step at which the key may have been as it was told.
    pub from: Step,
    /// What was told, and what the invocation wrote itself; `None` for nothing there.
    pub told: Vec<Option<Rc<Held>>>,
}

/// All that an invocation has been told of KV.
#[derive(Debug, Default)]
pub struct SeenKeys {
    keys: BTreeMap<(Namespace, String), Seen>,
    /// The first step that a listing of the namespace may have shown.
    pub listed_from: BTreeMap<Namespace, Step>,
}

impl SeenKeys {
    pub fn add(&mut self, namespace: Namespace, key: &str, from: Step, held: Option<Rc<Held>>) {
        let seen = self.keys.entry((namespace, key.to_owned()));
        seen.or_insert_with(|| Seen { from, told: Vec::new() }).told.push(held);
    }

    pub fn of(&self, namespace: Namespace, key: &str) -> Option<&Seen> {
        self.keys.get(&(namespace, key.to_owned()))
    }

    /// Returns the first step at which the invocation may have seen the key; `now` if it never looked.
    pub fn from(&self, namespace: Namespace, key: &str, now: Step) -> Step {
        let read = self.of(namespace, key).map(|seen| seen.from);
        let listed = self.listed_from.get(&namespace).copied();
        read.into_iter().chain(listed).min().unwrap_or(now)
    }
}

impl Seen {
    pub fn held(&self) -> impl DoubleEndedIterator<Item = &Rc<Held>> {
        self.told.iter().flatten()
    }
}
