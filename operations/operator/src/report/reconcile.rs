//! What a reconcile found and did.

use serde_json::{Map, Value};

use super::Report;
use super::lines::{self, Align, Lines};
use super::next_step::next_step;

/// The counts in the order in which they are read; others follow them.
const COUNTS: [&str; 13] = [
    "desired",
    "listed",
    "missing",
    "stale",
    "orphaned",
    "withheld",
    "dangling",
    "foreign",
    "conflicting",
    "rejected",
    "written",
    "deleted",
    "failed",
];

/// Shown even if they are zero.
const ALWAYS: [&str; 2] = ["desired", "listed"];

/// What a person needs to see of a `continue`.
const CONTINUE_CHARACTERS: usize = 40;

/// Prints what kind of run it was, the counts that are not zero, and what to do next.
pub fn render(report: &mut Report, lines: &mut Lines) {
    let next_step = next_step(&report.0);
    let repaired = report.take("apply") == Some(Value::Bool(true));
    let kind = if repaired { "repair" } else { "audit" };
    let complete = match report.take("complete") {
        Some(Value::Bool(true)) => "complete",
        _ => "not complete",
    };
    let dry_run = report.take("dry_run") == Some(Value::Bool(true));
    let whether_dry = if dry_run { ", dry run" } else { "" };
    lines.line(&format!("{kind}, {complete}{whether_dry}"));
    let namespaces = ["settings", "query_configs"].map(|name| match report.take(name) {
        Some(Value::Object(counts)) => counts,
        _ => Map::new(),
    });
    lines.table(&table(&namespaces), Align::Right);
    for name in ["stopped", "refused"] {
        if let Some(value) = report.take(name) {
            lines.field(name, &lines::text(&value));
        }
    }
    if let Some(token) = report.take("continue") {
        lines.field("continue", &shortened(&lines::text(&token)));
    }
    if let Some(Value::Object(examples)) = report.take("examples") {
        for (class, names) in examples {
            lines.field(&class, &lines::text(&names));
        }
    }
    if let Some(runs) = report.take("runs") {
        lines.field("runs", &lines::text(&runs));
    }
    lines.line(next_step);
}

fn table(namespaces: &[Map<String, Value>; 2]) -> Vec<Vec<String>> {
    let unknown = namespaces.iter().flat_map(Map::keys).map(String::as_str);
    let mut names: Vec<&str> = COUNTS.into_iter().chain(unknown).collect();
    let mut seen = std::collections::BTreeSet::new();
    names.retain(|name| seen.insert(*name));
    let count = |name: &str| {
        namespaces.each_ref().map(|counts| counts.get(name).map_or("-".to_owned(), lines::text))
    };
    let shown = |name: &&str| {
        ALWAYS.contains(name)
            || count(name).iter().any(|count| !["0", "-"].contains(&count.as_str()))
    };
    let rows = names.into_iter().filter(shown).map(|name| {
        let [settings, query_configs] = count(name);
        vec![lines::plain(name), settings, query_configs]
    });
    let heading = ["", "settings", "query configs"].map(str::to_owned).to_vec();
    std::iter::once(heading).chain(rows).collect()
}

fn shortened(token: &str) -> String {
    match token.char_indices().nth(CONTINUE_CHARACTERS) {
        None => token.to_owned(),
        Some((end, _)) => format!("{}… (all of it with RAW=true)", &token[..end]),
    }
}

#[cfg(test)]
mod tests {
    use crate::report::rendered;
    use serde_json::json;

    #[test]
    fn counts_that_are_zero_are_left_out_and_the_rest_is_aligned() {
        let report = json!({
            "apply": false, "complete": true,
            "settings": {
                "desired": 120, "listed": 121, "missing": 2, "stale": 0, "orphaned": 3, "withheld": 0,
                "dangling": 0, "foreign": 0, "conflicting": 0, "rejected": 0, "written": 0,
                "deleted": 0, "failed": 0,
            },
            "query_configs": {"desired": 0, "listed": 0, "missing": 0, "orphaned": 0, "stale": 1},
            "examples": {
                "missing": ["acct1-main", "example.myshopify.com"], "orphaned": ["a-1", "a-2", "a-3"],
            },
        });
        assert_eq!(
            rendered(&report.to_string()),
            "audit, complete\n          \
                       settings  query configs\n\
             desired        120              0\n\
             listed         121              0\n\
             missing          2              0\n\
             stale            0              1\n\
             orphaned         3              0\n\
             missing   acct1-main, example.myshopify.com\n\
             orphaned  a-1, a-2, a-3\n\
             To correct what is missing, stale or orphaned: the same with APPLY=true.\n"
        );
    }

    #[test]
    fn a_run_that_ended_early_tells_why_what_was_refused_and_what_is_new() {
        let report = json!({
            "apply": true, "complete": false, "dry_run": true, "settings": {"desired": 1, "parts": 7},
            "query_configs": {}, "examples": {}, "stopped": "the invocation's time is up",
            "refused": {"delete": 101, "rewrite": 0}, "continue": "x".repeat(60), "took_ms": 12,
        });
        assert_eq!(
            rendered(&report.to_string()),
            format!(
                "repair, not complete, dry run\n         \
                          settings  query configs\n\
                 desired         1              -\n\
                 listed          -              -\n\
                 parts           7              -\n\
                 stopped   the invocation's time is up\n\
                 refused   delete: 101, rewrite: 0\n\
                 continue  {}… (all of it with RAW=true)\n\
                 Nothing was sent to Cloudflare: the function has no CLOUDFLARE_ACCOUNT_ID.\n\
                 took_ms  12\n",
                "x".repeat(40)
            )
        );
    }
}
