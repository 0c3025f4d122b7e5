//! How the stack is, and whether this machine can work with it.

use crate::place::{Place, Variables};
use crate::terminal::{Progress, print, wrapped};
use crate::words::{Words, section};
use crate::{Failure, aws, failed};

/// A section for each command. A line has a title, a command of the AWS CLI, and what a query leaves of
/// its answer.
const QUESTIONS: &str = include_str!("../questions.txt");
/// Where the answers begin.
const COLUMN: usize = 25;

/// Asks all questions of a command at once. One that fails does not hide the rest.
pub fn ask(command: &str, words: &Words<'_>, variables: Variables<'_>) -> Result<(), Failure> {
    let place = Place::of(words, variables)?;
    let stack = place.in_aws(&format!("`{command}`"))?;
    let progress = Progress::start("asking AWS");
    let mut names = stack.outputs().unwrap_or_default();
    names.insert("stack".to_owned(), stack.name.clone());
    names.insert("prefix".to_owned(), stack.prefix.clone());
    let mut calls = Vec::new();
    for line in section(QUESTIONS, command).unwrap_or_default().lines() {
        let parts: Vec<&str> = line.split(" | ").collect();
        let [title, command, query] = parts[..] else { continue };
        let mut command = command.to_owned();
        for (name, value) in &names {
            command = command.replace(&format!("{{{name}}}"), value);
        }
        calls.push((title, aws::begin(&command, &["--query", query, "--output", "text"])));
    }
    let mut shown = Vec::new();
    let mut ended = Ok(());
    for (title, call) in calls {
        let answer = call.and_then(aws::Call::text).unwrap_or_else(|failure| {
            ended = Err(failed("Not all of it is known."));
            format!("NOT KNOWN: {}", failure.why.replace('\n', " "))
        });
        let answer = if answer.is_empty() { "none" } else { &answer };
        let mut lines: Vec<String> =
            answer.lines().flat_map(|line| wrapped(line, COLUMN)).collect();
        lines[0].replace_range(..COLUMN, &format!("{title:<COLUMN$}"));
        shown.extend(lines);
    }
    drop(progress);
    print(&shown)?;
    // A doctor looks for what fails.
    if command == "doctor" { ended } else { Ok(()) }
}
