//! What to do after a reconcile, in one sentence.

use serde_json::{Map, Value};

/// What of a reconcile's report decides it.
pub struct Outcome<'a> {
    pub repaired: bool,
    pub dry_run: bool,
    /// Whether the brakes refused something, or would refuse a repair.
    pub refused: bool,
    /// Whether another run has to go on.
    pub goes_on: bool,
    pub stopped: bool,
    /// The counts of both namespaces.
    pub counts: &'a [Map<String, Value>; 2],
}

impl Outcome<'_> {
    pub fn next_step(&self) -> &'static str {
        let drift = self.any(&["missing", "stale", "orphaned"]);
        if self.dry_run {
            "Nothing was sent to Cloudflare: the function has no CLOUDFLARE_ACCOUNT_ID."
        } else if self.refused {
            "Do not repair before you know why so much differs: docs/runbook/repair-refused.md"
        } else if self.goes_on {
            "More is left: the same request with `continue` goes on from here."
        } else if self.any(&["failed"]) {
            "Keys could not be compared or repaired: docs/runbook/reconcile-keys-failed.md"
        } else if self.stopped {
            "Run it again: it ended before all was done."
        } else if drift && !self.repaired {
            "To correct what is missing, stale or orphaned: the same with APPLY=true."
        } else if drift {
            "Repaired. KV shows it everywhere after a minute: then run make reconcile to check."
        } else if self.any(&["rejected", "conflicting", "withheld", "dangling"]) {
            "KV has all that it can have. The table has to be corrected: make explain KEY=… says how."
        } else if !self.any(&["desired", "listed"]) {
            "Neither the table nor KV has a key. Is the account spelled like this?"
        } else {
            "No difference was found."
        }
    }

    fn any(&self, classes: &[&str]) -> bool {
        let count = |counts: &Map<String, Value>, class: &str| {
            counts.get(class).and_then(Value::as_u64).unwrap_or_default()
        };
        classes.iter().any(|class| self.counts.iter().any(|counts| count(counts, class) > 0))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn step(settings: Value, change: fn(&mut Outcome<'_>)) -> &'static str {
        let counts = [settings.as_object().unwrap().clone(), Map::new()];
        let mut outcome = Outcome {
            repaired: false,
            dry_run: false,
            refused: false,
            goes_on: false,
            stopped: false,
            counts: &counts,
        };
        change(&mut outcome);
        outcome.next_step()
    }

    #[test]
    fn what_is_worst_says_what_comes_next() {
        let drift = || json!({"missing": 0, "stale": 2, "rejected": 1});
        let failed = json!({"stale": 2, "failed": 1});
        for (said, starts) in [
            (step(json!({"desired": 4}), |_| {}), "No difference"),
            (step(json!({"desired": 0}), |_| {}), "Neither"),
            (step(json!({"conflicting": 1}), |_| {}), "KV has all that it can have"),
            (step(drift(), |_| {}), "To correct"),
            (step(drift(), |outcome| outcome.repaired = true), "Repaired."),
            (step(drift(), |outcome| outcome.stopped = true), "Run it again"),
            (step(failed, |outcome| outcome.stopped = true), "Keys could not"),
            (step(drift(), |outcome| outcome.goes_on = true), "More is left"),
            (step(drift(), |outcome| outcome.refused = true), "Do not repair"),
            (step(drift(), |outcome| outcome.dry_run = true), "Nothing was sent"),
        ] {
            assert!(said.starts_with(starts), "{said}");
        }
    }
}
