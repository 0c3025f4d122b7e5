//! The runs of one reconcile, added up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::failure::Failure;

/// Key names that a class holds at the most, as in the report of one run.
const MAX_EXAMPLES: usize = 20;

/// What all runs of a reconcile found and did together: a report like that of one run, with the
/// number of runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// That have ended.
    #[serde(skip_deserializing)]
    pub runs: u64,
    #[serde(default)]
    pub apply: bool,
    pub settings: Counts,
    pub query_configs: Counts,
    #[serde(default)]
    pub examples: BTreeMap<String, Vec<String>>,
    /// Whether all was compared, and of a repair also mended.
    pub complete: bool,
    /// Why the last run ended before all was compared, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: Counts,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub differs: Counts,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}

pub type Counts = BTreeMap<String, u64>;

fn add(sums: &mut Counts, more: Counts) {
    for (name, count) in more {
        *sums.entry(name).or_default() += count;
    }
}

impl Chain {
    /// Adds the report of the next run.
    pub fn add(&mut self, report: &Value) -> Result<(), Failure> {
        let run = Self::deserialize(report)
            .map_err(|error| Failure::of("the report of a run can't be read", error))?;
        self.runs += 1;
        self.apply = run.apply;
        add(&mut self.settings, run.settings);
        add(&mut self.query_configs, run.query_configs);
        for (class, names) in run.examples {
            let known = self.examples.entry(class).or_default();
            for name in names {
                if known.len() < MAX_EXAMPLES && !known.contains(&name) {
                    known.push(name);
                }
            }
        }
        add(&mut self.refused, run.refused);
        add(&mut self.differs, run.differs);
        self.stopped = run.stopped;
        // A run that another one goes on from is not complete, whatever it mended. What a repair
        // was refused stays open.
        self.complete = run.complete && !(self.apply && self.refused() > 0);
        self.dry_run |= run.dry_run;
        Ok(())
    }

    /// How far it is, in a line.
    pub fn progress(&self) -> String {
        let runs = if self.runs == 1 { "run" } else { "runs" };
        let sum = |names: [&str; 2]| -> u64 {
            let namespaces = [&self.settings, &self.query_configs];
            let counts = namespaces.map(|counts| names.map(|name| counts.get(name)));
            counts.into_iter().flatten().flatten().sum()
        };
        format!(
            "{} {runs} done: {} keys compared, {} written or deleted, {} refused",
            self.runs,
            sum(["listed", "missing"]),
            sum(["written", "deleted"]),
            self.refused(),
        )
    }

    /// Keys whose deletion or rewriting was refused so far.
    pub fn refused(&self) -> u64 {
        self.refused.values().sum()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(more: Value) -> Value {
        let counts = |listed| json!({"listed": listed, "missing": 1, "written": 1, "deleted": 0});
        let mut report = json!({
            "apply": true, "complete": false, "settings": counts(1000), "query_configs": counts(0),
            "examples": {"missing": ["a", "b"]}, "stopped": "time", "continue": "place",
        });
        report.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        report
    }

    #[test]
    fn counts_and_examples_of_all_runs_are_added_up_and_the_last_run_says_how_it_ended() {
        let mut chain = Chain::default();
        chain.add(&report(json!({"dry_run": true, "differs": {"pixel_id": 2}}))).unwrap();
        let examples = json!({"missing": ["b", "c"], "stale": ["d"]});
        let differs = json!({"pixel_id": 1, "shop_id": 1});
        chain.add(&report(json!({"examples": examples, "differs": differs}))).unwrap();
        let last = json!({"complete": true, "stopped": null, "continue": null, "examples": {}});
        chain.add(&report(last)).unwrap();

        assert_eq!(
            chain.progress(),
            "3 runs done: 3006 keys compared, 6 written or deleted, 0 refused"
        );
        assert_eq!(
            serde_json::to_value(chain).unwrap(),
            json!({
                "runs": 3, "apply": true, "complete": true, "dry_run": true,
                "settings": {"listed": 3000, "missing": 3, "written": 3, "deleted": 0},
                "query_configs": {"listed": 0, "missing": 3, "written": 3, "deleted": 0},
                "examples": {"missing": ["a", "b", "c"], "stale": ["d"]},
                "differs": {"pixel_id": 3, "shop_id": 1},
            })
        );
    }

    #[test]
    fn a_repair_that_was_refused_anything_on_its_way_is_not_complete() {
        for (apply, complete) in [(true, false), (false, true)] {
            let mut chain = Chain::default();
            let refused = json!({"apply": apply, "refused": {"delete": 120, "rewrite": 0}});
            chain.add(&report(refused)).unwrap();
            chain.add(&report(json!({"apply": apply, "complete": true}))).unwrap();
            assert_eq!((chain.complete, chain.refused()), (complete, 120), "apply {apply}");
        }
    }

    #[test]
    fn a_class_has_at_most_twenty_examples() {
        let mut chain = Chain::default();
        for run in 0..3 {
            let names: Vec<_> = (0..15).map(|name| format!("{run}-{name}")).collect();
            chain.add(&report(json!({"examples": {"stale": names}}))).unwrap();
        }
        assert_eq!(chain.examples["stale"].len(), MAX_EXAMPLES);
        assert_eq!(chain.examples["stale"][15], "1-0");
    }
}
