//! A KV value as it is sent: a JSON string literal, and the digest of the text that it stands for.

use super::json;
use crate::digest::Digest;

/// A value, encoded once for all the keys that it goes under. May hold an API key: no `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Encoded {
    literal: String,
    digest: Digest,
    bytes: usize,
}

impl Encoded {
    /// Encodes a value.
    pub fn of(value: &str) -> Self {
        let mut literal = String::with_capacity(literal_bytes(value.len()));
        json::push_string(&mut literal, value);
        Self { literal, digest: Digest::of(value.as_bytes()), bytes: value.len() }
    }

    /// The value as a JSON string literal.
    pub fn literal(&self) -> &str {
        &self.literal
    }

    /// The digest of the value's bytes.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The value's size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

/// A value that is encoded but for a string in its midst, which is not known yet.
pub struct Draft {
    literal: String,
    gap: usize,
}

impl Draft {
    /// Encodes what stands before and behind the string.
    pub fn new(head: &str, tail: &str) -> Self {
        let mut literal = String::with_capacity(literal_bytes(head.len() + tail.len()));
        literal.push('"');
        json::push_escaped(&mut literal, head);
        let gap = literal.len();
        json::push_escaped(&mut literal, tail);
        literal.push('"');
        Self { literal, gap }
    }

    /// Completes the value with the string. `head` and `tail` are those that it was made of.
    pub fn complete(self, head: &str, text: &str, tail: &str) -> Encoded {
        let Self { mut literal, gap } = self;
        let mut json = String::with_capacity(text.len() + 2);
        json::push_string(&mut json, text);
        let mut escaped = String::with_capacity(json.len() + 2);
        json::push_escaped(&mut escaped, &json);
        literal.insert_str(gap, &escaped);
        let parts = [head, &json, tail];
        let digest = Digest::of_parts(&parts.map(str::as_bytes));
        Encoded { literal, digest, bytes: parts.iter().map(|part| part.len()).sum() }
    }
}

/// About what a value's literal takes: its escapes make it a quarter longer. The API key's may come
/// on top.
fn literal_bytes(value: usize) -> usize {
    const API_KEY: usize = 96;
    value + value / 4 + API_KEY
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_completed_draft_is_the_whole_value_encoded(head in ".*", text in ".*", tail in ".*") {
            let whole = format!("{head}{}{tail}", serde_json::to_string(&text).unwrap());
            let completed = Draft::new(&head, &tail).complete(&head, &text, &tail);
            prop_assert!(completed == Encoded::of(&whole));
            prop_assert_eq!(completed.literal(), serde_json::to_string(&whole).unwrap());
            prop_assert_eq!(completed.bytes(), whole.len());
        }
    }
}
