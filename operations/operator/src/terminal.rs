//! What reaches a terminal.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write, stderr, stdout};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::{Duration, Instant};

use crate::{Failure, at};

const COLUMNS: usize = 100;
const HEARTBEAT: Duration = Duration::from_secs(1);
/// Returns to the start of the line, and erases it.
const ERASE: &str = "\r\x1b[K";

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

/// Prints a text to standard error, in the place of the line that moves.
pub fn say(text: &str) {
    let erase = if stderr().is_terminal() { ERASE } else { "" };
    let lines: String = wrapped(text, 0).iter().map(|line| plain(line) + "\n").collect();
    let _ = write!(stderr(), "{erase}{lines}");
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

/// What a command waits for: on a terminal a line that moves every second, elsewhere nothing.
pub struct Progress(Option<(Sender<String>, JoinHandle<()>)>);

impl Progress {
    pub fn start(text: &str) -> Self {
        let mut text = text.to_owned();
        Self(stderr().is_terminal().then(|| {
            let (sender, texts) = channel();
            let painter = spawn(move || {
                let began = Instant::now();
                loop {
                    match texts.recv_timeout(HEARTBEAT) {
                        Ok(next) => text = next,
                        Err(RecvTimeoutError::Timeout) => {}
                        Err(RecvTimeoutError::Disconnected) => break,
                    }
                    let line = plain(&format!("{} s: {text}", began.elapsed().as_secs()));
                    let line: String = line.chars().take(COLUMNS - 1).collect();
                    let _ = write!(stderr(), "{ERASE}{line}");
                }
                let _ = write!(stderr(), "{ERASE}");
            });
            (sender, painter)
        }))
    }

    pub fn show(&self, text: String) {
        if let Some((sender, _)) = &self.0 {
            let _ = sender.send(text);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some((sender, painter)) = self.0.take() {
            drop(sender);
            let _ = painter.join();
        }
    }
}
