//! What the developer sees: plain lines, with some colour if standard output is a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use serde_json::Value;
use testbed::kv::KvRequest;

/// The codes of a terminal.
#[derive(Clone, Copy)]
pub enum Style {
    Bold = 1,
    Dim = 2,
    Red = 31,
    Green = 32,
    Yellow = 33,
}

#[derive(Clone, Copy)]
pub struct Screen {
    colour: bool,
}

impl Screen {
    pub fn new() -> Self {
        Self { colour: std::io::stdout().is_terminal() }
    }

    pub fn paint(self, style: Style, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        format!("\u{1b}[{}m{text}\u{1b}[0m", style as u8)
    }

    pub fn line(self, style: Style, label: &str, text: &str) {
        println!("   {} {text}", self.paint(style, &format!("{label:<8}")));
    }

    pub fn request(self, request: &KvRequest) {
        const KEYS: usize = 4;
        let KvRequest { verb, namespace, body_bytes, keys, status, .. } = request;
        let status = status.map_or_else(|| "no answer".to_owned(), |code| code.to_string());
        let shown: Vec<String> = keys.iter().take(KEYS).map(|key| short(key)).collect();
        let more = if keys.len() > KEYS { ", …" } else { "" };
        let names = self.paint(Style::Dim, &format!("{}{more}", shown.join(", ")));
        let count = keys.len();
        let text = format!("{verb} {namespace}, {count} keys, {body_bytes} B: {status}  {names}");
        self.line(Style::Bold, "sent", &text);
    }

    /// A line of the function's log, if it is a warning or an error.
    pub fn warning(self, line: &str) {
        if let Some((style, level, text)) = warning(line) {
            self.line(style, level, &text);
        }
    }
}

/// The level and the text of a warning or an error. A line that is not JSON counts as an error: a
/// panic prints such lines.
pub fn warning(line: &str) -> Option<(Style, &'static str, String)> {
    let Ok(Value::Object(mut record)) = serde_json::from_str(line) else {
        return Some((Style::Red, "log", line.to_owned()));
    };
    let (style, level) = match record.remove("level")?.as_str()? {
        "WARN" => (Style::Yellow, "warn"),
        "ERROR" => (Style::Red, "error"),
        _ => return None,
    };
    if let Some(Value::Object(fields)) = record.remove("fields") {
        record.extend(fields);
    }
    let message = record.remove("message");
    for noise in ["timestamp", "target", "span", "spans", "requestId"] {
        record.remove(noise);
    }
    let fields = record.iter().map(|(name, value)| format!(" {name}={}", plain(value)));
    let message = message.as_ref().and_then(Value::as_str).unwrap_or_default();
    Some((style, level, message.to_owned() + &fields.collect::<String>()))
}

/// A value for people to read: a text without its quotes.
pub fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub fn millis(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

/// A key, cut short: nobody reads the hash in a query config's key.
fn short(key: &str) -> String {
    let shown: String = key.chars().take(32).collect();
    if shown.len() < key.len() { shown + "…" } else { shown }
}
