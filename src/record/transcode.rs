//! From DynamoDB JSON straight to canonical JSON, for the stream: what [`super::json`] gives
//! for the decoded attribute, without holding it in between.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde_dynamo::AttributeValue;

use super::json;
use crate::cursor::{Cursor, Malformed, Text};

/// Transcodes attributes, one after the other; keeps what it needs to put keys in order.
#[derive(Debug, Default)]
pub struct Transcoder<'a> {
    /// The entries of the maps that are open, the innermost map's last: the key, and where the
    /// entry stands in what is written.
    entries: Vec<(Cow<'a, str>, Range<usize>)>,
    unordered: String,
}

impl<'a> Transcoder<'a> {
    /// Takes an attribute in DynamoDB JSON and appends it to `out` as canonical JSON.
    ///
    /// An error says nothing but that the attribute is malformed, or a number of it can't be
    /// written; decoding it finds out what and where. `out` then ends with a part of it.
    pub fn push(&mut self, out: &mut String, cursor: &mut Cursor<'a>) -> Result<(), Malformed> {
        self.entries.clear();
        self.attribute(out, cursor)
    }

    /// `{"S":"…"}` and its like.
    fn attribute(&mut self, out: &mut String, cursor: &mut Cursor<'a>) -> Result<(), Malformed> {
        match kind(cursor)? {
            b"S" => push_text(out, cursor.string()?)?,
            b"N" => {
                json::push_number(out, &cursor.string()?.decoded()?).map_err(|_| Malformed)?;
            }
            b"M" => self.map(out, cursor)?,
            b"L" => self.list(out, cursor)?,
            b"BOOL" => out.push_str(if cursor.flag()? { "true" } else { "false" }),
            b"NULL" => {
                cursor.flag()?;
                out.push_str("null");
            }
            kind => push_rare(out, kind, cursor)?,
        }
        cursor.leave(b'}')
    }

    fn map(&mut self, out: &mut String, cursor: &mut Cursor<'a>) -> Result<(), Malformed> {
        let first = self.entries.len();
        let mut ascending = true;
        out.push('{');
        let body = out.len();
        cursor.object(|cursor, key| {
            if out.len() > body {
                out.push(',');
            }
            let start = out.len();
            push_text(out, key)?;
            out.push(':');
            self.attribute(out, cursor)?;
            let key = key.decoded()?;
            ascending =
                ascending && self.entries[first..].last().is_none_or(|(last, _)| *last < key);
            self.entries.push((key, start..out.len()));
            Ok::<(), Malformed>(())
        })?;
        if !ascending {
            self.put_in_order(out, body, first);
        }
        self.entries.truncate(first);
        out.push('}');
        Ok(())
    }

    /// Writes the entries from the `first` on again, which stand from `body` on, with their keys
    /// ascending. Of a key that stands twice the last one is kept, as in a decoded map.
    fn put_in_order(&mut self, out: &mut String, body: usize, first: usize) {
        let entries = &mut self.entries[first..];
        entries.sort_by(|(a, _), (b, _)| a.cmp(b));
        self.unordered.clear();
        self.unordered.push_str(&out[body..]);
        out.truncate(body);
        for (position, (key, range)) in entries.iter().enumerate() {
            if entries.get(position + 1).is_some_and(|(next, _)| next == key) {
                continue;
            }
            if out.len() > body {
                out.push(',');
            }
            out.push_str(&self.unordered[range.start - body..range.end - body]);
        }
    }

    fn list(&mut self, out: &mut String, cursor: &mut Cursor<'a>) -> Result<(), Malformed> {
        out.push('[');
        let body = out.len();
        cursor.array(|cursor| {
            if out.len() > body {
                out.push(',');
            }
            self.attribute(out, cursor)
        })?;
        out.push(']');
        Ok(())
    }
}

/// Takes an attribute up to its value, `{"S":` or its like, and gives the name of its type.
#[inline]
fn kind<'a>(cursor: &mut Cursor<'a>) -> Result<&'a [u8], Malformed> {
    cursor.enter(b'{')?;
    if let Some(kind) = cursor.letter_key() {
        return Ok(kind);
    }
    let name = cursor.string()?;
    cursor.take(b':')?;
    match name.decoded()? {
        Cow::Borrowed(kind) => Ok(kind.as_bytes()),
        Cow::Owned(_) => Err(Malformed),
    }
}

/// A string without escapes is written in JSON as it came.
#[inline]
fn push_text(out: &mut String, text: Text<'_>) -> Result<(), Malformed> {
    match text.plain_literal() {
        Some(literal) => out.push_str(literal),
        None => json::push_string(out, &text.decoded()?),
    }
    Ok(())
}

/// Takes a value of the types that few tables hold.
#[inline(never)]
fn push_rare(out: &mut String, kind: &[u8], cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
    match kind {
        b"B" => json::push_base64(out, &binary(&cursor.string()?.decoded()?)?),
        b"SS" => push_set(out, &AttributeValue::Ss(strings(cursor)?))?,
        b"NS" => push_set(out, &AttributeValue::Ns(strings(cursor)?))?,
        b"BS" => {
            let blobs: Result<_, _> = strings(cursor)?.iter().map(|text| binary(text)).collect();
            push_set(out, &AttributeValue::Bs(blobs?))?;
        }
        _ => return Err(Malformed),
    }
    Ok(())
}

fn push_set(out: &mut String, set: &AttributeValue) -> Result<(), Malformed> {
    json::push_attribute(out, set, "").map_err(|_| Malformed)
}

fn strings(cursor: &mut Cursor<'_>) -> Result<Vec<String>, Malformed> {
    let mut strings = Vec::new();
    cursor.array(|cursor| {
        strings.push(cursor.string()?.decoded()?.into_owned());
        Ok(())
    })?;
    Ok(strings)
}

fn binary(text: &str) -> Result<Vec<u8>, Malformed> {
    BASE64.decode(text).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decoded(dynamodb: &str) -> Option<String> {
        let value: AttributeValue = serde_json::from_str(dynamodb).ok()?;
        let mut out = String::new();
        json::push_attribute(&mut out, &value, "").ok()?;
        Some(out)
    }

    fn transcoded(dynamodb: &str) -> Option<String> {
        let mut out = String::from("before");
        let mut cursor = Cursor::new(dynamodb);
        Transcoder::default().push(&mut out, &mut cursor).ok()?;
        cursor.end().ok()?;
        out.strip_prefix("before").map(str::to_owned)
    }

    #[test]
    fn a_key_that_stands_twice_counts_as_it_does_decoded() {
        for twice in [
            r#"{"M":{"a":{"N":"1"},"b":{"N":"2"},"a":{"N":"3"}}}"#,
            r#"{"M":{"a":{"N":"1"},"a":{"N":"3"}}}"#,
        ] {
            assert_eq!(transcoded(twice), decoded(twice));
        }
    }

    #[test]
    fn what_is_malformed_is_refused() {
        for bad in [
            r#"{}"#,
            r#"{"Q":1}"#,
            r#"{"S":1}"#,
            r#"{"N":"x"}"#,
            r#"{"N":1}"#,
            r#"{"B":"*"}"#,
            r#"{"L":{}}"#,
            r#"{"M":[]}"#,
            r#"{"S":"a","N":"1"}"#,
            r#"{"S":"a"} x"#,
            "7",
            "",
        ] {
            assert_eq!(transcoded(bad), None, "{bad}");
        }
        let deep = format!("{}{}", r#"{"L":["#.repeat(10_000), "]}".repeat(10_000));
        assert_eq!(transcoded(&deep), None);
    }

    fn attribute() -> impl Strategy<Value = serde_json::Value> {
        let number = || {
            prop_oneof![
                any::<i64>().prop_map(|n| n.to_string()),
                any::<u64>().prop_map(|n| n.to_string()),
                (-1e30..1e30).prop_map(|n: f64| n.to_string()),
            ]
        };
        let binary = || proptest::collection::vec(any::<u8>(), 0..6).prop_map(|b| BASE64.encode(b));
        let leaf = prop_oneof![
            ".*".prop_map(|s| serde_json::json!({"S": s})),
            number().prop_map(|n| serde_json::json!({"N": n})),
            any::<bool>().prop_map(|b| serde_json::json!({"BOOL": b})),
            Just(serde_json::json!({"NULL": true})),
            binary().prop_map(|b| serde_json::json!({"B": b})),
            proptest::collection::vec(".*", 0..4).prop_map(|s| serde_json::json!({"SS": s})),
            proptest::collection::vec(number(), 0..4).prop_map(|n| serde_json::json!({"NS": n})),
            proptest::collection::vec(binary(), 0..4).prop_map(|b| serde_json::json!({"BS": b})),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..5)
                    .prop_map(|list| serde_json::json!({"L": list})),
                proptest::collection::vec((".{0,4}", inner), 0..6).prop_map(|entries| {
                    let map: serde_json::Map<String, serde_json::Value> =
                        entries.into_iter().collect();
                    serde_json::json!({"M": map})
                }),
            ]
        })
    }

    proptest! {
        #[test]
        fn transcoding_gives_what_decoding_gives(attribute in attribute()) {
            let text = attribute.to_string();
            prop_assert_eq!(transcoded(&text), decoded(&text));
        }

        #[test]
        fn any_text_is_answered_as_when_decoded(text in r#"[{}\[\]",:SNMLB01a ]{0,24}"#) {
            if let Some(json) = transcoded(&text) {
                prop_assert_eq!(Some(json), decoded(&text));
            }
        }
    }
}
