//! What is asked of an explain beside one index or key: what saving an item would do, and what an account has.

use serde_json::{Value, json};

use crate::Failure;
use crate::commands::invoke;
use crate::place::{Place, Variables};
use crate::report::{diff, index, text};
use crate::terminal::{print, wrapped};
use crate::words::Words;

/// Prints what saving an item would do, like a plan. Fails with 3 where that would break something.
pub fn try_item(words: &Words<'_>, variables: Variables<'_>) -> Result<(), Failure> {
    let mut item = words.file("ITEM")?;
    // As `aws dynamodb get-item` prints it, or as the examples of the schemas have it.
    if let Some(name) =
        ["Item", "item"].into_iter().find(|name| item["pk"].is_null() && !item[name].is_null())
    {
        item = item[name].take();
    }
    let values = words.is("VALUES");
    let question = json!({"item": item, "removed": words.is("REMOVED"), "values": values});
    let place = Place::of(words, variables)?;
    let (report, raw) = invoke(words, &place, &json!({"explain": question}))?;
    print(&raw.unwrap_or_else(|| plan(&report)))?;
    let broken = report["breaks"].as_array().map_or(0, Vec::len);
    match broken {
        0 => Ok(()),
        _ => Err(Failure { code: 3, why: "Saving this would break something.".to_owned() }),
    }
}

/// Prints the indexes of an account, with the verdicts of their keys.
pub fn account(words: &Words<'_>, variables: Variables<'_>) -> Result<(), Failure> {
    let Some(account) = words.get("ACCOUNT") else {
        return Err(words.wrong("explain needs KEY, or ACCOUNT, or ACCOUNT and INDEX"));
    };
    let place = Place::of(words, variables)?;
    let mut question = json!({"system_account_id": account});
    loop {
        let (mut report, raw) = invoke(words, &place, &json!({"explain": question}))?;
        print(&raw.unwrap_or_else(|| listed(&report["indexes"])))?;
        question["continue"] = report["continue"].take();
        if question["continue"].is_null() {
            return Ok(());
        }
    }
}

fn listed(indexes: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    for index in indexes.as_array().into_iter().flatten() {
        let path = index["path"].as_str().map(|path| format!(" at {path}")).unwrap_or_default();
        lines.push(format!("{}: {}{path}", text(&index["index_name"]), text(&index["item"])));
        for key in index["keys"].as_array().into_iter().flatten() {
            lines.push(format!("  {}: {}", text(&key["key"]), text(&key["verdict"])));
        }
    }
    lines
}

fn plan(report: &Value) -> Vec<String> {
    let names = |list: &Value| -> Vec<String> {
        list.as_array().into_iter().flatten().filter_map(index).collect()
    };
    let item = json!({"system_account_id": report["system_account_id"], "index_name": report["index_name"]});
    let name = index(&item).unwrap_or_else(|| "the item".to_owned());
    let path = report["path"].as_str().map(|path| format!(" at {path}")).unwrap_or_default();
    let mut lines = vec![format!("{name}: {}{path}", text(&report["item"]))];
    for key in report["keys"].as_array().into_iter().flatten() {
        let (sign, outcome) = outcome(key["verdict"].as_str().unwrap_or_default());
        lines.push(format!("  {sign} {}: {outcome}", text(&key["key"])));
        match key.get("values") {
            Some(values) => lines.extend(diff(values, 6)),
            None => {
                let paths = key["differs"].as_array().into_iter().flatten();
                lines.extend(paths.map(|path| format!("      {}", text(path))));
            }
        }
    }
    let pointers = names(&report["pointed_at_by"]);
    if !pointers.is_empty() {
        lines.push("pointed at by".to_owned());
        lines.extend(pointers.into_iter().map(|pointer| format!("  {pointer}")));
    }
    let targets = report["targets"].as_array().map_or(&[][..], Vec::as_slice);
    if !targets.is_empty() {
        lines.push("points at".to_owned());
    }
    for target in targets {
        let on: Vec<String> =
            target["points_at"].as_array().into_iter().flatten().map(text).collect();
        let on =
            if on.is_empty() { String::new() } else { format!(", an alias of {}", on.join(", ")) };
        let other = if target["another_account"] == true { ", of another account" } else { "" };
        let verdict = text(&target["verdict"]);
        lines.push(format!("  {}: {verdict}{on}{other}", text(&target["index_id"])));
    }
    lines.extend(report["warning"].as_str().map(|warning| format!("warning: {warning}")));
    let broken = report["breaks"].as_array().map_or(&[][..], Vec::as_slice);
    if !broken.is_empty() {
        lines.push("would break".to_owned());
    }
    lines.extend(broken.iter().flat_map(|sentence| wrapped(&text(sentence), 2)));
    lines
}

/// What would become of a key, with the sign of a plan.
fn outcome(verdict: &str) -> (char, &str) {
    match verdict {
        "missing" => ('+', "would be written"),
        "stale" | "conflicting" => ('~', "would be written"),
        "orphaned" => ('-', "would be removed"),
        "right" => ('=', "stays as it is"),
        "withheld" => ('=', "stays: active aliases point at it"),
        "rejected" => ('=', "stays: its item cannot be exported"),
        "foreign" => ('=', "stays: it is not the exporter's"),
        "failed" => ('?', "its account's API key is unavailable"),
        other => ('?', other),
    }
}
