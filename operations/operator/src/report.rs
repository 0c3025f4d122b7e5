//! What the function answers, for people: field by field, a list with one name a line.

use serde_json::Value;

use crate::terminal::{quoted, wrapped};

/// The runbook's page on verdicts. Its table has a line for each, the worst first: the verdict, what it
/// means, what to do.
const PAGE: &str = include_str!("../../../docs/runbook/explain.md");

/// The fields of a report. What is empty or zero is left out.
pub fn lines(report: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for (name, value) in report.as_object().into_iter().flatten() {
        show(name, value, 0, &mut lines);
    }
    lines
}

fn show(name: &str, value: &Value, indent: usize, lines: &mut Vec<String>) {
    let title = lines.len();
    match value {
        Value::Object(fields) if index(value).is_none() => {
            let is_said = |name: &str| {
                let is_in_values = name == "differs" && fields.contains_key("values");
                is_in_values || ["key", "verdict"].contains(&name)
            };
            let rest = fields.iter().filter(|(name, _)| !is_said(name));
            rest.for_each(|(name, value)| show(name, value, indent + 2, lines));
        }
        Value::Array(_) if name == "values" => lines.extend(diff(value, indent + 2)),
        Value::Array(values) => values.iter().for_each(|value| show("", value, indent + 2, lines)),
        _ => {}
    }
    let text = match (value["key"].as_str(), lines.len() > title) {
        (Some(key), _) => format!("{key}: {}", text(&value["verdict"])),
        (None, true) => name.to_owned(),
        (None, false) if is_nothing(value) => return,
        (None, false) if name.is_empty() => text(value),
        (None, false) => format!("{name}: {}", text(value)),
    };
    lines.insert(title, format!("{:indent$}{text}", ""));
}

/// Returns whether a value without lines of its own is null or zero, or holds nothing else.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Object(_) => index(value).is_none(),
        _ => value.is_null() || value.is_array() || *value == 0,
    }
}

/// What KV holds at each path, and what would be written.
pub fn diff(values: &Value, indent: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for value in values.as_array().into_iter().flatten() {
        lines.push(format!("{:indent$}{}", "", text(&value["path"])));
        for (sign, side) in [('-', "held"), ('+', "wanted")] {
            lines.extend(value.get(side).map(|side| format!("{:indent$}  {sign} {side}", "")));
        }
    }
    lines
}

/// `account/index`, where a value names an index and nothing else.
pub fn index(value: &Value) -> Option<String> {
    let names = [value["system_account_id"].as_str()?, value["index_name"].as_str()?];
    (value.as_object()?.len() == 2).then(|| names.join("/"))
}

/// An answer as JSON; null where it is none.
pub fn parsed(answer: &str) -> Value {
    serde_json::from_str(answer).unwrap_or_default()
}

pub fn text(value: &Value) -> String {
    let text = value.as_str().map(str::to_owned).or_else(|| index(value));
    text.unwrap_or_else(|| value.to_string())
}

/// An error of the function with its name, which some messages hold already.
pub fn error(answer: &Value) -> String {
    let [kind, message] = ["errorType", "errorMessage"].map(|name| text(&answer[name]));
    let named = format!("{kind}: ");
    if message.contains(&named) { message } else { named + &message }
}

/// What to do about each verdict of an explain, the worst first, with the word that each command needs. Nothing for
/// other reports.
pub fn what_to_do(report: &Value, word: &str) -> Vec<String> {
    let Some(keys) = report["keys"].as_array() else { return Vec::new() };
    // Nothing but aliases knows the index.
    let is_dangling = report["item"] == "absent"
        && report["pointed_at_by"].get(0).is_some()
        && keys.iter().all(|key| key["verdict"] == "foreign");
    let mut lines = vec!["what to do".to_owned()];
    for row in PAGE.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cells: Vec<&str> = row.split(" | ").collect();
        let [verdict, _, advice, ..] = cells[..] else { continue };
        let verdict = verdict.trim_end_matches('`');
        let key = keys.iter().find(|key| key["verdict"] == verdict);
        let is_found = match is_dangling {
            true => verdict == "dangling",
            false => key.is_some() || report["item"] == verdict,
        };
        if is_found && (verdict != "right" || lines.len() == 1) {
            let advice = filled(advice, word, report, key.unwrap_or(&Value::Null));
            let said = wrapped(&format!("{verdict}: {advice}"), 2);
            lines.extend(said.into_iter().map(|line| line.replace(UNBROKEN, " ")));
        }
    }
    lines
}

/// A space of a command: a command that is broken into lines is another one.
const UNBROKEN: char = '\u{1}';

/// The advice with its commands' words, and the names of the index to write: the one that the report is about if it
/// asks for the key, or nothing does; else the first that does.
fn filled(advice: &str, word: &str, report: &Value, key: &Value) -> String {
    let names = |of: &Value| ["system_account_id", "index_name"].map(|part| text(&of[part]));
    let claimants = key["claimed_by"].as_array().map_or(&[][..], Vec::as_slice);
    let asks = claimants.iter().any(|claimant| names(claimant) == names(report));
    let [account, index] = names(claimants.first().filter(|_| !asks).unwrap_or(report));
    let query_configs = match text(&key["key"]).starts_with("qcfg-") {
        true => " QUERY_CONFIGS=true",
        false => "",
    };
    let index = format!("INDEX={}{query_configs}", quoted(&index));
    let account = format!("ACCOUNT={}", quoted(&account));
    let command = |code: &str| {
        let target = ["make re-export", "make reconcile"].iter().find(|it| code.starts_with(**it));
        let code =
            target.map_or(code.to_owned(), |it| code.replacen(it, &format!("{it}{word}"), 1));
        let code = code.replace("INDEX=i", &index).replace("ACCOUNT=a", &account);
        code.replace(' ', &UNBROKEN.to_string())
    };
    // Every second part stands between backticks.
    let parts = advice.split('`').enumerate();
    parts.map(|(n, part)| if n % 2 == 1 { command(part) } else { part.to_owned() }).collect()
}
