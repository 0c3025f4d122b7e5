//! What reaches a terminal.

use std::fmt::Write as _;
use std::io::{Write, stderr, stdout};

use crate::{Failure, at};

const COLUMNS: usize = 100;

/// Returns a text with JSON's escapes for all characters that do not show as themselves: controls, what
/// changes the direction of a text or ends a line, and what has no width.
///
/// Everything that is printed comes through here: names, errors and messages are other people's texts.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        let is_hidden = character.is_control()
            || matches!(character, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}');
        if is_hidden {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(plain, "\\u{unit:04x}");
            }
        } else {
            plain.push(character);
        }
    }
    plain
}

/// Prints lines to standard output.
pub fn print(lines: &[String]) -> Result<(), Failure> {
    let text: String = lines.iter().map(|line| plain(line) + "\n").collect();
    stdout().write_all(text.as_bytes()).map_err(at("standard output"))
}

/// Prints a text to standard error.
pub fn say(text: &str) {
    let lines: String = wrapped(text, 0).iter().map(|line| plain(line) + "\n").collect();
    let _ = stderr().write_all(lines.as_bytes());
}

/// Breaks a text between its words into lines that begin with `indent` spaces.
pub fn wrapped(text: &str, indent: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= COLUMNS => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(format!("{:indent$}{word}", "")),
        }
    }
    lines
}

/// A name as a shell takes it, in a command that is printed.
pub fn quoted(name: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    match name.bytes().all(is_plain) {
        true => name.to_owned(),
        false => format!("'{}'", name.replace('\'', r"'\''")),
    }
}
