//! The runbook's queries, in the language of Logs Insights, name what the function logs.

use std::collections::BTreeSet;

use super::messages::sources_in;
use crate::helpers::text_of;

/// Words that are not fields.
const WORDS: [&str; 14] = [
    "fields", "stats", "sort", "limit", "by", "as", "in", "and", "or", "desc", "asc", "filter",
    "level", "message",
];

/// The names of the fields that a query reads.
fn fields(query: &str) -> BTreeSet<&str> {
    let is_name = |letter: char| letter.is_alphanumeric() || "_.@(".contains(letter);
    let unquoted = query.split('"').step_by(2);
    let words = unquoted.flat_map(|part| part.split(move |letter| !is_name(letter)));
    // Of a call, the argument.
    let words: Vec<&str> = words.filter_map(|word| word.rsplit('(').next()).collect();
    let is_alias = |place: usize| place > 0 && words[place - 1] == "as";
    let aliases: BTreeSet<&str> =
        (0..words.len()).filter(|place| is_alias(*place)).map(|place| words[place]).collect();
    let mut fields: BTreeSet<&str> = words.iter().copied().collect();
    fields.retain(|name| {
        // What begins with @ or `record.` is written by Lambda.
        name.starts_with(|first: char| first.is_ascii_lowercase())
            && !name.starts_with("record.")
            && !WORDS.contains(name)
            && !aliases.contains(name)
    });
    fields
}

#[test]
fn each_query_reads_fields_and_messages_that_the_function_writes() {
    let page = text_of("docs/runbook/queries.md");
    let sources = sources_in("src");
    let written: BTreeSet<&str> =
        sources.split(|c: char| !(c.is_alphanumeric() || c == '_')).collect();
    let queries: Vec<&str> = page.split("```").skip(1).step_by(2).collect();
    assert_eq!(queries.len(), 7);
    for query in queries {
        for field in fields(query) {
            let name = field.strip_prefix("span.requestId").map_or(field, |_| "requestId");
            assert!(written.contains(name) || name == "type", "{field} in {query}");
        }
        for line in query.lines().filter(|line| line.starts_with("filter message")) {
            for message in line.split('"').skip(1).step_by(2) {
                assert!(sources.contains(&format!("{message:?}")), "{message} in {query}");
            }
        }
    }
}
