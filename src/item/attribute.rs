//! DynamoDB JSON, read by serde's derive, and written so that the same attributes always give the same
//! bytes: keys ascend by code point, sets become ascending arrays, binary becomes base64, an integer of
//! 64 bits stays an integer, and any other number becomes the nearest double.

use std::cmp::Ordering;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::ser::{Error, Serialize, Serializer};
use serde_json::Number;

use super::Map;

/// An attribute of an item. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, serde::Deserialize)]
#[expect(clippy::upper_case_acronyms, reason = "DynamoDB's own names")]
pub enum Attribute {
    S(String),
    N(String),
    BOOL(bool),
    /// Null, whatever the flag says.
    NULL(bool),
    M(Map),
    L(Vec<Attribute>),
    /// In base64.
    B(String),
    SS(Vec<String>),
    NS(Vec<String>),
    BS(Vec<String>),
    /// Something else, found by [`Map::read`].
    #[serde(skip)]
    Malformed,
}

impl Attribute {
    pub fn as_string(&self) -> Option<&str> {
        if let Self::S(text) = self { Some(text) } else { None }
    }

    /// Returns a string that is not empty.
    pub fn as_text(&self) -> Option<&str> {
        self.as_string().filter(|text| !text.is_empty())
    }

    pub fn as_bool(&self) -> Option<bool> {
        if let Self::BOOL(flag) = self { Some(*flag) } else { None }
    }

    pub fn as_f64(&self) -> Option<f64> {
        if let Self::N(text) = self { number(text)?.as_f64() } else { None }
    }

    pub fn as_map(&self) -> Option<&Map> {
        if let Self::M(map) = self { Some(map) } else { None }
    }

    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::L(list) = self { Some(list) } else { None }
    }
}

/// Returns the number that a text means to JSON; `None` where JSON can't express it.
fn number(text: &str) -> Option<Number> {
    let integer = text.parse::<i64>().map(Number::from);
    let integer = integer.or_else(|_| text.parse::<u64>().map(Number::from));
    // `from_f64` refuses what JSON can't express: infinities and NaN, which `parse` accepts.
    integer.ok().or_else(|| text.parse().ok().and_then(Number::from_f64))
}

/// The order by value. The double alone would not tell large integers apart.
fn by_value(a: &Number, b: &Number) -> Ordering {
    let double = |number: &Number| number.as_f64().unwrap_or(f64::NAN);
    double(a).total_cmp(&double(b)).then_with(|| a.as_i128().cmp(&b.as_i128()))
}

impl Serialize for Attribute {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let number = |text: &String| number(text).ok_or_else(|| S::Error::custom("not a number"));
        match self {
            Self::S(text) | Self::B(text) => text.serialize(serializer),
            Self::N(text) => number(text)?.serialize(serializer),
            Self::BOOL(flag) => flag.serialize(serializer),
            Self::NULL(_) => serializer.serialize_unit(),
            Self::M(map) => map.serialize(serializer),
            Self::L(list) => list.serialize(serializer),
            Self::SS(set) => {
                let mut set = set.clone();
                set.sort();
                set.serialize(serializer)
            }
            Self::NS(set) => {
                let mut set = set.iter().map(number).collect::<Result<Vec<_>, _>>()?;
                set.sort_by(by_value);
                set.serialize(serializer)
            }
            Self::BS(set) => {
                let mut set = set.clone();
                // By the bytes: base64 has an order of its own.
                set.sort_by_cached_key(|text| BASE64.decode(text).ok());
                set.serialize(serializer)
            }
            Self::Malformed => Err(S::Error::custom("a malformed attribute")),
        }
    }
}

impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attribute").finish_non_exhaustive()
    }
}
