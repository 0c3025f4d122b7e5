//! The queries of the runbook and of the dashboard, in the language of Logs Insights.

use std::collections::BTreeSet;

use serde_json::Value;

/// A file of this repository.
pub fn text_of(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// A Logs Insights query of the runbook, or of the dashboard.
#[derive(Debug)]
pub struct Query {
    pub name: String,
    /// What a line must have, in one of these ways: fields, each with the values that it may have.
    pub filter: Vec<Vec<(String, Vec<String>)>>,
    /// The fields that it shows, counts or groups by.
    pub fields: BTreeSet<String>,
}

/// Words that are not fields.
const WORDS: [&str; 13] = [
    "filter",
    "fields",
    "stats",
    "sort",
    "limit",
    "by",
    "as",
    "and",
    "in",
    "desc",
    "asc",
    "SOURCE",
    "@timestamp",
];

impl Query {
    pub fn parse(name: &str, text: &str) -> Self {
        let mut query = Self { name: name.to_owned(), filter: Vec::new(), fields: BTreeSet::new() };
        let mut aliases = BTreeSet::new();
        for command in text.split('|').map(str::trim) {
            if let Some(condition) = command.strip_prefix("filter ") {
                let way = |way: &str| way.split(" and ").map(parse_condition).collect();
                query.filter = condition.split(" or ").map(way).collect();
                continue;
            }
            if command.starts_with("SOURCE") {
                continue;
            }
            let tokens = tokens(command);
            for (place, token) in tokens.iter().enumerate() {
                let function = tokens.get(place + 1).is_some_and(|next| next == "(");
                let number = token.starts_with(|first: char| first.is_ascii_digit());
                let alias = place > 0 && tokens[place - 1] == "as";
                if alias {
                    aliases.insert(token.clone());
                } else if token.starts_with(is_name)
                    && !function
                    && !number
                    && !WORDS.contains(&token.as_str())
                {
                    query.fields.insert(token.clone());
                }
            }
        }
        query.fields = &query.fields - &aliases;
        query
    }

    /// Whether the query finds a line.
    pub fn matches(&self, line: &Value) -> bool {
        let has = |(name, values): &(String, Vec<String>)| {
            field(line, name)
                .is_some_and(|value| values.iter().any(|wanted| value == wanted.as_str()))
        };
        self.filter.iter().any(|way| way.iter().all(has))
    }

    pub fn shown(&self, line: &Value) -> Value {
        let shown = |name: &String| Some((name.clone(), field(line, name)?.clone()));
        Value::Object(self.fields.iter().filter_map(shown).collect())
    }

    pub fn about(mut self, account: &str, index: &str) -> Self {
        for value in self.filter.iter_mut().flatten().flat_map(|(_, values)| values) {
            *value = value.replace("ACCOUNT", account).replace("INDEX", index);
        }
        self
    }
}

fn is_name(letter: char) -> bool {
    letter.is_alphanumeric() || ['_', '.', '@'].contains(&letter)
}

/// Splits a command into names and brackets.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = vec![String::new()];
    for letter in text.chars() {
        if is_name(letter) {
            tokens.last_mut().unwrap().push(letter);
        } else {
            tokens.extend([letter.to_string(), String::new()]);
        }
    }
    tokens.into_iter().filter(|token| !token.trim().is_empty()).collect()
}

fn parse_condition(condition: &str) -> (String, Vec<String>) {
    let name = condition.trim().split(' ').next().unwrap();
    let values = condition.split(['"', '\'']).skip(1).step_by(2).map(str::to_owned).collect();
    (name.to_owned(), values)
}

/// A field by its name in Logs Insights. The name of a nested field is its path.
pub fn field<'a>(line: &'a Value, name: &str) -> Option<&'a Value> {
    name.split('.').try_fold(line, |value, part| value.get(part)).filter(|value| !value.is_null())
}

/// The queries that the runbook holds.
pub fn queries() -> Vec<Query> {
    let page = text_of("docs/runbook/queries.md");
    let parse = |part: &str| {
        let name = part.lines().next().unwrap();
        Query::parse(name, part.split("```").nth(1).expect("a query in a block"))
    };
    page.split("\n## ").skip(1).map(parse).collect()
}

pub fn query(name: &str) -> Query {
    queries().into_iter().find(|query| query.name == name).expect("a query of that name")
}
