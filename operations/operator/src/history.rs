//! What was served of an index, or under a key: the receipts in the function's log.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::function::{Place, Stack};
use crate::given::{About, Given};
use crate::report::{show, show_table};

/// The messages of the lines that tell of an item. A line on held removals begins with the last one.
const RECEIPTS: [&str; 2] = ["exported", "removed"];
const MISHAPS: [&str; 2] = ["record rejected", "record parked"];
const HELD: &str = "removals held";
/// The most lines that a query gives.
const LIMIT: usize = 10_000;
const SINCE: &str = "7d";
/// The pause before the results of a query are asked for again.
const PAUSE: Duration = Duration::from_millis(500);

/// What became of an item at one time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Entry {
    from: String,
    /// When the next receipt for one of its keys follows; none while this one holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<String>,
    what: String,
    system_account_id: String,
    index_name: String,
    #[serde(flatten)]
    fields: BTreeMap<&'static str, String>,
    keys: Vec<String>,
}

/// `history`: prints what was served, the newest first.
pub fn history(given: &Given, place: &Place) -> Result<(), Failure> {
    let seconds = seconds(given.text("SINCE").unwrap_or(SINCE))?;
    let lines = |about: &About<'_>| match place {
        Place::Local(local) => {
            let log = local.log()?;
            Ok(log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
        }
        Place::Aws(stack) => queried(stack, &query(about), seconds),
    };
    let about = given.about("history")?;
    let mut entries = entries(&lines(&about)?, &about);
    if let About::Key(key) = about {
        // A record that was not exported names no keys, only its index.
        let indexes: BTreeSet<(String, String)> = entries
            .iter()
            .map(|entry| (entry.system_account_id.clone(), entry.index_name.clone()))
            .collect();
        for (account, index) in indexes {
            let about = About::Index(&account, &index);
            let of_index = self::entries(&lines(&about)?, &about).into_iter();
            entries.extend(of_index.filter(|entry| entry.keys.is_empty()));
        }
        entries.iter_mut().for_each(|entry| entry.keys.retain(|one| one == key));
    }
    entries.sort_by(|one, other| other.from.cmp(&one.from));
    served_until(&mut entries);
    if given.switch("RAW")? {
        return show(given, &json!(entries).to_string());
    }
    if entries.is_empty() {
        println!(
            "The log has nothing of it. A record that was rejected or parked names its index alone: \
             ask with ACCOUNT and INDEX. What KV holds now: make explain"
        );
    }
    show_table(&table(&entries))
}

/// `7d`, `12h` or `30m` in seconds.
fn seconds(since: &str) -> Result<u64, Failure> {
    let units = [('d', 86_400), ('h', 3_600), ('m', 60)];
    let parsed = units.iter().find_map(|(unit, seconds)| {
        let number: u64 = since.strip_suffix(*unit)?.parse().ok()?;
        number.checked_mul(*seconds)
    });
    parsed.ok_or_else(|| Failure::usage("SINCE is like 7d, 12h or 30m"))
}

/// The query in the language of CloudWatch Logs Insights. It may find too much, never too little: the
/// lines are looked at again here.
fn query(about: &About<'_>) -> String {
    let names = RECEIPTS.iter().chain(&MISHAPS).map(|message| format!("\"{message}\""));
    let names = names.collect::<Vec<_>>().join(", ");
    let of_it = match about {
        About::Index(account, index) => {
            [mentions(account), mentions(index)].into_iter().flatten().collect()
        }
        About::Key(key) => mentions(key).into_iter().collect::<Vec<_>>(),
    };
    let of_it: String = of_it.iter().map(|part| format!(" and {part}")).collect();
    format!(
        "filter (message in [{names}] or message like \"{HELD}\"){of_it}\n\
         | fields @message\n| sort @timestamp desc\n| limit {LIMIT}"
    )
}

/// That a line holds a text: its longest part that needs no escape in a query.
fn mentions(text: &str) -> Option<String> {
    let plain = |letter: char| letter.is_alphanumeric() || " ._:/-".contains(letter);
    let part = text.split(|letter| !plain(letter)).max_by_key(|part| part.len())?;
    (!part.is_empty()).then(|| format!("@message like \"{part}\""))
}

fn queried(stack: &Stack, query: &str, seconds: u64) -> Result<Vec<Value>, Failure> {
    let group = format!("/aws/lambda/{}", stack.output("FunctionName")?);
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let asked = json!({
        "logGroupName": group, "startTime": now.saturating_sub(seconds), "endTime": now,
        "queryString": query,
    });
    let asked = stack.aws.file("file", "query.json", &asked)?;
    let started = stack.aws.call("logs start-query --cli-input-json", &[&asked])?;
    let id = started["queryId"].as_str().unwrap_or_default();
    let results = loop {
        let answer = stack.aws.call("logs get-query-results --query-id", &[id])?;
        match answer["status"].as_str() {
            Some("Complete") => break answer,
            Some("Scheduled" | "Running") => sleep(PAUSE),
            other => return Err(Failure::because(format!("the query ended as {other:?}"))),
        }
    };
    let rows = results["results"].as_array().map_or(&[][..], Vec::as_slice);
    if rows.len() == LIMIT {
        eprintln!("There is more than a query gives: ask with a shorter SINCE.");
    }
    let line = |row: &Value| {
        let mut fields = row.as_array()?.iter();
        let message = fields.find(|field| field["field"] == "@message")?;
        serde_json::from_str(message["value"].as_str()?).ok()
    };
    Ok(rows.iter().filter_map(line).collect())
}

fn entries(lines: &[Value], about: &About<'_>) -> Vec<Entry> {
    lines.iter().filter_map(|line| entry(line, about)).collect()
}

/// What a line tells of what is asked about, if it tells anything of it.
fn entry(line: &Value, about: &About<'_>) -> Option<Entry> {
    let text = |name: &str| line[name].as_str().map(str::to_owned);
    let message = line["message"].as_str()?;
    let keys: Vec<String> = match &line["keys"] {
        Value::Array(keys) => keys.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        Value::String(keys) => keys.split(", ").map(str::to_owned).collect(),
        _ => Vec::new(),
    };
    let (account, index) = match (message.starts_with(HELD), about) {
        (true, About::Index(account, index)) => {
            let name = format!("{account}/{index}");
            let items = line["items"].as_str()?;
            let held = items.split(", ").any(|item| item == name);
            held.then(|| ((*account).to_owned(), (*index).to_owned()))?
        }
        (true, About::Key(_)) => return None,
        (false, _) => (text("system_account_id")?, text("index_name")?),
    };
    let asked = match about {
        About::Index(of, name) => account == *of && index == *name,
        About::Key(key) => keys.iter().any(|one| one == key),
    };
    let detail = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
    let what = match message {
        "record rejected" => format!("rejected at {}", detail("path")),
        "record parked" => format!("parked, cell {}", detail("cell")),
        message if message.starts_with(HELD) => "removal held".to_owned(),
        message if RECEIPTS.contains(&message) => message.to_owned(),
        _ => return None,
    };
    let names = ["normalized_query", "source", "changed_at", "sequence_number", "digest"];
    let fields = names.into_iter().filter_map(|name| Some((name, text(name)?))).collect();
    let from = text("timestamp").unwrap_or_default();
    asked.then_some(Entry {
        from,
        until: None,
        what,
        system_account_id: account,
        index_name: index,
        fields,
        keys,
    })
}

/// Says until when each receipt held, in a list with the newest first.
fn served_until(entries: &mut [Entry]) {
    let mut next: BTreeMap<String, String> = BTreeMap::new();
    for entry in entries {
        entry.until = entry.keys.iter().filter_map(|key| next.get(key)).min().cloned();
        for key in &entry.keys {
            next.insert(key.clone(), entry.from.clone());
        }
    }
}

fn table(entries: &[Entry]) -> Vec<Vec<String>> {
    let heading = ["from", "until", "what", "by", "changed", "change", "digest", "of", "keys"];
    let row = |entry: &Entry| {
        let field = |name: &str| entry.fields.get(name).cloned().unwrap_or_default();
        let until = match &entry.until {
            Some(until) => until.clone(),
            None if entry.keys.is_empty() => String::new(),
            None => "now".to_owned(),
        };
        let query = entry.fields.get("normalized_query");
        let query = query.map(|query| format!(" {query:?}")).unwrap_or_default();
        vec![
            entry.from.clone(),
            until,
            entry.what.clone(),
            field("source"),
            field("changed_at"),
            field("sequence_number"),
            field("digest").chars().take(8).collect(),
            format!("{}/{}{query}", entry.system_account_id, entry.index_name),
            entry.keys.join(", "),
        ]
    };
    if entries.is_empty() {
        return Vec::new();
    }
    let heading = heading.map(str::to_owned).to_vec();
    std::iter::once(heading).chain(entries.iter().map(row)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(minute: u32, message: &str, more: Value) -> Value {
        let mut line = json!({
            "timestamp": format!("2026-11-22T14:{minute:02}:00.000Z"), "message": message,
            "system_account_id": "a", "index_name": "i", "source": "stream",
        });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    }

    #[test]
    fn a_receipt_holds_until_the_next_one_for_one_of_its_keys() {
        let both = json!({"keys": ["s.example", "a-i"], "changed_at": "2026-11-22T14:01:58Z"});
        let lines = [
            line(2, "exported", both),
            line(3, "record rejected", json!({"path": "index_endpoint"})),
            line(4, "exported", json!({"keys": "s.example, a-i", "source": "re-export"})),
            line(5, "removed", json!({"keys": ["s.example"]})),
            line(6, "exported", json!({"keys": ["x"], "index_name": "other"})),
            json!({"timestamp": "2026-11-22T14:07:00.000Z", "message": "removals held: many",
                "items": "b/i, a/i"}),
            json!({"timestamp": "2026-11-22T14:08:00.000Z", "message": "invocation"}),
        ];
        let mut entries = entries(&lines, &About::Index("a", "i"));
        entries.reverse();
        served_until(&mut entries);

        let shown: Vec<_> = entries
            .iter()
            .map(|entry| {
                let until = entry.until.as_deref().map_or("-", |until| &until[14..16]);
                format!("{} {until} {}", &entry.from[14..16], entry.what)
            })
            .collect();
        assert_eq!(
            shown,
            [
                "07 - removal held",
                "05 - removed",
                "04 05 exported",
                "03 - rejected at index_endpoint",
                "02 04 exported"
            ]
        );
        let table = table(&entries);
        assert_eq!(table[2][1], "now", "{table:?}");
        assert_eq!(table[5][4], "2026-11-22T14:01:58Z");
    }

    #[test]
    fn a_key_finds_the_receipts_that_name_it_and_no_longer_one() {
        let lines = [
            line(2, "exported", json!({"keys": ["s.example", "a-i"]})),
            line(3, "exported", json!({"keys": ["ss.example"]})),
        ];
        let found = entries(&lines, &About::Key("s.example"));
        assert_eq!(found.len(), 1);
    }

    #[test]
    fn a_query_holds_nothing_of_a_name_that_would_end_its_text() {
        let query = query(&About::Index("acct-1", "x\" or message = \"start"));
        assert!(
            query.contains(" and @message like \"acct-1\" and @message like \" or message \"\n")
        );
        assert_eq!(mentions("\"\\\""), None);
    }

    #[test]
    fn since_is_a_number_of_days_hours_or_minutes() {
        assert_eq!(
            ["7d", "12h", "30m"].map(|since| seconds(since).unwrap()),
            [604_800, 43_200, 1_800]
        );
        for wrong in ["7", "d", "-1h", "99999999999999999999d", "7w"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
