//! What the function says at WARN and ERROR, and what the page says of it.

use std::collections::BTreeSet;
use std::path::Path;

use crate::helpers::text_of;

/// The Rust sources below a folder.
fn sources(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => sources(&path),
            false => vec![std::fs::read_to_string(path).unwrap()],
        })
        .collect()
}

/// The arguments of a macro's call that begins after its bracket.
fn arguments(text: &str) -> &str {
    let mut open = 1;
    let mut in_string = false;
    for (place, letter) in text.char_indices() {
        match letter {
            '"' => in_string = !in_string,
            '(' if !in_string => open += 1,
            ')' if !in_string => open -= 1,
            _ => {}
        }
        if open == 0 {
            return &text[..place];
        }
    }
    panic!("the call has no end: {text:.80}")
}

/// All Rust sources below a folder of the repository, in one text.
pub fn sources_in(folder: &str) -> String {
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).concat()
}

/// The message of each line at WARN or ERROR that the sources write.
fn messages() -> BTreeSet<String> {
    let mut messages = BTreeSet::new();
    let sources = sources_in("src");
    for macro_name in ["warn!(", "error!("] {
        for call in sources.split(macro_name).skip(1).map(arguments) {
            let Some(message) = call.split('"').rev().nth(1) else { continue };
            assert!(!message.contains('{'), "names belong into fields: {message}");
            messages.insert(message.to_owned());
        }
    }
    messages
}

#[test]
fn every_message_at_warn_and_error_has_its_meaning_and_its_next_step() {
    let page = text_of("docs/runbook/messages.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|row| row.starts_with("| `"))
        .map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    for row in &rows {
        assert!(row.len() == 3 && row.iter().all(|cell| !cell.is_empty()), "{row:?}");
    }
    let explained: BTreeSet<&str> = rows.iter().map(|row| row[0].trim_matches('`')).collect();
    let messages = messages();
    assert!(messages.len() > 15, "{messages:?}");
    for message in &messages {
        let there = explained.iter().any(|beginning| message.starts_with(beginning));
        assert!(there, "not in the runbook: {message}");
    }
    let sources = sources_in("src");
    for beginning in explained {
        assert!(sources.contains(&format!("\"{beginning}")), "no line says {beginning}");
    }
}
