//! Attributes by name, read strictly for what is exported, and leniently for what protects.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{Attribute, Rejection};
use crate::json::Json;

pub const NOT_AN_ATTRIBUTE: &str =
    "is not a DynamoDB attribute value, or holds a number that no double can hold";
const NOT_A_MAP: &str = "must be a map (M)";

/// The attributes of an item, or of a map in it. NULL counts as absent, except in JSON. Where a name is there
/// twice, the last one counts.
#[derive(Debug, Clone, PartialEq, Default, serde::Deserialize, serde::Serialize)]
#[serde(transparent)]
pub struct Map(BTreeMap<String, Attribute>);

impl Map {
    /// Reads an item's attributes. Each is decoded by itself: one that is no DynamoDB JSON becomes
    /// [`Attribute::Malformed`]. What is no object has none.
    pub fn read(json: &RawValue) -> Self {
        let fields: BTreeMap<String, &RawValue> =
            serde_json::from_str(json.get()).unwrap_or_default();
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
        self.get(name)?.as_map()
    }

    /// Returns an empty list where there is none.
    pub fn list(&self, name: &str) -> &[Attribute] {
        self.get(name).and_then(Attribute::as_list).unwrap_or_default()
    }
}

/// Strict: an attribute of another type, or a malformed one, is a rejection.
impl Map {
    fn typed<'a, T>(
        &'a self,
        name: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Attribute) -> Option<T>,
    ) -> Result<Option<T>, Rejection> {
        match self.get(name) {
            None => Ok(None),
            Some(Attribute::Malformed) => Err(Rejection::new(name, NOT_AN_ATTRIBUTE)),
            Some(attribute) => {
                read(attribute).map(Some).ok_or_else(|| Rejection::new(name, expected))
            }
        }
    }

    pub fn read_string(&self, name: &str) -> Result<Option<&str>, Rejection> {
        self.typed(name, "must be a string (S)", Attribute::as_string)
    }

    /// Returns a string; the empty one counts as absent.
    pub fn read_text(&self, name: &str) -> Result<Option<String>, Rejection> {
        let text = self.read_string(name)?.filter(|text| !text.is_empty());
        Ok(text.map(str::to_owned))
    }

    pub fn read_bool(&self, name: &str) -> Result<Option<bool>, Rejection> {
        self.typed(name, "must be a boolean (BOOL)", Attribute::as_bool)
    }

    pub fn read_number(&self, name: &str) -> Result<Option<f64>, Rejection> {
        self.typed(name, "must be a number (N) that a double can hold", Attribute::as_f64)
    }

    /// Returns a map of any content as canonical JSON.
    pub fn read_json(&self, name: &str) -> Result<Option<Json>, Rejection> {
        let map = self.typed(name, NOT_A_MAP, Attribute::as_map)?;
        map.map(Json::of).transpose().map_err(|_| Rejection::new(name, NOT_AN_ATTRIBUTE))
    }

    pub fn read_map<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Self) -> Result<T, Rejection>,
    ) -> Result<Option<T>, Rejection> {
        let map = self.typed(name, NOT_A_MAP, Attribute::as_map)?;
        map.map(read).transpose().map_err(|rejection| rejection.inside(name))
    }

    /// Returns a list of maps, an empty one where there is none.
    pub fn read_maps<T>(
        &self,
        name: &str,
        read: impl Fn(&Self) -> Result<T, Rejection>,
    ) -> Result<Vec<T>, Rejection> {
        let list = self.typed(name, "must be a list (L)", Attribute::as_list)?;
        let element = |(position, element): (usize, &Attribute)| {
            let path = format!("{name}[{position}]");
            match element.as_map() {
                Some(map) => read(map).map_err(|rejection| rejection.inside(&path)),
                None => Err(Rejection::new(path, NOT_A_MAP)),
            }
        };
        list.unwrap_or_default().iter().enumerate().map(element).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl From<serde_json::Value> for Map {
        fn from(json: serde_json::Value) -> Self {
            Self::read(&serde_json::value::to_raw_value(&json).unwrap())
        }
    }

    fn read(json: &str) -> Map {
        Map::read(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_malformed_attribute_hides_no_other_and_is_never_quoted() {
        let map = read(
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
            assert_eq!(read(no_object), Map::default(), "{no_object}");
        }
    }

    #[test]
    fn nesting_without_end_is_malformed_and_no_crash() {
        for (depth, is_read) in [(40, true), (200, false), (5_000, false)] {
            let deep = format!("{}{}", r#"{"L":["#.repeat(depth), "]}".repeat(depth));
            let map = read(&format!(r#"{{"deep":{deep},"good":{{"S":"x"}}}}"#));
            assert_eq!(map.text("good"), Some("x"));
            assert_eq!(map.get("deep") != Some(&Attribute::Malformed), is_read, "{depth}");
        }
    }
}
