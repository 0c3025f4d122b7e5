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
    /// Anything else. [`Map::read`] sets it.
    #[serde(skip)]
    Malformed,
}

/// All but [`Attribute::as_text`] return what the attribute has to be where it is something else.
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
    // `from_f64` refuses what JSON can't express: infinities and NaN, which `parse` accepts.
    integer.ok().or_else(|| text.parse().ok().and_then(Number::from_f64))
}

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

impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attribute").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn debug_shows_no_value() {
        let attribute: Attribute =
            serde_json::from_str(r#"{"L":[{"S":"s3cret"},{"N":"4711"}]}"#).unwrap();
        let shown = format!("{attribute:?}");
        assert!(!shown.contains("s3cret") && !shown.contains("4711"), "{shown}");
    }
}
