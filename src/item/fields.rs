//! Typed access to a map's attributes; what is wrong with one is named by its path.

use std::fmt;

use serde_json::value::RawValue;

use super::attribute::number;
use super::{Attribute, Map, Rejection};

pub const NOT_AN_ATTRIBUTE: &str =
    "is not a DynamoDB attribute value, or holds a number that no double can hold";

/// A map and its path in the item. NULL counts as absent throughout.
#[derive(Debug, Clone, Copy)]
pub struct Fields<'a> {
    map: &'a Map<'a>,
    path: Path<'a>,
}

/// The path to a value in the item; made into text only where something is wrong with the value.
#[derive(Debug, Clone, Copy)]
enum Path<'a> {
    Item,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

/// A map's canonical JSON. `Debug` shows the size only.
#[derive(Clone, serde::Serialize)]
#[serde(transparent)]
pub struct CanonicalJson(Box<RawValue>);

impl fmt::Debug for CanonicalJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CanonicalJson({} bytes)", self.0.get().len())
    }
}

impl PartialEq for CanonicalJson {
    fn eq(&self, other: &Self) -> bool {
        self.0.get() == other.0.get()
    }
}

impl<'a> Fields<'a> {
    /// The attributes of an item.
    pub fn of_item(map: &'a Map<'a>) -> Self {
        Self { map, path: Path::Item }
    }

    /// Rejects the attribute `name`.
    pub fn reject(&self, name: &str, reason: &'static str) -> Rejection {
        Rejection::new(Path::Key(&self.path, name).to_string(), reason)
    }

    pub fn string(&self, name: &str) -> Result<Option<&'a str>, Rejection> {
        self.typed(name, "must be a string (S)", |attribute| match attribute {
            Attribute::S(text) => Some(&**text),
            _ => None,
        })
    }

    /// An S; the empty string counts as absent.
    pub fn non_empty_string(&self, name: &str) -> Result<Option<String>, Rejection> {
        let text = self.string(name)?.filter(|text| !text.is_empty());
        Ok(text.map(str::to_owned))
    }

    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Rejection> {
        self.typed(name, "must be a boolean (BOOL)", |attribute| match attribute {
            Attribute::BOOL(flag) => Some(*flag),
            _ => None,
        })
    }

    pub fn number(&self, name: &str) -> Result<Option<f64>, Rejection> {
        let text = self.typed(name, "must be a number (N)", |attribute| match attribute {
            Attribute::N(text) => Some(&**text),
            _ => None,
        })?;
        let number = |text| number(text).and_then(|number| number.as_f64());
        text.map(|text| number(text).ok_or_else(|| self.reject(name, NOT_AN_ATTRIBUTE))).transpose()
    }

    /// An M, whatever it holds, as canonical JSON.
    pub fn map_as_json(&self, name: &str) -> Result<Option<CanonicalJson>, Rejection> {
        let map = self.typed(name, MUST_BE_A_MAP, |attribute| match attribute {
            Attribute::M(_) => Some(attribute),
            _ => None,
        })?;
        let Some(map) = map else { return Ok(None) };
        let json = serde_json::value::to_raw_value(map);
        json.map(|json| Some(CanonicalJson(json))).map_err(|_| self.reject(name, NOT_AN_ATTRIBUTE))
    }

    pub fn map<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Fields<'_>) -> Result<T, Rejection>,
    ) -> Result<Option<T>, Rejection> {
        let map = self.typed(name, MUST_BE_A_MAP, |attribute| match attribute {
            Attribute::M(map) => Some(map),
            _ => None,
        })?;
        let path = Path::Key(&self.path, name);
        map.map(|map| read(&Fields { map, path })).transpose()
    }

    /// Reads an L of Ms, each by `read`; none where there is no list.
    pub fn list_of_maps<T>(
        &self,
        name: &str,
        read: impl Fn(&Fields<'_>) -> Result<T, Rejection>,
    ) -> Result<Vec<T>, Rejection> {
        let list = self.typed(name, "must be a list (L)", |attribute| match attribute {
            Attribute::L(list) => Some(&list[..]),
            _ => None,
        })?;
        let path = Path::Key(&self.path, name);
        let elements = list.unwrap_or_default().iter().enumerate();
        elements
            .map(|(position, element)| {
                let path = Path::Index(&path, position);
                match element {
                    Attribute::M(map) => read(&Fields { map, path }),
                    _ => Err(Rejection::new(path.to_string(), MUST_BE_A_MAP)),
                }
            })
            .collect()
    }

    fn typed<T>(
        &self,
        name: &str,
        expected: &'static str,
        convert: impl FnOnce(&'a Attribute<'a>) -> Option<T>,
    ) -> Result<Option<T>, Rejection> {
        match self.map.get(name) {
            None => Ok(None),
            Some(Attribute::Malformed) => Err(self.reject(name, NOT_AN_ATTRIBUTE)),
            Some(attribute) => match convert(attribute) {
                Some(value) => Ok(Some(value)),
                None => Err(self.reject(name, expected)),
            },
        }
    }
}

const MUST_BE_A_MAP: &str = "must be a map (M)";

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Item => Ok(()),
            Self::Key(Self::Item, key) => f.write_str(key),
            Self::Key(parent, key) => write!(f, "{parent}.{key}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_fields<T>(json: &str, test: impl FnOnce(Fields<'_>) -> T) -> T {
        let json = RawValue::from_string(json.to_owned()).unwrap();
        let map = Map::read(&json).unwrap();
        test(Fields::of_item(&map))
    }

    #[test]
    fn null_and_the_empty_string_count_as_absent() {
        with_fields(r#"{"a":{"NULL":true},"b":{"S":""},"c":{"S":"x"}}"#, |fields| {
            assert_eq!(fields.non_empty_string("a"), Ok(None));
            assert_eq!(fields.non_empty_string("b"), Ok(None));
            assert_eq!(fields.non_empty_string("c"), Ok(Some("x".into())));
            assert_eq!(fields.non_empty_string("d"), Ok(None));
            assert_eq!(fields.map_as_json("a"), Ok(None));
        });
    }

    #[test]
    fn a_wrong_type_names_the_path() {
        let json = r#"{"shop_id":{"N":"1"},"m":{"M":{"l":{"L":[{"M":{"b":{"S":"x"}}}]}}}}"#;
        with_fields(json, |fields| {
            assert_eq!(fields.string("shop_id").unwrap_err().path, "shop_id");
            let error = fields.map("m", |m| m.list_of_maps("l", |target| target.boolean("b")));
            assert_eq!(error.unwrap_err().path, "m.l[0].b");
        });
    }

    #[test]
    fn a_malformed_attribute_fails_only_where_it_is_needed_and_never_quotes_its_value() {
        let json = r#"{"bad":{"M":{"x":{"L":[{"Q":"s3cret"}]}}},"good":{"S":"x"}}"#;
        with_fields(json, |fields| {
            assert_eq!(fields.string("good"), Ok(Some("x")));
            let error = fields.map_as_json("bad").unwrap_err();
            assert_eq!(error.path, "bad");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        });
    }
}
