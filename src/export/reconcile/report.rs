//! The report of a reconcile, and what its log and its metrics tell of it.

use std::collections::{BTreeMap, BTreeSet};

use enum_map::{Enum, EnumMap};
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use super::Reconcile;
use crate::export::api_keys::ApiKeys;
use crate::export::invocation::Invocation;
use crate::kv::Namespace;
use crate::ports::Services;
use crate::text::cut;

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

/// What a repair does to a key that KV holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Enum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    Delete,
    Rewrite,
}

/// Numbers of keys, by action.
pub type Actions = EnumMap<Action, u64>;

pub fn are_none(keys: &Actions) -> bool {
    keys.values().all(|number| *number == 0)
}

/// What a chain of runs has found and done so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    #[serde(flatten)]
    pub counts: EnumMap<Namespace, Counts>,
    /// Names by class, up to [`MAX_EXAMPLES`] of each.
    pub examples: BTreeMap<Class, BTreeSet<String>>,
}

impl Findings {
    pub fn sum(&self, class: Class) -> u64 {
        self.counts.values().map(|counts| counts[class]).sum()
    }

    pub fn note(&mut self, namespace: Namespace, class: Class, name: &str) {
        self.counts[namespace][class] += 1;
        self.add_example(class, name);
    }

    pub fn add(&mut self, more: &Self) {
        for (namespace, counts) in &more.counts {
            for (class, count) in counts {
                self.counts[namespace][class] += count;
            }
        }
        for (class, names) in &more.examples {
            names.iter().for_each(|name| self.add_example(*class, name));
        }
    }

    /// Returns whether a class has as many examples as a report gives.
    pub fn has_enough(&self, class: Class) -> bool {
        self.examples.get(&class).is_some_and(|names| names.len() >= MAX_EXAMPLES)
    }

    fn add_example(&mut self, class: Class, name: &str) {
        if self.has_enough(class) {
            return;
        }
        let name = cut(name, MAX_NAME_CHARACTERS);
        let bytes = |name: &String| serde_json::to_string(name).map_or(0, |json| json.len() + 1);
        let taken: usize = self.examples.values().flatten().map(bytes).sum();
        if taken + bytes(&name) <= MAX_EXAMPLE_BYTES {
            self.examples.entry(class).or_default().insert(name);
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    pub apply: bool,
    /// Whether all was compared, and a repair was refused nothing and left nothing out.
    pub complete: bool,
    #[serde(flatten)]
    pub findings: Findings,
    /// What the brakes refused a repair, or would refuse one.
    #[serde(skip_serializing_if = "are_none")]
    pub refused: Actions,
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

/// Logs what an operator has to know of the keys.
pub fn log_findings(findings: &Findings, api_keys: &ApiKeys) {
    let dangling = findings.sum(Class::Dangling);
    if dangling > 0 {
        let examples = findings.examples.get(&Class::Dangling).into_iter().flatten();
        warn!(
            dangling,
            examples = examples.cloned().collect::<Vec<_>>().join(", "),
            "active aliases point at index ids that have neither an item nor a key"
        );
    }
    let failed = findings.sum(Class::Failed);
    if failed > 0 {
        warn!(
            keys = failed,
            cells = api_keys.silent_cells().join(", "),
            "keys could not be compared: the API keys of their accounts are unavailable, or KV can't be read"
        );
    }
}

pub fn log_refused(request: &Reconcile, table_has_indexes: bool, refused: Actions) {
    if are_none(&refused) || !request.apply {
        return;
    }
    let (delete, rewrite) = (refused[Action::Delete], refused[Action::Rewrite]);
    let message = if table_has_indexes {
        "repair refused: it would delete or rewrite more keys than a chain may; if an audit shows that this is right, repair again with delete_up_to and rewrite_up_to raised"
    } else {
        "repair refused: the table has no index item, so nothing is deleted, whatever delete_up_to says; is it the right table, and whole?"
    };
    error!(message, delete, rewrite);
}

/// Counts what was found, with the last run of a chain over all accounts. What a run was refused and has rewritten
/// counts with this run, because people have to hear of that at once.
pub fn count_findings<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Reconcile,
    Report { findings, stopped, dry_run, .. }: &Report,
    refused: Actions,
) {
    let is_of_fleet = request.system_account_id.is_none() && !request.preview && !dry_run;
    let is_metric = is_of_fleet && stopped.is_none();
    let sum = |class| is_metric.then(|| findings.sum(class));
    let urgent = |number: u64| (request.apply && (number > 0 || is_metric)).then_some(number);
    invocation.count(|stats| {
        // With each run of a repair, because what it rewrites is counted then, as a share of it.
        stats.desired =
            (is_metric || is_of_fleet && request.apply).then(|| findings.sum(Class::Desired));
        stats.listed = sum(Class::Listed);
        stats.foreign = sum(Class::Foreign);
        stats.missing = sum(Class::Missing);
        stats.stale = sum(Class::Stale);
        stats.orphaned = sum(Class::Orphaned);
        stats.drifted_keys = [stats.missing, stats.stale, stats.orphaned].into_iter().sum();
        stats.keys_conflicting = sum(Class::Conflicting);
        stats.keys_withheld = sum(Class::Withheld);
        stats.dangling_aliases = sum(Class::Dangling);
        stats.keys_failed = sum(Class::Failed);
        stats.items_rejected = sum(Class::Rejected);
        stats.repair_refused = urgent(refused.values().sum());
        stats.keys_rewritten = urgent(stats.keys_rewritten.unwrap_or_default());
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_are_bounded_in_number_length_and_bytes() {
        let mut findings = Findings::default();
        let mut add = |class, name: &str| findings.note(Namespace::Settings, class, name);
        for number in 0..30 {
            add(Class::Missing, &format!("k{number:02}"));
        }
        add(Class::Stale, &"ü".repeat(300));
        for class in [Class::Stale, Class::Orphaned, Class::Foreign, Class::Failed] {
            for number in 10..30 {
                add(class, &format!("{number}{}", "\u{1}".repeat(198)));
            }
        }
        assert!(findings.has_enough(Class::Missing));
        assert_eq!(findings.examples[&Class::Missing].len(), MAX_EXAMPLES);
        let long = findings.examples[&Class::Stale].last().unwrap();
        assert_eq!(long.chars().count(), MAX_NAME_CHARACTERS + 1);
        let bytes = serde_json::to_string(&findings.examples).unwrap().len();
        assert!((MAX_EXAMPLE_BYTES - 2_000..MAX_EXAMPLE_BYTES + 1_000).contains(&bytes), "{bytes}");
    }
}
