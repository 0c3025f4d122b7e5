//! Aligned lines, and values as text.

use serde_json::Value;

/// On which side all cells but the first of a row are aligned.
#[derive(Clone, Copy)]
pub enum Align {
    Left,
    Right,
}

/// Lines that are being put together. Fields that follow each other are aligned.
#[derive(Default)]
pub struct Lines {
    text: String,
    fields: Vec<(String, String)>,
}

impl Lines {
    pub fn line(&mut self, text: &str) {
        self.end_block();
        self.text.push_str(text);
        self.text.push('\n');
    }

    pub fn field(&mut self, name: &str, text: &str) {
        self.fields.push((plain(name), text.to_owned()));
    }

    pub fn table(&mut self, rows: &[Vec<String>], align: Align) {
        self.end_block();
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        let width = |column: usize| {
            rows.iter().filter_map(|row| row.get(column)).map(|cell| length(cell)).max()
        };
        let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
        for row in rows {
            let cells =
                row.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
                    match (column, align) {
                        (0, _) => format!("{cell:<width$}"),
                        (_, Align::Left) => format!("  {cell:<width$}"),
                        (_, Align::Right) => format!("  {cell:>width$}"),
                    }
                });
            self.text.push_str(cells.collect::<String>().trim_end());
            self.text.push('\n');
        }
    }

    pub fn finish(mut self) -> String {
        self.end_block();
        self.text
    }

    /// Aligns the fields so far.
    pub fn end_block(&mut self) {
        let width = self.fields.iter().map(|(name, _)| length(name)).max().unwrap_or_default();
        for (name, text) in self.fields.drain(..) {
            self.text.push_str(format!("{name:<width$}  {text}").trim_end());
            self.text.push('\n');
        }
    }
}

/// A value for people: strings without quotes, lists and objects without brackets.
pub fn text(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => plain(text),
        Value::Array(values) if values.is_empty() => "none".to_owned(),
        Value::Array(values) => joined(values.iter().map(text)),
        Value::Object(fields) => {
            match (fields.get("system_account_id"), fields.get("index_name")) {
                (Some(account), Some(index)) if fields.len() == 2 => {
                    format!("{}/{}", text(account), text(index))
                }
                _ => joined(
                    fields.iter().map(|(name, value)| format!("{}: {}", plain(name), text(value))),
                ),
            }
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

/// A text without control characters: a key's name may be anybody's.
pub fn plain(text: &str) -> String {
    let escaped = |character: char| match character.is_control() {
        true => character.escape_default().to_string(),
        false => character.to_string(),
    };
    text.chars().map(escaped).collect()
}

fn joined(texts: impl Iterator<Item = String>) -> String {
    texts.collect::<Vec<_>>().join(", ")
}

fn length(text: &str) -> usize {
    text.chars().count()
}
