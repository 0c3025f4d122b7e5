//! The commands, and the payloads of those that invoke the function.

use serde_json::{Value, json};

use crate::place::{Place, Variables};
use crate::terminal::{Progress, print, say};
use crate::words::{Words, help};
use crate::{Failure, at, history, reconcile, report, status, wrong_use};

pub fn run(arguments: &[String], variables: Variables<'_>) -> Result<(), Failure> {
    let name = arguments.first().map_or("", String::as_str);
    if name == "--version" {
        return print(&[format!("operator {}", env!("CARGO_PKG_VERSION"))]);
    }
    let is_help = |argument: &str| ["", "help", "--help", "-h"].contains(&argument);
    let command = if is_help(name) { "operator" } else { name };
    let help = help(command)
        .ok_or_else(|| wrong_use(format_args!("there is no command {name}: operator --help")))?;
    if command == "operator" || arguments.iter().any(|argument| is_help(argument)) {
        return print(&help.lines().map(str::to_owned).collect::<Vec<_>>());
    }
    let words = Words::parse(command, &arguments[1..])?;
    match command {
        "explain" => explain(&words, variables),
        "re-export" => re_export(&words, variables),
        "reconcile" => reconcile::reconcile(&words, variables),
        "follow" => reconcile::follow(&words, variables),
        "stop-reconciles" => reconcile::stop_all(&words, variables),
        "history" => history::history(&words, variables),
        "invoke-remote" => invoke(&words, variables),
        _ => status::ask(command, &words, variables),
    }
}

fn explain(words: &Words<'_>, variables: Variables<'_>) -> Result<(), Failure> {
    let payload = json!({"explain": words.subject()?});
    ask(words, &payload, &Place::of(words, variables)?)
}

fn re_export(words: &Words<'_>, variables: Variables<'_>) -> Result<(), Failure> {
    let payload = json!({
        "system_account_id": words.need("ACCOUNT")?,
        "index_name": words.need("INDEX")?,
        "include_query_configs": words.is("QUERY_CONFIGS"),
    });
    ask(words, &payload, &Place::of(words, variables)?)
}

fn invoke(words: &Words<'_>, variables: Variables<'_>) -> Result<(), Failure> {
    let path = words.need("EVENT")?;
    let event = std::fs::read_to_string(path).map_err(at(path))?;
    let payload: Value = serde_json::from_str(&event)
        .map_err(|error| words.wrong(format_args!("{path} is not JSON, {error}")))?;
    let place = Place::of(words, variables)?;
    // A sample of a stream must not be written to an environment in AWS.
    if payload.get("Records").is_some() && matches!(place, Place::Aws(_)) {
        return Err(words.wrong("a stream event goes only to a local function"));
    }
    ask(words, &payload, &place)
}

/// Invokes the function, and prints its answer.
fn ask(words: &Words<'_>, payload: &Value, place: &Place) -> Result<(), Failure> {
    say("The function is asked. After Ctrl-C it goes on by itself.");
    let waiting = Progress::start("waiting for the function");
    let answer = place.invoke(payload, words.get("QUALIFIER").unwrap_or("live"))?;
    drop(waiting);
    if words.is("RAW") {
        return print(&answer.lines().map(str::to_owned).collect::<Vec<_>>());
    }
    let report = report::parsed(&answer);
    print(&[report::lines(&report), report::what_to_do(&report)].concat())
}
