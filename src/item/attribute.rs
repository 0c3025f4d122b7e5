//! DynamoDB JSON: attributes by name, read strictly for what is exported, and leniently for what protects.
//!
//! They are written so that the same attributes always give the same bytes: keys ascend by code point, sets
//! become ascending arrays, binary becomes base64, an integer of 64 bits stays an integer, and any other
//! number becomes the nearest double.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::ser::{Error, Serialize, Serializer};
use serde_json::Number;
use serde_json::value::RawValue;

use super::Rejection;
use crate::json::Json;

pub const NOT_AN_ATTRIBUTE: &str =
    "is not a DynamoDB attribute value, or holds a number that no double can hold";

/// The attributes of an item, or of a map in it. Readers take NULL for absent. Where a name is there twice, the
/// last one counts.
#[derive(PartialEq, Default, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub struct Map(pub(super) BTreeMap<String, Attribute>);

/// An attribute of an item. It has no `Debug`, which would show its value.
#[derive(PartialEq, serde::Deserialize)]
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
    /// Anything else. [`Map::read`] sets it.
    #[serde(skip)]
    Malformed,
}

impl Map {
    /// Reads an item's attributes. Each is decoded by itself: one that is no DynamoDB JSON becomes
    /// [`Attribute::Malformed`]. What is no object has none.
    pub fn read(json: &str) -> Self {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(json).unwrap_or_default();
        let read =
            |json: &RawValue| serde_json::from_str(json.get()).unwrap_or(Attribute::Malformed);
        Self(fields.into_iter().map(|(name, json)| (name, read(json))).collect())
    }

    pub fn get(&self, name: &str) -> Option<&Attribute> {
        self.0.get(name).filter(|attribute| !matches!(attribute, Attribute::NULL(_)))
    }
}

/// Lenient: an attribute of another type, or a malformed one, counts as absent.
impl Map {
    /// Returns a string that is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_text()
    }

    pub fn map(&self, name: &str) -> Option<&Self> {
        self.get(name)?.as_map().ok()
    }
}

/// Strict: an attribute of another type, or a malformed one, is a rejection.
impl Map {
    /// Returns an attribute as `read` has it.
    pub fn read_as<'a, T>(
        &'a self,
        name: &str,
        read: impl FnOnce(&'a Attribute) -> Result<T, &'static str>,
    ) -> Result<Option<T>, Rejection> {
        let read = |attribute| match attribute {
            &Attribute::Malformed => Err(NOT_AN_ATTRIBUTE),
            attribute => read(attribute),
        };
        self.get(name).map(read).transpose().map_err(|reason| Rejection::new(name, reason))
    }

    /// Returns a string; the empty one counts as absent.
    pub fn read_text(&self, name: &str) -> Result<Option<String>, Rejection> {
        let text = self.read_as(name, Attribute::as_string)?;
        Ok(text.filter(|text| !text.is_empty()).map(str::to_owned))
    }

    /// Returns a map of any content as canonical JSON.
    pub fn read_json(&self, name: &str) -> Result<Option<Json>, Rejection> {
        let map = self.read_as(name, Attribute::as_map)?;
        map.map(Json::of).transpose().map_err(|_| Rejection::new(name, NOT_AN_ATTRIBUTE))
    }

    pub fn read_map<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Self) -> Result<T, Rejection>,
    ) -> Result<Option<T>, Rejection> {
        let map = self.read_as(name, Attribute::as_map)?;
        map.map(read).transpose().map_err(|rejection| rejection.inside(name))
    }

    /// Returns a list of maps, an empty one where there is none.
    pub fn read_maps<T>(
        &self,
        name: &str,
        read: impl Fn(&Self) -> Result<T, Rejection>,
    ) -> Result<Vec<T>, Rejection> {
        let list = self.read_as(name, Attribute::as_list)?.unwrap_or_default();
        let read = |(position, element): (usize, &Attribute)| {
            let path = format!("{name}[{position}]");
            let map = element.as_map().map_err(|reason| Rejection::new(&path, reason))?;
            read(map).map_err(|rejection| rejection.inside(&path))
        };
        list.iter().enumerate().map(read).collect()
    }
}

/// An error is the reason of a rejection.
impl Attribute {
    pub fn as_string(&self) -> Result<&str, &'static str> {
        if let Self::S(text) = self { Ok(text) } else { Err("must be a string (S)") }
    }

    pub fn as_bool(&self) -> Result<bool, &'static str> {
        if let Self::BOOL(flag) = self { Ok(*flag) } else { Err("must be a boolean (BOOL)") }
    }

    pub fn as_f64(&self) -> Result<f64, &'static str> {
        let number = if let Self::N(text) = self { number(text) } else { None };
        let double = number.and_then(|number| number.as_f64());
        double.ok_or("must be a number (N) that a double can hold")
    }

    pub fn as_map(&self) -> Result<&Map, &'static str> {
        if let Self::M(map) = self { Ok(map) } else { Err("must be a map (M)") }
    }

    pub fn as_list(&self) -> Result<&[Self], &'static str> {
        if let Self::L(list) = self { Ok(list) } else { Err("must be a list (L)") }
    }

    /// Returns a string that is not empty.
    pub fn as_text(&self) -> Option<&str> {
        self.as_string().ok().filter(|text| !text.is_empty())
    }
}

/// Returns a number as JSON has it, `None` where JSON can't express it.
fn number(text: &str) -> Option<Number> {
    let integer = text.parse::<i64>().map(Number::from);
    let integer = integer.or_else(|_| text.parse::<u64>().map(Number::from));
    if let Ok(integer) = integer {
        return Some(integer);
    }
    let double: f64 = text.parse().ok()?;
    // DynamoDB writes no `1.0` and no `1e2`, but people who edit an event do.
    let is_integer = double.fract() == 0.0 && double.abs() < MAX_EXACT;
    // `from_f64` refuses what JSON can't express: infinities and NaN, which `parse` accepts.
    if is_integer { Some((double as i64).into()) } else { Number::from_f64(double) }
}

/// Up to here a double holds every integer.
const MAX_EXACT: f64 = 9_007_199_254_740_992.0;

/// Returns the order by value. The double alone would not tell large integers apart.
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

#[cfg(test)]
mod tests {
    use super::*;

    impl From<serde_json::Value> for Map {
        fn from(json: serde_json::Value) -> Self {
            Self::read(&json.to_string())
        }
    }

    fn json(dynamodb: &str) -> Option<String> {
        let attribute: Attribute = serde_json::from_str(dynamodb).ok()?;
        serde_json::to_string(&attribute).ok()
    }

    #[test]
    fn an_attribute_becomes_canonical_json() {
        let rows = [
            (r#"{"S":"a\u0062\n"}"#, r#""ab\n""#),
            (r#"{"BOOL":false}"#, "false"),
            (r#"{"NULL":false}"#, "null"),
            (r#"{"B":"aGk="}"#, r#""aGk=""#),
            (r#"{"L":[{"S":"b"},{"S":"a"},{"NULL":true}]}"#, r#"["b","a",null]"#),
            // Integers of 64 bits stay what they are, and the rest are the nearest doubles.
            (r#"{"N":"-9223372036854775808"}"#, "-9223372036854775808"),
            (r#"{"N":"18446744073709551615"}"#, "18446744073709551615"),
            (r#"{"N":"18446744073709551616"}"#, "1.8446744073709552e+19"),
            (r#"{"N":"-9223372036854775809"}"#, "-9.223372036854776e+18"),
            (r#"{"N":"3.14159265358979323846"}"#, "3.141592653589793"),
            (r#"{"N":"1E+125"}"#, "1e+125"),
            (r#"{"N":"1E2"}"#, "100"),
            (r#"{"N":"-2.0"}"#, "-2"),
            // Sets ascend by value: numbers beyond a double's digits and bytes, too.
            (r#"{"SS":["b","a","B"]}"#, r#"["B","a","b"]"#),
            (r#"{"NS":["10","9","-1","0.5"]}"#, "[-1,0.5,9,10]"),
            (
                r#"{"NS":["9007199254740993","9007199254740992E0","9007199254740992"]}"#,
                "[9007199254740992.0,9007199254740992,9007199254740993]",
            ),
            (r#"{"BS":["/w==","AA==","AP8="]}"#, r#"["AA==","AP8=","/w=="]"#),
            // Names ascend by code point, and of one that stands twice the last counts.
            (
                r#"{"M":{"b":{"NULL":true},"a":{"BOOL":true},"Z":{"S":"x"},"ä":{"L":[]},"😀":{"M":{}},"\uffee":{"N":"1"}}}"#,
                "{\"Z\":\"x\",\"a\":true,\"b\":null,\"ä\":[],\"\u{ffee}\":1,\"😀\":{}}",
            ),
            (r#"{"M":{"a":{"S":"first"},"a":{"S":"last"}}}"#, r#"{"a":"last"}"#),
        ];
        for (dynamodb, expected) in rows {
            assert_eq!(json(dynamodb).as_deref(), Some(expected), "{dynamodb}");
        }
    }

    #[test]
    fn anything_else_is_malformed() {
        for bad in [
            "{}",
            r#"{"Q":"x"}"#,
            r#"{"S":7}"#,
            r#"{"S":"a","N":"1"}"#,
            r#"{"BOOL":"true"}"#,
            r#"{"N":1}"#,
            r#"{"N":"1e999"}"#,
            r#"{"N":"NaN"}"#,
            r#"{"N":""}"#,
            r#"{"NS":["1","x"]}"#,
            r#"{"Malformed":null}"#,
        ] {
            assert_eq!(json(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_malformed_attribute_hides_no_other_and_is_never_quoted() {
        let map = Map::read(
            r#"{"worse":7,"twice":{"S":"first"},"bad":{"M":{"a":{"L":[{"S":"ok"},{"N":"s3cret",
            "S":""}]}}},"twice":{"S":"last"},"null":{"NULL":true}}"#,
        );
        assert_eq!(map.text("twice"), Some("last"));
        assert!(map.get("null").is_none() && map.get("none").is_none());
        for bad in ["bad", "worse"] {
            let rejection = map.read_json(bad).unwrap_err();
            assert_eq!(rejection, Rejection::new(bad, NOT_AN_ATTRIBUTE));
            assert!(map.map(bad).is_none(), "{bad}");
        }
        for no_object in ["7", "[]", "null"] {
            assert!(Map::read(no_object) == Map::default(), "{no_object}");
        }
    }

    #[test]
    fn nesting_without_end_is_malformed_and_no_crash() {
        for (depth, is_read) in [(40, true), (200, false), (5_000, false)] {
            let deep = format!("{}{}", r#"{"L":["#.repeat(depth), "]}".repeat(depth));
            let map = Map::read(&format!(r#"{{"deep":{deep},"good":{{"S":"x"}}}}"#));
            assert_eq!(map.text("good"), Some("x"));
            assert_eq!(map.get("deep") != Some(&Attribute::Malformed), is_read, "{depth}");
        }
    }
}
