//! What the developer sees: plain lines, with some colour if standard output is a terminal.

use std::fmt;
use std::io::IsTerminal;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use testbed::kv::KvRequest;
use testbed::lambda::LogLine;

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
        println!("  {} {text}", self.paint(style, &format!("{label:>6}")));
    }

    pub fn request(self, request: &KvRequest) {
        let status = request.status.map_or_else(|| "no answer".to_owned(), |code| code.to_string());
        let unit = if request.pairs == 1 { "pair" } else { "pairs" };
        self.line(
            Style::Bold,
            "sent",
            &format!(
                "{} {}, {} {unit}, {}: {status}{}",
                request.verb,
                request.namespace,
                request.pairs,
                bytes(request.body_bytes),
                self.paint(Style::Dim, &names(&request.keys)),
            ),
        );
    }

    /// A value's fields in their order, the API key masked.
    pub fn fields(self, value: &str) {
        let Ok(Fields(fields)) = serde_json::from_str(value) else { return };
        for (name, value) in fields {
            let value = if name == "marqo_api_key" { "\"****\"" } else { value.get() };
            println!("         {} {value}", self.paint(Style::Dim, &format!("{name:<23}")));
        }
    }

    /// A line of the function's log, if it is a warning or an error.
    pub fn warning(self, line: &LogLine) {
        if let Some((style, level, text)) = warning(line) {
            self.line(style, level, &text);
        }
    }
}

/// An object's fields in their order. A map would sort them.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Fields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                std::iter::from_fn(|| map.next_entry().transpose()).collect()
            }
        }
        deserializer.deserialize_map(InOrder).map(Self)
    }
}

/// The level and the text of a warning or an error. A line that is not JSON counts as an error: a
/// panic prints such lines.
pub fn warning(line: &LogLine) -> Option<(Style, &'static str, String)> {
    let Ok(Value::Object(mut record)) = serde_json::from_str(&line.text) else {
        return Some((Style::Red, "log", line.text.clone()));
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
    let fields = record.iter().map(|(name, value)| match value {
        Value::String(text) => format!(" {name}={text}"),
        other => format!(" {name}={other}"),
    });
    let message = message.as_ref().and_then(Value::as_str).unwrap_or_default();
    Some((style, level, message.to_owned() + &fields.collect::<String>()))
}

/// A size for people to read.
pub fn bytes(bytes: usize) -> String {
    if bytes < 1_000 { format!("{bytes} B") } else { format!("{:.1} kB", bytes as f64 / 1_000.0) }
}

pub fn millis(duration: Duration) -> String {
    format!("{} ms", duration.as_millis())
}

fn names(keys: &[String]) -> String {
    let shown: Vec<_> = keys.iter().take(4).map(|key| short(key)).collect();
    let more = keys.len() - shown.len();
    let shown = shown.join(", ");
    match (keys.len(), more) {
        (0, _) => String::new(),
        (_, 0) => format!("  {shown}"),
        _ => format!("  {shown} and {more} more"),
    }
}

/// A key, cut short: nobody reads the hash in a query config's key.
fn short(key: &str) -> String {
    let mut shown: String = key.chars().take(32).collect();
    if shown.len() < key.len() {
        shown.push('…');
    }
    shown
}
