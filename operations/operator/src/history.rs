//! What was served: the receipts in the function's log, one for each key that KV confirmed.

use std::cmp::Reverse;
use std::thread::sleep;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::place::{Place, Stack, Variables};
use crate::terminal::{Progress, print, say, wrapped};
use crate::words::Words;
use crate::{Failure, aws, failed, report};

const MESSAGES: [&str; 4] = ["exported", "removed", "record rejected", "record parked"];
const HELD: &str = "removals held";
/// The most lines that a query gives.
const LIMIT: usize = 10_000;
/// The pause before the results of a query are asked for again.
const PAUSE: Duration = Duration::from_millis(500);

/// Prints the lines of the log that tell of a key or an index: by key, the newest first.
pub fn history(words: &Words<'_>, variables: Variables<'_>) -> Result<(), Failure> {
    let subject = words.subject()?;
    let since = words.get("SINCE").unwrap_or("7d").strip_suffix('d');
    let days: u32 = since
        .and_then(|days| days.parse().ok())
        .ok_or_else(|| words.wrong("SINCE is a number of days, like 7d"))?;
    let log = match Place::of(words, variables)? {
        Place::Local(local) => local.log()?.lines().map(report::parsed).collect(),
        Place::Aws(stack) => queried(&stack, &subject, days)?,
    };
    let text = |line: &Value, name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let mut lines: Vec<Value> = log.into_iter().filter(|line| tells_of(line, &subject)).collect();
    lines.sort_by_key(|line| (text(line, "key"), Reverse(text(line, "timestamp"))));
    if words.is("RAW") {
        return print(&[Value::Array(lines).to_string()]);
    }
    let mut shown = Vec::new();
    for of_key in lines.chunk_by(|one, other| one["key"] == other["key"]) {
        let title = of_key[0]["key"].as_str().unwrap_or("not exported");
        shown.push([title, &text(&of_key[0], "normalized_query")].join("  ").trim().to_owned());
        for line in of_key {
            let names = ["timestamp", "message", "path", "cell", "source", "changed_at"];
            let fields = names.map(|name| text(line, name)).join(" ");
            shown.extend(wrapped(&format!("{fields} {:.8}", text(line, "digest")), 2));
        }
    }
    if lines.is_empty() {
        say("The log has nothing of it. What KV holds: make explain");
    }
    print(&shown)
}

/// Whether a line tells of the key or the index. Its fields say so: a name within another text proves
/// nothing.
fn tells_of(line: &Value, subject: &Value) -> bool {
    let message = line["message"].as_str().unwrap_or_default();
    if message.starts_with(HELD) {
        // The log may have the array as text.
        let items = line["items"].as_str().map_or_else(|| line["items"].clone(), report::parsed);
        let items: Vec<String> = serde_json::from_value(items).unwrap_or_default();
        return report::index(subject).is_some_and(|index| items.contains(&index));
    }
    let mut fields = subject.as_object().into_iter().flatten();
    MESSAGES.contains(&message) && fields.all(|(name, value)| line[name] == *value)
}

/// Asks CloudWatch Logs Insights for all lines that [`tells_of`] may take.
fn queried(stack: &Stack, subject: &Value, days: u32) -> Result<Vec<Value>, Failure> {
    let name = [&subject["key"], &subject["system_account_id"]].map(Value::as_str);
    let name = name.into_iter().flatten().next().unwrap_or_default();
    // The longest part that needs no escape in a query.
    let is_plain = |letter: char| letter.is_alphanumeric() || "._:-".contains(letter);
    let part = name.split(|letter| !is_plain(letter)).max_by_key(|part| part.len());
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let query = json!({
        "logGroupName": format!("/aws/lambda/{}", stack.output("FunctionName")?),
        "startTime": now.saturating_sub(u64::from(days) * 86_400),
        "endTime": now,
        "queryString": format!(
            "filter (message in {MESSAGES:?} or message like \"{HELD}\") and @message like {:?} \
             | fields @message | sort @timestamp desc | limit {LIMIT}",
            part.unwrap_or_default()
        ),
    });
    let started = aws::json("logs start-query --cli-input-json", &[&query.to_string()])?;
    let id = started["queryId"].as_str().unwrap_or_default();
    let _waiting = Progress::start("the log is searched");
    let results = loop {
        let results = aws::json("logs get-query-results --query-id", &[id])?;
        match results["status"].as_str() {
            Some("Complete") => break results,
            Some("Scheduled" | "Running") => sleep(PAUSE),
            other => return Err(failed(format_args!("the query ended as {other:?}"))),
        }
    };
    let rows = results["results"].as_array().map_or(&[][..], Vec::as_slice);
    if rows.len() == LIMIT {
        say("There is more than a query gives: ask with a shorter SINCE.");
    }
    let message = |row: &Value| {
        let message = row.as_array()?.iter().find(|field| field["field"] == "@message")?;
        Some(report::parsed(message["value"].as_str()?))
    };
    Ok(rows.iter().filter_map(message).collect())
}
