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

/// Attributes by name. Of a name that stands twice, the last one counts.
#[derive(Debug, Clone, PartialEq, Default, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub struct Map(BTreeMap<String, Attribute>);

impl Map {
    /// Reads an item's attributes. Each is decoded by itself: one that is no DynamoDB JSON becomes
    /// [`Attribute::Malformed`]. `None` where the item is no object at all.
    pub fn read(json: &RawValue) -> Option<Self> {
        let attributes: BTreeMap<String, &RawValue> = serde_json::from_str(json.get()).ok()?;
        let decoded = |json: &RawValue| serde_json::from_str(json.get());
        let attributes = attributes
            .into_iter()
            .map(|(name, json)| (name, decoded(json).unwrap_or(Attribute::Malformed)));
        Some(Self(attributes.collect()))
    }

    /// Returns the attribute `name`, if there is one that isn't NULL.
    pub fn get(&self, name: &str) -> Option<&Attribute> {
        self.0.get(name).filter(|attribute| !matches!(attribute, Attribute::NULL(_)))
    }

    pub fn map(&self, name: &str) -> Option<&Self> {
        self.get(name)?.as_map()
    }

    /// Returns a list; an empty one where there is none.
    pub fn list(&self, name: &str) -> &[Attribute] {
        self.get(name).and_then(Attribute::as_list).unwrap_or_default()
    }

    /// Returns a string that is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name)?.as_text()
    }

    /// All attributes, NULL ones too, ascending by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attribute)> {
        self.0.iter().map(|(name, attribute)| (&**name, attribute))
    }
}

impl Attribute {
    pub fn as_string(&self) -> Option<&str> {
        if let Self::S(text) = self { Some(text) } else { None }
    }

    /// Returns a string that is not empty.
    pub fn as_text(&self) -> Option<&str> {
        self.as_string().filter(|text| !text.is_empty())
    }

    pub fn as_map(&self) -> Option<&Map> {
        if let Self::M(map) = self { Some(map) } else { None }
    }

    pub fn as_list(&self) -> Option<&[Self]> {
        if let Self::L(list) = self { Some(list) } else { None }
    }
}

/// Returns the number that a text means to JSON; `None` where JSON can't express it.
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

impl Serialize for Attribute {
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
                let bytes = |text: &str| BASE64.decode(text).ok();
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

impl fmt::Debug for Attribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attribute").finish_non_exhaustive()
    }
}
