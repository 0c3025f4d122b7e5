//! An answer of the function, for people.
//!
//! It knows the reports of an explain, a reconcile and a re-export, and the function's errors. Fields
//! that it does not know follow as they are, so that a newer function's report loses nothing.

mod explain;
mod lines;
mod next_step;
mod reconcile;

use std::io::{Write, stdin, stdout};

use serde_json::{Map, Value};

use crate::failure::{Failure, named};
use crate::given::Given;
pub use lines::plain;
use lines::{Align, Lines};

/// The answer is on standard input.
pub fn print() -> Result<(), Failure> {
    let answer = std::io::read_to_string(stdin())
        .map_err(|error| Failure::because(format!("the answer can't be read: {error}")))?;
    write(&rendered(&answer))
}

/// Shows an answer: for people, or as it is if `RAW` is true.
pub fn show(given: &Given, answer: &str) -> Result<(), Failure> {
    write(&if given.switch("RAW")? { format!("{}\n", answer.trim_end()) } else { rendered(answer) })
}

pub fn show_table(rows: &[Vec<String>]) -> Result<(), Failure> {
    let mut lines = Lines::default();
    let rows: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| plain(cell)).collect()).collect();
    lines.table(&rows, Align::Left);
    write(&lines.finish())
}

pub fn show_fields(fields: &[(String, String)]) -> Result<(), Failure> {
    let mut lines = Lines::default();
    for (name, text) in fields {
        lines.field(name, text);
    }
    write(&lines.finish())
}

/// Whoever reads it may have gone, as `head` does.
fn write(text: &str) -> Result<(), Failure> {
    stdout().write_all(text.as_bytes()).map_err(|error| Failure::because(error.to_string()))
}

/// An answer as text; what is not a JSON object stays as it is.
pub fn rendered(answer: &str) -> String {
    let Ok(fields) = serde_json::from_str::<Map<String, Value>>(answer) else {
        return format!("{}\n", lines::plain(answer.trim_end()));
    };
    let mut report = Report(fields);
    let mut lines = Lines::default();
    if report.0.contains_key("errorType") {
        let [kind, message] = ["errorType", "errorMessage"].map(|name| report.take_text(name));
        lines.line(&named(&kind, &message));
    } else if report.0.contains_key("advice") {
        explain::render(&mut report, &mut lines);
    } else if report.0.contains_key("apply") {
        reconcile::render(&mut report, &mut lines);
    } else if report.0.contains_key("outcome") {
        re_export(&mut report, &mut lines);
    }
    for (name, value) in report.0 {
        lines.field(&name, &lines::text(&value));
    }
    lines.finish()
}

/// The fields of a report that are still to be printed.
struct Report(Map<String, Value>);

impl Report {
    fn take(&mut self, name: &str) -> Option<Value> {
        self.0.remove(name)
    }

    fn take_text(&mut self, name: &str) -> String {
        self.take(name).map(|value| lines::text(&value)).unwrap_or_default()
    }

    /// `account/index`, where the report names them.
    fn take_index(&mut self) -> Option<String> {
        let account = self.take("system_account_id")?;
        let index = self.take("index_name").unwrap_or_default();
        Some(format!("{}/{}", lines::text(&account), lines::text(&index)))
    }
}

fn re_export(report: &mut Report, lines: &mut Lines) {
    let index = report.take_index().unwrap_or_default();
    lines.line(&format!("{index}: {}", report.take_text("outcome").replace('_', " ")));
    lines.field("keys", &report.take_text("settings_keys"));
    if let Some(Value::Object(counts)) = report.take("query_configs") {
        let counts: Vec<String> =
            counts.iter().map(|(name, count)| format!("{} {name}", lines::text(count))).collect();
        lines.field("query configs", &counts.join(", "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_re_export_is_three_lines() {
        let report = json!({
            "system_account_id": "acct1", "index_name": "main", "outcome": "exported",
            "settings_keys": ["example.myshopify.com", "acct1-main"],
            "query_configs": {"exported": 12, "rejected": 1},
        });
        assert_eq!(
            rendered(&report.to_string()),
            "acct1/main: exported\n\
             keys           example.myshopify.com, acct1-main\n\
             query configs  12 exported, 1 rejected\n"
        );
    }

    #[test]
    fn an_error_is_its_type_and_its_message() {
        let error =
            json!({"errorType": "IndexNotFound", "errorMessage": "the table has no such index"});
        assert_eq!(rendered(&error.to_string()), "IndexNotFound: the table has no such index\n");
    }

    #[test]
    fn what_it_does_not_know_is_printed_as_it_is() {
        assert_eq!(rendered("null"), "null\n");
        assert_eq!(rendered("no JSON\u{1b}[31m"), "no JSON\\u{1b}[31m\n");
        assert_eq!(rendered("{}"), "");
        let answer = json!({"batchItemFailures": [], "new": {"a": 1, "b": ["x", "y"]}});
        assert_eq!(
            rendered(&answer.to_string()),
            "batchItemFailures  none\nnew                a: 1, b: x, y\n"
        );
    }
}
