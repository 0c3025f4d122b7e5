//! The commands, and the payloads of those that invoke the function.

use serde_json::{Value, json};

use crate::place::{Place, Variables};
use crate::terminal::{Progress, print, say};
use crate::words::{Words, help};
use crate::{Failure, explain, history, reconcile, report, status, wrong_use};

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
        "explain" if words.get("KEY").or(words.get("INDEX")).is_none() => {
            explain::account(&words, variables)
        }
        "explain" => {
            let mut question = words.subject()?;
            question["values"] = words.is("VALUES").into();
            ask(&words, &json!({"explain": question}), variables)
        }
        "try" => explain::try_item(&words, variables),
        "re-export" => {
            let mut payload = json!({"include_query_configs": words.is("QUERY_CONFIGS")});
            payload["system_account_id"] = words.need("ACCOUNT")?.into();
            payload["index_name"] = words.need("INDEX")?.into();
            ask(&words, &payload, variables)
        }
        "invoke-remote" => ask(&words, &words.file("EVENT")?, variables),
        "reconcile" => reconcile::reconcile(&words, variables),
        "follow" => reconcile::follow(&words, variables),
        "stop-reconciles" => reconcile::stop_all(&words, variables),
        "history" => history::history(&words, variables),
        _ => status::ask(command, &words, variables),
    }
}

/// Invokes the function, and prints its answer.
fn ask(words: &Words<'_>, payload: &Value, variables: Variables<'_>) -> Result<(), Failure> {
    let place = Place::of(words, variables)?;
    // A sample of a stream must not be written to an environment in AWS.
    if payload.get("Records").is_some() && matches!(place, Place::Aws(_)) {
        return Err(words.wrong("a stream event goes only to a local function"));
    }
    let (report, raw) = invoke(words, &place, payload)?;
    let local = if matches!(place, Place::Local(_)) { " LOCAL=true" } else { "" };
    let advice = || report::what_to_do(&report, local);
    print(&raw.unwrap_or_else(|| [report::lines(&report), advice()].concat()))
}

/// Invokes the function. Returns its report, and the lines of that as JSON where those are asked for.
pub fn invoke(
    words: &Words<'_>,
    place: &Place,
    payload: &Value,
) -> Result<(Value, Option<Vec<String>>), Failure> {
    say("The function is asked. After Ctrl-C it goes on by itself.");
    let waiting = Progress::start("waiting for the function");
    let answer = place.invoke(payload, words.get("QUALIFIER").unwrap_or("live"))?;
    drop(waiting);
    let raw = words.is("RAW").then(|| answer.lines().map(str::to_owned).collect());
    Ok((report::parsed(&answer), raw))
}
