//! DynamoDB JSON, read by serde's derive, and written so that the same attributes always give the same
//! bytes: keys ascend by code point, sets become ascending arrays, binary becomes base64, an integer of
//! 64 bits stays an integer, and any other number becomes the nearest double.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::ser::{Serialize, Serializer};
use serde_json::Number;
use serde_json::value::RawValue;

use crate::json::{RawObject, Text};

/// An attribute of an item. `Debug` shows nothing of it.
#[derive(Clone, PartialEq, serde::Deserialize)]
#[expect(clippy::upper_case_acronyms, reason = "DynamoDB's own names")]
pub enum Attribute<'a> {
    S(#[serde(borrow)] Text<'a>),
    N(#[serde(borrow)] Text<'a>),
    BOOL(bool),
    /// Null, whatever the flag says.
    NULL(bool),
    M(#[serde(borrow)] Map<'a>),
    L(#[serde(borrow)] Vec<Attribute<'a>>),
    /// In base64.
    B(#[serde(borrow)] Text<'a>),
    SS(#[serde(borrow)] Vec<Text<'a>>),
    NS(#[serde(borrow)] Vec<Text<'a>>),
    BS(#[serde(borrow)] Vec<Text<'a>>),
    /// Something else, found by [`Map::read`].
    #[serde(skip)]
    Malformed,
}

/// Attributes by name. Of a name that stands twice, the last one counts.
#[derive(Debug, Clone, PartialEq, Default, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub struct Map<'a>(#[serde(borrow)] BTreeMap<Text<'a>, Attribute<'a>>);

impl<'a> Map<'a> {
    /// Reads an item's attributes, each by itself where they can't be read together: then those that
    /// are no DynamoDB JSON become [`Attribute::Malformed`]. `None` where it is no object at all.
    pub fn read(json: &'a RawValue) -> Option<Self> {
        if let Ok(map) = serde_json::from_str(json.get()) {
            return Some(map);
        }
        let object: RawObject<'_> = serde_json::from_str(json.get()).ok()?;
        let attributes = object.into_fields().map(|(name, value)| {
            (name, serde_json::from_str(value.get()).unwrap_or(Attribute::Malformed))
        });
        Some(Self(attributes.collect()))
    }

    /// The attribute `name`, if there is one that isn't NULL.
    pub fn get(&self, name: &str) -> Option<&Attribute<'a>> {
        self.0.get(name).filter(|attribute| !matches!(attribute, Attribute::NULL(_)))
    }

    pub fn map(&self, name: &str) -> Option<&Map<'a>> {
        match self.get(name) {
            Some(Attribute::M(map)) => Some(map),
            _ => None,
        }
    }

    /// Empty where there is none.
    pub fn list(&self, name: &str) -> &[Attribute<'a>] {
        match self.get(name) {
            Some(Attribute::L(list)) => list,
            _ => &[],
        }
    }

    /// Not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Attribute::as_text)
    }

    /// All attributes, NULL ones too, ascending by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attribute<'a>)> {
        self.0.iter().map(|(name, attribute)| (&**name, attribute))
    }
}

impl<'a> Attribute<'a> {
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::S(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }
}

/// The number that a text means to JSON; `None` where JSON can't express it.
pub fn number(text: &str) -> Option<Number> {
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

impl Serialize for Attribute<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::S(text) | Self::B(text) => text.serialize(serializer),
            Self::N(text) => number(text).ok_or_else(malformed)?.serialize(serializer),
            Self::BOOL(flag) => serializer.serialize_bool(*flag),
            Self::NULL(_) => serializer.serialize_unit(),
            Self::M(map) => map.serialize(serializer),
            Self::L(list) => list.serialize(serializer),
            Self::SS(set) => ascending(set.iter(), Ord::cmp).serialize(serializer),
            Self::NS(set) => {
                let numbers: Option<Vec<Number>> = set.iter().map(|text| number(text)).collect();
                ascending(numbers.ok_or_else(malformed)?, by_value).serialize(serializer)
            }
            Self::BS(set) => {
                // By the bytes: base64 has an order of its own.
                let bytes = |text: &Text<'_>| BASE64.decode(&**text).ok();
                ascending(set.iter(), |a, b| bytes(a).cmp(&bytes(b))).serialize(serializer)
            }
            Self::Malformed => Err(malformed()),
        }
    }
}

fn ascending<T>(set: impl IntoIterator<Item = T>, order: impl Fn(&T, &T) -> Ordering) -> Vec<T> {
    let mut set: Vec<T> = set.into_iter().collect();
    set.sort_by(order);
    set
}

fn malformed<E: serde::ser::Error>() -> E {
    E::custom("a malformed attribute")
}

impl fmt::Debug for Attribute<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attribute").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(dynamodb: &str) -> String {
        let attribute: Attribute<'_> = serde_json::from_str(dynamodb).unwrap();
        serde_json::to_string(&attribute).unwrap()
    }

    fn n(text: &str) -> String {
        json(&format!(r#"{{"N":"{text}"}}"#))
    }

    fn raw(json: &str) -> Box<RawValue> {
        RawValue::from_string(json.to_owned()).unwrap()
    }

    #[test]
    fn integers_of_64_bits_stay_integers_and_the_rest_are_doubles() {
        assert_eq!(n("0"), "0");
        assert_eq!(n("-9223372036854775808"), "-9223372036854775808");
        assert_eq!(n("18446744073709551615"), "18446744073709551615");
        assert_eq!(n("18446744073709551616"), "1.8446744073709552e+19");
        assert_eq!(n("-9223372036854775809"), "-9.223372036854776e+18");
        assert_eq!(n("0.1"), "0.1");
        assert_eq!(n("3.14159265358979323846"), "3.141592653589793");
        assert_eq!(n("1E+125"), "1e+125");
    }

    #[test]
    fn keys_ascend_by_code_point_and_nulls_inside_maps_stay() {
        assert_eq!(
            json(
                r#"{"M":{"b":{"NULL":true},"a":{"BOOL":true},"Z":{"S":"x"},"ä":{"L":[]},"😀":{"M":{}},"\uffee":{"N":"1"}}}"#
            ),
            "{\"Z\":\"x\",\"a\":true,\"b\":null,\"ä\":[],\"\u{ffee}\":1,\"😀\":{}}"
        );
    }

    #[test]
    fn sets_ascend_and_binary_is_base64() {
        assert_eq!(json(r#"{"SS":["b","a","B"]}"#), r#"["B","a","b"]"#);
        assert_eq!(
            json(r#"{"NS":["10","9","-1","0.5","9007199254740993","9007199254740992"]}"#),
            "[-1,0.5,9,10,9007199254740992,9007199254740993]"
        );
        assert_eq!(json(r#"{"B":"aGk="}"#), r#""aGk=""#);
        assert_eq!(json(r#"{"BS":["/w==","AA==","AP8="]}"#), r#"["AA==","AP8=","/w=="]"#);
        assert_eq!(json(r#"{"L":[{"S":"b"},{"S":"a"}]}"#), r#"["b","a"]"#);
    }

    #[test]
    fn every_type_is_told_from_the_others() {
        let attribute: Attribute<'_> = serde_json::from_str(
            r#"{"M":{"s":{"S":"a\u0062"},"n":{"N":"1.50"},"b":{"BOOL":false},"0":{"NULL":true},
            "l":{"L":[{"S":""},{"M":{}}]},"x":{"SS":["y"]},"y":{"B":"AA=="}}}"#,
        )
        .unwrap();
        let Attribute::M(map) = attribute else { panic!("{attribute:?}") };
        assert_eq!(map.text("s"), Some("ab"));
        assert!(matches!(map.get("n"), Some(Attribute::N(text)) if **text == *"1.50"));
        assert_eq!(map.get("b"), Some(&Attribute::BOOL(false)));
        assert_eq!((map.get("0"), map.get("none")), (None, None));
        assert_eq!(map.list("l").len(), 2);
        assert_eq!((map.text("n"), map.list("s").len(), map.map("l")), (None, 0, None));
    }

    #[test]
    fn of_a_name_that_stands_twice_the_last_one_counts() {
        assert_eq!(json(r#"{"M":{"a":{"S":"first"},"a":{"S":"last"}}}"#), r#"{"a":"last"}"#);
    }

    #[test]
    fn anything_else_is_malformed() {
        for bad in [
            "",
            "{}",
            r#"{"Q":"x"}"#,
            r#"{"S":7}"#,
            r#"{"S":"a","N":"1"}"#,
            r#"{"BOOL":"true"}"#,
            r#"{"N":1}"#,
            r#"{"Malformed":null}"#,
        ] {
            assert!(serde_json::from_str::<Attribute<'_>>(bad).is_err(), "{bad}");
        }
        for no_number in ["1e999", "NaN", "", "x"] {
            for bad in [format!(r#"{{"N":"{no_number}"}}"#), format!(r#"{{"NS":["{no_number}"]}}"#)]
            {
                let attribute: Attribute<'_> = serde_json::from_str(&bad).unwrap();
                assert!(serde_json::to_string(&attribute).is_err(), "{bad}");
            }
        }
    }

    #[test]
    fn a_malformed_attribute_hides_no_other() {
        let json =
            raw(r#"{"good":{"S":"x"},"bad":{"M":{"a":{"L":[{"S":"ok"},{"N":1}]}}},"worse":7}"#);
        let map = Map::read(&json).unwrap();
        assert_eq!(map.text("good"), Some("x"));
        for bad in ["bad", "worse"] {
            assert_eq!(map.get(bad), Some(&Attribute::Malformed));
        }
        for no_object in ["7", "[]", "null"] {
            assert!(Map::read(&raw(no_object)).is_none(), "{no_object}");
        }
    }

    #[test]
    fn nesting_without_end_is_malformed_and_no_crash() {
        for depth in [40, 200, 5_000] {
            let deep = format!("{}{}", r#"{"L":["#.repeat(depth), "]}".repeat(depth));
            let json = raw(&format!(r#"{{"deep":{deep},"good":{{"S":"x"}}}}"#));
            let map = Map::read(&json).unwrap();
            assert_eq!(map.text("good"), Some("x"));
            assert_eq!(map.get("deep") == Some(&Attribute::Malformed), depth > 60, "{depth}");
        }
    }

    #[test]
    fn debug_shows_no_value() {
        let json =
            r#"{"M":{"a":{"S":"s3cret"},"b":{"L":[{"N":"4711"},{"SS":["s3cret"]},{"B":"s3cr"}]}}}"#;
        let attribute: Attribute<'_> = serde_json::from_str(json).unwrap();
        let shown = format!("{attribute:?}");
        assert!(!shown.contains("s3cr") && !shown.contains("4711"), "{shown}");
    }

    proptest! {
        #[test]
        fn strings_are_written_as_serde_json_writes_them(text in ".*") {
            let quoted = serde_json::to_string(&text).unwrap();
            prop_assert_eq!(json(&format!(r#"{{"S":{quoted}}}"#)), quoted);
        }

        #[test]
        fn number_order_is_total(texts in proptest::collection::vec(
            prop_oneof![any::<i64>().prop_map(|n| n.to_string()), any::<f64>().prop_map(|n| n.to_string()), "[0-9.-]{0,4}"], 0..12)) {
            let numbers: Vec<Number> =
                texts.iter().filter_map(|text| number(text)).collect();
            for a in &numbers {
                for b in &numbers {
                    prop_assert_eq!(by_value(a, b), by_value(b, a).reverse());
                    for c in &numbers {
                        let ascend = by_value(a, b).is_le() && by_value(b, c).is_le();
                        prop_assert!(!ascend || by_value(a, c).is_le(), "{a} {b} {c}");
                    }
                }
            }
        }
    }
}
