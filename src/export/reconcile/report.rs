//! The report of a reconcile.

use std::collections::{BTreeMap, BTreeSet};

use enum_map::{Enum, EnumMap};
use serde::{Deserialize, Serialize};

use crate::kv::Namespace;

/// The most names that a report gives of one class.
pub const MAX_EXAMPLES: usize = 20;

/// The longest name that is shown whole, in characters.
const MAX_NAME_CHARACTERS: usize = 200;

/// What all examples may take, in bytes of JSON. They stand in a report twice, the second time in base64
/// within `continue`, and a report stays below 200 KB.
const MAX_EXAMPLE_BYTES: usize = 60_000;
const _: () = assert!(MAX_EXAMPLE_BYTES + MAX_EXAMPLE_BYTES * 4 / 3 < 150_000);

/// What a report counts: keys, but for `Rejected`, which counts items, and `Dangling`, index ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Enum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Class {
    /// An item that can be exported asks for it.
    Desired,
    /// KV has it.
    Listed,
    Missing,
    Stale,
    Orphaned,
    Withheld,
    /// An active alias points at this index id, which has neither an item nor a key.
    Dangling,
    Foreign,
    /// Several items ask for it, or one does and another environment has written it.
    Conflicting,
    Rejected,
    Written,
    Deleted,
    /// It could not be judged or repaired.
    Failed,
}

pub type Counts = EnumMap<Class, u64>;

/// Names by class.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Examples(BTreeMap<Class, BTreeSet<String>>);

impl Examples {
    /// Adds a name, unless there are enough.
    pub fn add(&mut self, class: Class, name: &str) {
        if self.are_full(class) {
            return;
        }
        let name = cut(name, MAX_NAME_CHARACTERS);
        let bytes = |name: &String| serde_json::to_string(name).map_or(0, |json| json.len() + 1);
        let taken: usize = self.0.values().flatten().map(bytes).sum();
        if taken + bytes(&name) <= MAX_EXAMPLE_BYTES {
            self.0.entry(class).or_default().insert(name);
        }
    }

    pub fn are_full(&self, class: Class) -> bool {
        self.0.get(&class).is_some_and(|names| names.len() >= MAX_EXAMPLES)
    }

    pub fn text(&self, class: Class) -> String {
        self.0.get(&class).into_iter().flatten().cloned().collect::<Vec<_>>().join(", ")
    }
}

/// Returns a text of anybody's, shortened.
pub fn cut(text: &str, characters: usize) -> String {
    match text.char_indices().nth(characters) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

/// What a repair does to a key that KV holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Delete,
    Rewrite,
}

/// Numbers of keys.
pub type Changes = EnumMap<Change, u64>;

/// What a chain of runs has found and done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    #[serde(flatten)]
    pub counts: EnumMap<Namespace, Counts>,
    pub examples: Examples,
    /// What the brakes refused a repair, or would refuse one.
    #[serde(default, skip_serializing_if = "are_none")]
    pub refused: Changes,
}

/// Returns whether there is no change at all.
pub fn are_none(changes: &Changes) -> bool {
    changes.values().all(|keys| *keys == 0)
}

impl Findings {
    pub fn sum(&self, class: Class) -> u64 {
        self.counts.values().map(|counts| counts[class]).sum()
    }

    pub fn add(&mut self, more: &Self) {
        for (namespace, counts) in &more.counts {
            for (class, count) in counts {
                self.counts[namespace][class] += count;
            }
        }
        for (class, names) in &more.examples.0 {
            names.iter().for_each(|name| self.examples.add(*class, name));
        }
        for (change, keys) in more.refused {
            self.refused[change] += keys;
        }
    }

    pub fn note(&mut self, namespace: Namespace, class: Class, name: &str) {
        self.counts[namespace][class] += 1;
        self.examples.add(class, name);
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub apply: bool,
    /// Whether all was compared, and a repair was refused nothing and left nothing out.
    pub complete: bool,
    #[serde(flatten)]
    pub findings: Findings,
    /// Why another run has to go on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<&'static str>,
    /// The `continue` for the next run.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next_run: Option<String>,
    /// Whether Cloudflare was left alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_bounded_in_number_length_and_bytes() {
        let mut examples = Examples::default();
        for number in 0..30 {
            examples.add(Class::Missing, &format!("k{number:02}"));
        }
        examples.add(Class::Stale, &"ü".repeat(300));
        assert!(examples.are_full(Class::Missing) && !examples.are_full(Class::Stale));
        assert_eq!(examples.0[&Class::Missing].len(), MAX_EXAMPLES);
        let long = examples.text(Class::Stale);
        assert_eq!(long.chars().count(), MAX_NAME_CHARACTERS + 1);
        for class in [Class::Stale, Class::Orphaned, Class::Foreign, Class::Failed] {
            for number in 10..30 {
                examples.add(class, &format!("{number}{}", "\u{1}".repeat(198)));
            }
        }
        let bytes = serde_json::to_string(&examples).unwrap().len();
        assert!((MAX_EXAMPLE_BYTES - 2_000..MAX_EXAMPLE_BYTES + 1_000).contains(&bytes), "{bytes}");
    }
}
