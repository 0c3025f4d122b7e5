//! The answer to a reconcile.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ports::Namespace;

/// Key names a class of the report holds at the most.
pub const MAX_EXAMPLES: usize = 20;

/// Fewer keys than this count as 0 %, unless they are all of them.
const FEW_KEYS: u64 = 10;

/// A class of keys, or of items, of which a report gives examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum KeyClass {
    /// Several items ask for it, or another environment has written it.
    Conflicting,
    /// An active alias points at it, and there is nothing.
    Dangling,
    /// It could not be compared or repaired.
    Failed,
    /// It is a stranger's, and no item asks for it.
    Foreign,
    /// KV lacks it.
    Missing,
    /// It is ours, and no item asks for it.
    Orphaned,
    /// Its item can't be exported.
    Rejected,
    /// KV holds something else.
    Stale,
    /// It would be orphaned, but an active alias needs it.
    Withheld,
}

/// What a reconcile found and did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether it was asked to repair.
    pub apply: bool,
    /// The settings namespace.
    pub settings: Counts,
    /// The query-config namespace.
    pub query_configs: Counts,
    /// Names of keys, by class; at most 20 each.
    pub examples: BTreeMap<KeyClass, Vec<String>>,
    /// Whether the run came to its end, and no brake refused a repair anything. Keys that could not
    /// be compared or mended are counted in `failed`.
    pub complete: bool,
    /// Why it ended before all was compared, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// The `continue` for the next run; `None` after the last part.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next_run: Option<String>,
    /// What the brakes refused a repair, or would refuse one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// Whether Cloudflare was left alone.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

/// Keys of one namespace, by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// The table asks for them.
    pub desired: u64,
    /// KV has them.
    pub listed: u64,
    /// The table asks for them, and KV lacks them.
    pub missing: u64,
    /// KV holds another value than the table asks for.
    pub stale: u64,
    /// KV holds them with our metadata, and no item asks for them.
    pub orphaned: u64,
    /// They would be orphaned, but an active alias points at what they hold.
    pub withheld: u64,
    /// Index ids that active aliases point at and that have neither an item nor a key.
    pub dangling: u64,
    /// Not ours, and no item asks for them.
    pub foreign: u64,
    /// Several items ask for them, or one does and another environment has written them.
    pub conflicting: u64,
    /// Items that can't be exported.
    pub rejected: u64,
    /// Written by this run.
    pub written: u64,
    /// Deleted by this run.
    pub deleted: u64,
    /// Keys that could not be judged or repaired.
    pub failed: u64,
}

impl Counts {
    /// The findings of both; `listed`, `foreign`, `written` and `deleted` stay those of `self`.
    fn with_findings_of(self, other: &Self) -> Self {
        Self {
            desired: self.desired + other.desired,
            missing: self.missing + other.missing,
            stale: self.stale + other.stale,
            orphaned: self.orphaned + other.orphaned,
            withheld: self.withheld + other.withheld,
            dangling: self.dangling + other.dangling,
            conflicting: self.conflicting + other.conflicting,
            rejected: self.rejected + other.rejected,
            failed: self.failed + other.failed,
            ..self
        }
    }
}

/// What a brake has refused, in keys of both namespaces.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Deletes.
    pub delete: u64,
    /// Rewrites.
    pub rewrite: u64,
}

impl Refused {
    /// Everything that was refused.
    pub fn sum(&self) -> u64 {
        self.delete + self.rewrite
    }
}

impl Report {
    /// The findings of this run and of those before it, by namespace.
    pub fn findings_with(&self, before: [Counts; 2]) -> [Counts; 2] {
        let [settings, query_configs] = before;
        [
            settings.with_findings_of(&self.settings),
            query_configs.with_findings_of(&self.query_configs),
        ]
    }

    /// The counts of a namespace.
    pub fn counts(&mut self, namespace: Namespace) -> &mut Counts {
        match namespace {
            Namespace::Settings => &mut self.settings,
            Namespace::QueryConfigs => &mut self.query_configs,
        }
    }

    /// Notes the name of a key of a class, while there is room.
    pub fn add_example(&mut self, class: KeyClass, key: &str) {
        let names = self.examples.entry(class).or_default();
        if names.len() < MAX_EXAMPLES && !names.iter().any(|name| name == key) {
            names.push(key.to_owned());
        }
    }

    /// Whether a class has all the examples that it can hold.
    pub fn has_enough_examples(&self, class: KeyClass) -> bool {
        self.examples.get(&class).is_some_and(|names| names.len() >= MAX_EXAMPLES)
    }

    /// Keys that differ from the table, as they were found.
    pub fn drifted(&self) -> u64 {
        self.total(|counts| counts.missing + counts.stale + counts.orphaned)
    }

    /// A share in percent, of the namespace where it is larger. A few keys are none, unless they are
    /// all: one new shop of a small fleet is on its way.
    pub fn percent(&self, share: impl Fn(&Counts) -> (u64, u64)) -> u64 {
        let percent = |counts| match share(counts) {
            (part, all) if all == 0 || (part < FEW_KEYS && part < all) => 0,
            (part, all) => part.saturating_mul(100) / all,
        };
        percent(&self.settings).max(percent(&self.query_configs))
    }

    /// A count of both namespaces.
    pub fn total(&self, count: impl Fn(&Counts) -> u64) -> u64 {
        count(&self.settings) + count(&self.query_configs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_that_of_the_namespace_where_it_is_larger_and_few_keys_are_none() {
        let missing = |missing, desired| Counts { missing, desired, ..Counts::default() };
        for (settings, query_configs, percent) in [
            (missing(0, 0), missing(0, 0), 0),
            (missing(10, 40), missing(0, 100_000), 25),
            (missing(0, 40), missing(50, 100), 50),
            (missing(9, 10), missing(0, 0), 0),
            (missing(2, 2), missing(0, 0), 100),
        ] {
            let report = Report { settings, query_configs, ..Report::default() };
            assert_eq!(report.percent(|counts| (counts.missing, counts.desired)), percent);
        }
    }
}
