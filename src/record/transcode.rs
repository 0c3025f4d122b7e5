//! From DynamoDB JSON straight to canonical JSON, for the stream: what [`super::json`] gives
//! for the decoded attribute, without holding it in between.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_dynamo::AttributeValue;

use super::json;

/// Appends the attribute that `dynamodb` holds to `out`, as canonical JSON.
///
/// The error says nothing but that the attribute is malformed, or a number of it can't be written;
/// decoding it finds out what and where.
pub fn push_transcoded(out: &mut String, dynamodb: &str) -> Result<(), Malformed> {
    let mut deserializer = serde_json::Deserializer::from_str(dynamodb);
    Attribute(out).deserialize(&mut deserializer).map_err(|_| Malformed)?;
    deserializer.end().map_err(|_| Malformed)
}

/// The attribute can't be transcoded.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

#[derive(Deserialize)]
enum Type {
    S,
    N,
    #[serde(rename = "BOOL")]
    Bool,
    #[serde(rename = "NULL")]
    Null,
    B,
    M,
    L,
    #[serde(rename = "SS")]
    StringSet,
    #[serde(rename = "NS")]
    NumberSet,
    #[serde(rename = "BS")]
    BinarySet,
}

/// `{"S":"…"}` and its like.
struct Attribute<'o>(&'o mut String);

impl<'de> DeserializeSeed<'de> for Attribute<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Attribute<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an attribute value")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(out) = self;
        let kind = map.next_key::<Type>()?.ok_or_else(|| de::Error::custom("no type"))?;
        match kind {
            Type::S => map.next_value_seed(Text(out, push_string))?,
            Type::N => map.next_value_seed(Text(out, push_number))?,
            Type::B => map.next_value_seed(Text(out, push_binary))?,
            Type::Bool => out.push_str(if map.next_value()? { "true" } else { "false" }),
            Type::Null => {
                map.next_value::<bool>()?;
                out.push_str("null");
            }
            Type::M => map.next_value_seed(Map(out))?,
            Type::L => map.next_value_seed(List(out))?,
            Type::StringSet => push_set(out, &AttributeValue::Ss(map.next_value()?))?,
            Type::NumberSet => push_set(out, &AttributeValue::Ns(map.next_value()?))?,
            Type::BinarySet => {
                let texts: Vec<Cow<'de, str>> = map.next_value()?;
                let blobs: Result<_, _> =
                    texts.iter().map(|text| BASE64.decode(text.as_bytes())).collect();
                push_set(out, &AttributeValue::Bs(blobs.map_err(de::Error::custom)?))?;
            }
        }
        match map.next_key::<IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(de::Error::custom("several types")),
        }
    }
}

fn push_set<E: de::Error>(out: &mut String, set: &AttributeValue) -> Result<(), E> {
    json::push_attribute(out, set, "").map_err(de::Error::custom)
}

fn push_string(out: &mut String, text: &str) -> bool {
    json::push_string(out, text);
    true
}

fn push_number(out: &mut String, text: &str) -> bool {
    json::push_number(out, text).is_ok()
}

fn push_binary(out: &mut String, text: &str) -> bool {
    let bytes = BASE64.decode(text);
    bytes.is_ok_and(|bytes| {
        json::push_base64(out, &bytes);
        true
    })
}

/// A string that is written by a function, unless that refuses it.
struct Text<'o>(&'o mut String, fn(&mut String, &str) -> bool);

impl<'de> DeserializeSeed<'de> for Text<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Text<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<(), E> {
        let Self(out, push) = self;
        if push(out, text) { Ok(()) } else { Err(E::custom("refused")) }
    }
}

/// The object of an M.
struct Map<'o>(&'o mut String);

impl<'de> DeserializeSeed<'de> for Map<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

/// A map's key, borrowed unless it is written with escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for Map<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of attribute values")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(out) = self;
        let mut entries: Vec<(Cow<'de, str>, std::ops::Range<usize>)> = Vec::new();
        let mut ascending = true;
        out.push('{');
        let body = out.len();
        while let Some(Key(key)) = map.next_key()? {
            if !entries.is_empty() {
                out.push(',');
            }
            let start = out.len();
            json::push_string(out, &key);
            out.push(':');
            map.next_value_seed(Attribute(out))?;
            ascending &= entries.last().is_none_or(|(last, _)| *last < key);
            entries.push((key, start..out.len()));
        }
        if !ascending {
            // Stable, so that of a key that stands twice the last one is kept, as in a decoded map.
            entries.sort_by(|(a, _), (b, _)| a.cmp(b));
            let written = out.split_off(body);
            for (position, (key, range)) in entries.iter().enumerate() {
                if entries.get(position + 1).is_some_and(|(next, _)| next == key) {
                    continue;
                }
                if out.len() > body {
                    out.push(',');
                }
                out.push_str(&written[range.start - body..range.end - body]);
            }
        }
        out.push('}');
        Ok(())
    }
}

/// The array of an L.
struct List<'o>(&'o mut String);

impl<'de> DeserializeSeed<'de> for List<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for List<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of attribute values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        let Self(out) = self;
        out.push('[');
        let body = out.len();
        loop {
            let comma = out.len() > body;
            if comma {
                out.push(',');
            }
            if list.next_element_seed(Attribute(out))?.is_none() {
                if comma {
                    out.pop();
                }
                break;
            }
        }
        out.push(']');
        Ok(())
    }
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
        push_transcoded(&mut out, dynamodb).ok()?;
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
