//! The answer to a reconcile.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{AddAssign, Index, IndexMut};

use serde::{Deserialize, Serialize, Serializer};

use super::namespaces::{Each, NAMESPACES};

/// Names that a report gives of one class at the most.
pub const MAX_EXAMPLES: usize = 20;

/// Fewer keys than this count as 0 %, unless they are all of them.
const FEW_KEYS: u64 = 10;

/// What a report counts: keys, but for `Rejected`, which counts items.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
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

impl Class {
    /// In the order of the report.
    pub const ALL: [Self; 13] = [
        Self::Desired,
        Self::Listed,
        Self::Missing,
        Self::Stale,
        Self::Orphaned,
        Self::Withheld,
        Self::Dangling,
        Self::Foreign,
        Self::Conflicting,
        Self::Rejected,
        Self::Written,
        Self::Deleted,
        Self::Failed,
    ];
}

/// How many keys of one namespace there are of each class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts([u64; Class::ALL.len()]);

impl Index<Class> for Counts {
    type Output = u64;

    fn index(&self, class: Class) -> &u64 {
        &self.0[class as usize]
    }
}

impl IndexMut<Class> for Counts {
    fn index_mut(&mut self, class: Class) -> &mut u64 {
        &mut self.0[class as usize]
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        for (count, more) in self.0.iter_mut().zip(other.0) {
            *count += more;
        }
    }
}

/// The counts of both namespaces, by name.
fn by_namespace<S: Serializer>(found: &Each<Counts>, serializer: S) -> Result<S::Ok, S::Error> {
    let by_name = |counts: &Counts| BTreeMap::from(Class::ALL.map(|class| (class, counts[class])));
    serializer.collect_map(NAMESPACES.map(|namespace| (namespace, by_name(&found[namespace]))))
}

impl Each<Counts> {
    /// A class's keys in both namespaces.
    pub fn sum(&self, class: Class) -> u64 {
        self.iter().map(|counts| counts[class]).sum()
    }

    pub fn drift(&self) -> u64 {
        self.sum(Class::Missing) + self.sum(Class::Stale) + self.sum(Class::Orphaned)
    }

    /// A share in percent, of the namespace where it is larger. A few keys are none, unless they are
    /// all: one new shop of a small fleet is on its way.
    pub fn percent(&self, share: impl Fn(&Counts) -> (u64, u64)) -> u64 {
        let percent = |counts| match share(counts) {
            (part, all) if all == 0 || (part < FEW_KEYS && part < all) => 0,
            (part, all) => part.saturating_mul(100) / all,
        };
        self.iter().map(percent).max().unwrap_or_default()
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
    #[serde(flatten, serialize_with = "by_namespace")]
    pub found: Each<Counts>,
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
