//! Typed access to a map's attributes; what is wrong with one is named by its path.

use std::borrow::Cow;

use super::attribute::number;
use super::{Attribute, Map};
use crate::json::Json;
use crate::kv::LimitExceeded;

pub const NOT_AN_ATTRIBUTE: &str =
    "is not a DynamoDB attribute value, or holds a number that no double can hold";

/// Why an item can't be exported however often it is tried. Holds no value of it, so it may be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Rejection {
    /// The field at fault, as in `index_aliases.doc_reads.targets[0].weight`.
    pub path: String,
    pub reason: Cow<'static, str>,
}

impl Rejection {
    pub fn new(path: impl Into<String>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }

    /// `path` is what makes the key, the metadata or the value too long.
    pub fn over_limit(path: &'static str) -> impl Fn(LimitExceeded) -> Self {
        move |limit| Self::new(path, limit.to_string())
    }
}

/// A map and its path in the item. NULL counts as absent throughout.
#[derive(Debug)]
pub struct Fields<'a> {
    map: &'a Map<'a>,
    /// Empty for the item itself.
    path: String,
}

/// The attribute of a name, if it is there, in its one DynamoDB type.
macro_rules! typed {
    ($fields:ident, $name:ident, $type:ident, $expected:expr) => {
        match $fields.map.get($name) {
            None => Ok(None),
            Some(Attribute::$type(value)) => Ok(Some(value)),
            Some(Attribute::Malformed) => Err($fields.reject($name, NOT_AN_ATTRIBUTE)),
            Some(_) => Err($fields.reject($name, $expected)),
        }
    };
}

impl<'a> Fields<'a> {
    pub fn of_item(map: &'a Map<'a>) -> Self {
        Self { map, path: String::new() }
    }

    pub fn reject(&self, name: &str, reason: &'static str) -> Rejection {
        Rejection::new(self.path_of(name), reason)
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    pub fn string(&self, name: &str) -> Result<Option<&'a str>, Rejection> {
        let text = typed!(self, name, S, "must be a string (S)")?;
        Ok(text.map(|text| &**text))
    }

    /// An S; the empty string counts as absent.
    pub fn non_empty_string(&self, name: &str) -> Result<Option<String>, Rejection> {
        let text = self.string(name)?.filter(|text| !text.is_empty());
        Ok(text.map(str::to_owned))
    }

    pub fn boolean(&self, name: &str) -> Result<Option<bool>, Rejection> {
        Ok(typed!(self, name, BOOL, "must be a boolean (BOOL)")?.copied())
    }

    pub fn number(&self, name: &str) -> Result<Option<f64>, Rejection> {
        let Some(text) = typed!(self, name, N, "must be a number (N)")? else { return Ok(None) };
        let number = number(text).and_then(|number| number.as_f64());
        number.map(Some).ok_or_else(|| self.reject(name, NOT_AN_ATTRIBUTE))
    }

    /// An M, whatever it holds, as canonical JSON.
    pub fn map_as_json(&self, name: &str) -> Result<Option<Json>, Rejection> {
        let map = typed!(self, name, M, MUST_BE_A_MAP)?;
        map.map(Json::of).transpose().map_err(|_| self.reject(name, NOT_AN_ATTRIBUTE))
    }

    pub fn map<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Fields<'_>) -> Result<T, Rejection>,
    ) -> Result<Option<T>, Rejection> {
        let map = typed!(self, name, M, MUST_BE_A_MAP)?;
        map.map(|map| read(&Fields { map, path: self.path_of(name) })).transpose()
    }

    /// Reads an L of Ms, each by `read`; none where there is no list.
    pub fn list_of_maps<T>(
        &self,
        name: &str,
        read: impl Fn(&Fields<'_>) -> Result<T, Rejection>,
    ) -> Result<Vec<T>, Rejection> {
        let list_path = self.path_of(name);
        let list = typed!(self, name, L, "must be a list (L)")?;
        let elements = list.into_iter().flatten().enumerate();
        elements
            .map(|(position, element)| {
                let path = format!("{list_path}[{position}]");
                match element {
                    Attribute::M(map) => read(&Fields { map, path }),
                    _ => Err(Rejection::new(path, MUST_BE_A_MAP)),
                }
            })
            .collect()
    }
}

const MUST_BE_A_MAP: &str = "must be a map (M)";

#[cfg(test)]
mod tests {
    use super::*;

    fn with_fields<T>(json: &str, test: impl FnOnce(Fields<'_>) -> T) -> T {
        let json: Json = serde_json::from_str(json).unwrap();
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
