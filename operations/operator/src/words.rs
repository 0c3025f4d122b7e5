//! What a command is given: `NAME=value`, the words that `make` takes. `help.txt` says which.

use std::collections::BTreeMap;
use std::fmt::Display;

use serde_json::{Value, json};

use crate::{Failure, wrong_use};

/// A section for all commands, and one for each.
const HELP: &str = include_str!("../help.txt");
/// Every command takes these.
const COMMON: &str = "RAW=true LOCAL=true";

/// The words of one command, checked.
pub struct Words<'a> {
    command: &'a str,
    values: BTreeMap<&'a str, &'a str>,
}

/// The section of a text that has this title; the first one has none.
pub fn section<'a>(text: &'a str, title: &str) -> Option<&'a str> {
    let mut sections = text.split("# ").map(|section| section.split_once('\n'));
    sections.find_map(|section| section.filter(|(of, _)| *of == title)).map(|(_, section)| section)
}

pub fn help(command: &str) -> Option<&'static str> {
    section(HELP, command)
}

/// The examples in a command's help.
fn examples(command: &str) -> impl Iterator<Item = &'static str> {
    let lines = help(command).unwrap_or_default().lines();
    lines.filter_map(|line| line.strip_prefix("  make "))
}

impl<'a> Words<'a> {
    /// A value has to be of the kind that it has in the examples: a switch, a number, or any text. It must not be
    /// empty: a command without ACCOUNT is about all of them.
    pub fn parse(command: &'a str, words: &'a [String]) -> Result<Self, Failure> {
        let mut parsed = Self { command, values: BTreeMap::new() };
        let known = examples(command).chain([COMMON]).flat_map(str::split_whitespace);
        let known: BTreeMap<&str, &str> = known.filter_map(|word| word.split_once('=')).collect();
        let is_number = |text: &str| text.parse::<u64>().is_ok();
        for word in words {
            let known = |(name, value)| Some((name, value, *known.get(name)?));
            let Some((name, value, example)) = word.split_once('=').and_then(known) else {
                return Err(parsed.wrong(format_args!("{command} takes no {word}")));
            };
            let is_of_the_kind = match example {
                "true" => ["true", "false"].contains(&value),
                _ => is_number(value) || !is_number(example),
            };
            if value.is_empty() || !is_of_the_kind {
                return Err(parsed.wrong(format_args!("{word} is not like {name}={example}")));
            }
            parsed.values.insert(name, value);
        }
        Ok(parsed)
    }

    pub fn get(&self, name: &str) -> Option<&'a str> {
        self.values.get(name).copied()
    }

    /// A switch; off where it is not given.
    pub fn is(&self, name: &str) -> bool {
        self.get(name) == Some("true")
    }

    pub fn need(&self, name: &str) -> Result<&'a str, Failure> {
        self.get(name).ok_or_else(|| self.wrong(format_args!("{} needs {name}", self.command)))
    }

    /// The JSON in a file.
    pub fn file(&self, name: &str) -> Result<Value, Failure> {
        let path = self.need(name)?;
        let text = std::fs::read_to_string(path)
            .map_err(|error| self.wrong(format_args!("{path}: {error}")))?;
        serde_json::from_str(&text)
            .map_err(|error| self.wrong(format_args!("{path} is not JSON, {error}")))
    }

    /// The key, or the account and the index: one of them, and not both.
    pub fn subject(&self) -> Result<Value, Failure> {
        match ["KEY", "ACCOUNT", "INDEX"].map(|name| self.get(name)) {
            [Some(key), None, None] => Ok(json!({"key": key})),
            [None, Some(account), Some(index)] => {
                Ok(json!({"system_account_id": account, "index_name": index}))
            }
            [Some(_), ..] => Err(self.wrong("KEY goes without ACCOUNT and INDEX")),
            _ => Err(self.wrong(format_args!("{} needs KEY, or ACCOUNT and INDEX", self.command))),
        }
    }

    /// Wrong use, answered with an example.
    pub fn wrong(&self, why: impl Display) -> Failure {
        let Self { command, .. } = self;
        // Without what stands beside it.
        let example = examples(command).next().and_then(|line| line.split("  ").next());
        let example = example.unwrap_or_default();
        wrong_use(format_args!("{why}. For example: make {example} (operator {command} --help)"))
    }
}
