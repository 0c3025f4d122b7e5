//! The answer to a reconcile.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

use enum_map::{Enum, EnumMap};
use serde::{Deserialize, Serialize};

use crate::ports::Namespace;

/// Names that a report gives of one class at the most.
pub const MAX_EXAMPLES: usize = 20;

/// What a report counts: keys, but for `Rejected`, which counts items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Enum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// An item that can be exported asks for it.
    Desired,
    /// KV has it.
    Listed,
    /// An item asks for it, and KV lacks it.
    Missing,
    /// An item asks for another value than KV holds.
    Stale,
    /// It is ours, and no item asks for it.
    Orphaned,
    /// It would be orphaned, but an active alias needs it.
    Withheld,
    /// An active alias points at this index id, which has neither an item nor a key.
    Dangling,
    /// It isn't ours, and no item asks for it.
    Foreign,
    /// Several items ask for it, or one does and another environment has written it.
    Conflicting,
    /// The item can't be exported.
    Rejected,
    Written,
    Deleted,
    /// It could not be compared or repaired.
    Failed,
}

/// How many keys of one namespace there are of each class.
pub type Counts = EnumMap<Class, u64>;

pub type Found = EnumMap<Namespace, Counts>;

pub fn add(sums: &mut Found, more: Found) {
    for (namespace, counts) in more {
        for (class, count) in counts {
            sums[namespace][class] += count;
        }
    }
}

/// Names of keys by class, at most [`MAX_EXAMPLES`] of each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Examples(BTreeMap<Class, BTreeSet<String>>);

impl Examples {
    pub fn add(&mut self, class: Class, name: &str) {
        if !self.are_full(class) {
            self.0.entry(class).or_default().insert(name.to_owned());
        }
    }

    pub fn text(&self, class: Class) -> String {
        self.0.get(&class).into_iter().flatten().cloned().collect::<Vec<_>>().join(", ")
    }

    pub fn extend(&mut self, others: &Self) {
        for (class, names) in &others.0 {
            names.iter().for_each(|name| self.add(*class, name));
        }
    }

    /// Whether a class has all that it can hold.
    pub fn are_full(&self, class: Class) -> bool {
        self.0.get(&class).is_some_and(|names| names.len() >= MAX_EXAMPLES)
    }
}

/// Keys that are deleted and rewritten: let through by the brakes, or refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Changes {
    pub delete: u64,
    pub rewrite: u64,
}

impl Changes {
    pub fn sum(&self) -> u64 {
        self.delete + self.rewrite
    }

    fn are_none(&self) -> bool {
        self.sum() == 0
    }
}

impl AddAssign for Changes {
    fn add_assign(&mut self, other: Self) {
        self.delete += other.delete;
        self.rewrite += other.rewrite;
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub apply: bool,
    #[serde(flatten)]
    pub found: Found,
    pub examples: Examples,
    /// Whether the chain has come to its end, left nothing out, and no brake refused a repair
    /// anything. Keys that could not be compared or repaired are counted as failed.
    pub complete: bool,
    /// Why it ended before all was compared, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// The `continue` for the next run; `None` after the last part.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next_run: Option<String>,
    /// What the brakes refused a repair, or would refuse one.
    #[serde(skip_serializing_if = "Changes::are_none")]
    pub refused: Changes,
    /// Paths at which stale values differ from the table, and in how many values of a sample.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub differs: BTreeMap<String, u64>,
    /// Whether Cloudflare was left alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}
