//! Attributes by name, read strictly for what is exported, and leniently for what protects.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{Attribute, Rejection};
use crate::json::Json;

pub const NOT_AN_ATTRIBUTE: &str =
    "is not a DynamoDB attribute value, or holds a number that no double can hold";

/// The attributes of an item, or of a map in it. NULL counts as absent, except in JSON. Where a name is there
/// twice, the last one counts.
#[derive(Debug, Clone, PartialEq, Default, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub struct Map(BTreeMap<String, Attribute>);

impl Map {
    /// Reads an item's attributes. Each is decoded by itself: one that is no DynamoDB JSON becomes
    /// [`Attribute::Malformed`]. What is no object has none.
    pub fn read(json: &str) -> Self {
        let fields: BTreeMap<String, &RawValue> = serde_json::from_str(json).unwrap_or_default();
        let read =
            |json: &RawValue| serde_json::from_str(json.get()).unwrap_or(Attribute::Malformed);
        Self(fields.into_iter().map(|(name, json)| (name, read(json))).collect())
    }

    /// Returns all attributes, NULL ones too, ascending by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Attribute)> {
        self.0.iter().map(|(name, attribute)| (&**name, attribute))
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

    /// Returns an empty list where there is none.
    pub fn list(&self, name: &str) -> &[Attribute] {
        self.get(name).and_then(|list| list.as_list().ok()).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    impl From<serde_json::Value> for Map {
        fn from(json: serde_json::Value) -> Self {
            Self::read(&json.to_string())
        }
    }

    #[test]
    fn a_malformed_attribute_hides_no_other_and_is_never_quoted() {
        let map = Map::read(
            r#"{"worse":7,"twice":{"S":"first"},"bad":{"M":{"a":{"L":[{"S":"ok"},{"N":"s3cret",
            "S":""}]}}},"twice":{"S":"last"},"null":{"NULL":true}}"#,
        );
        assert_eq!(map.text("twice"), Some("last"));
        assert_eq!((map.get("null"), map.get("none")), (None, None));
        for bad in ["bad", "worse"] {
            let rejection = map.read_json(bad).unwrap_err();
            assert_eq!(rejection, Rejection::new(bad, NOT_AN_ATTRIBUTE));
            assert!(map.map(bad).is_none(), "{bad}");
        }
        for no_object in ["7", "[]", "null"] {
            assert_eq!(Map::read(no_object), Map::default(), "{no_object}");
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
