//! What to do after a reconcile, in one sentence.

use serde_json::{Map, Value};

/// What a reconcile's report says that comes next: what is worst decides.
pub fn next_step(report: &Map<String, Value>) -> &'static str {
    let is = |name: &str| report.get(name) == Some(&Value::Bool(true));
    let has = |name: &str| report.contains_key(name);
    let any = |classes: &[&str]| {
        let namespaces = ["settings", "query_configs"].map(|name| report.get(name));
        let count = |counts: &Value, class: &str| counts[class].as_u64().unwrap_or_default();
        namespaces
            .into_iter()
            .flatten()
            .any(|counts| classes.iter().any(|class| count(counts, class) > 0))
    };
    let drift = any(&["missing", "stale", "orphaned"]);
    if is("dry_run") {
        "Nothing was sent to Cloudflare: the function has no CLOUDFLARE_ACCOUNT_ID."
    } else if has("refused") {
        "Do not repair before you know why so much differs: docs/runbook/repair-refused.md"
    } else if has("continue") {
        "More is left: the same request with `continue` goes on from here."
    } else if any(&["failed"]) {
        "Keys could not be compared or repaired: docs/runbook/reconcile-keys-failed.md"
    } else if has("stopped") {
        "Run it again: it ended before all was done."
    } else if drift && !is("apply") {
        "To correct what is missing, stale or orphaned: the same with APPLY=true."
    } else if drift {
        "Repaired. KV shows it everywhere after a minute: then run make reconcile to check."
    } else if any(&["rejected", "conflicting", "withheld", "dangling"]) {
        "KV has all that it can have. The table has to be corrected: make explain KEY=… says how."
    } else if !any(&["desired", "listed"]) {
        "Neither the table nor KV has a key. Is the account spelled like this?"
    } else {
        "No difference was found."
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_worst_says_what_comes_next() {
        let drift = || json!({"missing": 0, "stale": 2, "rejected": 1});
        let failed = json!({"stale": 2, "failed": 1});
        for (report, starts) in [
            (json!({"settings": {"desired": 4}}), "No difference"),
            (json!({"settings": {"desired": 0}}), "Neither"),
            (json!({"query_configs": {"conflicting": 1}}), "KV has all that it can have"),
            (json!({"settings": drift(), "apply": false}), "To correct"),
            (json!({"settings": drift(), "apply": true}), "Repaired."),
            (json!({"settings": drift(), "stopped": "time"}), "Run it again"),
            (json!({"settings": failed, "stopped": "time"}), "Keys could not"),
            (json!({"settings": drift(), "continue": "there"}), "More is left"),
            (json!({"settings": drift(), "refused": {}, "continue": "there"}), "Do not repair"),
            (json!({"settings": drift(), "refused": {}, "dry_run": true}), "Nothing was sent"),
        ] {
            let said = next_step(report.as_object().unwrap());
            assert!(said.starts_with(starts), "{said}");
        }
    }
}
