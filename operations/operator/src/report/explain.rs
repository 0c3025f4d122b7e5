//! What KV holds of an index, and why.

use serde_json::{Map, Value};

use super::Report;
use super::lines::{self, Lines};

/// Prints the index and its item, its keys, who points at it, and the advice.
pub fn render(report: &mut Report, lines: &mut Lines) {
    let index = report.take_index().unwrap_or_else(|| "no index".to_owned());
    let item = report.take_text("item");
    let path = report.take("path").map(|path| format!(" at {}", lines::text(&path)));
    lines.line(&format!("{index}: item {item}{}", path.unwrap_or_default()));
    if let Some(Value::Array(keys)) = report.take("keys") {
        for key in keys {
            match key {
                Value::Object(fields) => render_key(Report(fields), lines),
                other => lines.line(&lines::text(&other)),
            }
        }
    }
    match report.take("pointed_at_by") {
        Some(Value::Array(pointers)) if pointers.is_empty() => {}
        Some(pointers) => lines.line(&format!("pointed at by {}", lines::text(&pointers))),
        None => {}
    }
    lines.line(&report.take_text("advice"));
}

fn render_key(mut key: Report, lines: &mut Lines) {
    lines.line(&format!("{}: {}", key.take_text("key"), key.take_text("verdict")));
    let written: Vec<String> = [("exported_at", ""), ("source", "by "), ("environment", "in ")]
        .iter()
        .filter_map(|(name, before)| Some(format!("{before}{}", lines::text(&key.take(name)?))))
        .collect();
    if !written.is_empty() {
        lines.field("  written", &written.join(" "));
    }
    for (name, label) in [
        ("changed_at", "  changed"),
        ("named", "  names"),
        ("differs", "  differs at"),
        ("claimed_by", "  asked for by"),
    ] {
        match key.take(name) {
            None => {}
            Some(Value::Array(empty)) if empty.is_empty() => {}
            Some(value) => lines.field(label, &lines::text(&value)),
        }
    }
    let rest: Map<String, Value> = key.0;
    for (name, value) in rest {
        lines.field(&format!("  {name}"), &lines::text(&value));
    }
    lines.end_block();
}

#[cfg(test)]
mod tests {
    use crate::report::rendered;
    use serde_json::json;

    #[test]
    fn each_key_is_a_few_aligned_lines_and_the_advice_comes_last() {
        let named = |index: &str| json!({"system_account_id": "acct1", "index_name": index});
        let report = json!({
            "system_account_id": "acct1", "index_name": "main", "item": "exportable",
            "keys": [
                {
                    "key": "example.myshopify.com", "verdict": "conflicting", "named": named("main"),
                    "environment": "prod", "exported_at": "2026-11-21T10:00:00.000Z",
                    "changed_at": "2026-11-21T09:59:58Z", "source": "stream",
                    "differs": ["search_config.limit", "marqo_api_key"],
                    "claimed_by": [named("main"), named("other")],
                },
                {
                    "key": "acct1-main", "verdict": "missing", "differs": [],
                    "claimed_by": [named("main")], "new_field": true,
                },
            ],
            "pointed_at_by": [named("live")],
            "advice": "Have it removed from one of the records.",
        });
        assert_eq!(
            rendered(&report.to_string()),
            "acct1/main: item exportable\n\
             example.myshopify.com: conflicting\n  \
               written       2026-11-21T10:00:00.000Z by stream in prod\n  \
               changed       2026-11-21T09:59:58Z\n  \
               names         acct1/main\n  \
               differs at    search_config.limit, marqo_api_key\n  \
               asked for by  acct1/main, acct1/other\n\
             acct1-main: missing\n  \
               asked for by  acct1/main\n  \
               new_field     true\n\
             pointed at by acct1/live\n\
             Have it removed from one of the records.\n"
        );
    }

    #[test]
    fn a_rejected_item_tells_its_path_and_a_strangers_key_has_no_index() {
        let report = json!({
            "item": "rejected", "path": "index_endpoint", "keys": [], "pointed_at_by": [],
            "advice": "Have it corrected.", "more": [],
        });
        assert_eq!(
            rendered(&report.to_string()),
            "no index: item rejected at index_endpoint\nHave it corrected.\nmore  none\n"
        );
        let strange = json!({
            "item": "absent", "advice": "Nothing.", "keys": [7, {"key": "x\u{1b}y", "verdict": "foreign"}],
        });
        assert_eq!(
            rendered(&strange.to_string()),
            "no index: item absent\n7\nx\\u{1b}y: foreign\nNothing.\n"
        );
    }
}
