//! Typed access to a map's attributes; what is wrong with one is named by its path.

use std::borrow::Cow;

use super::attribute::number;
use super::{Attribute, Map};
use crate::json::Json;
use crate::kv::LimitExceeded;

pub const NOT_AN_ATTRIBUTE: &str =
    "is not a DynamoDB attribute value, or holds a number that no double can hold";
const NOT_A_MAP: &str = "must be a map (M)";

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
pub struct Fields<'a> {
    map: &'a Map,
    /// Empty for the item itself.
    path: String,
}

impl<'a> Fields<'a> {
    pub fn of_item(map: &'a Map) -> Self {
        Self { map, path: String::new() }
    }

    pub fn reject(&self, name: &str, reason: &'static str) -> Rejection {
        Rejection::new(self.path_of(name), reason)
    }

    fn path_of(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }

    /// Reads an attribute, if it is there, by `read`, which returns `None` for another type.
    fn typed<T>(
        &self,
        name: &str,
        expected: &'static str,
        read: impl FnOnce(&'a Attribute) -> Option<T>,
    ) -> Result<Option<T>, Rejection> {
        match self.map.get(name) {
            None => Ok(None),
            Some(Attribute::Malformed) => Err(self.reject(name, NOT_AN_ATTRIBUTE)),
            Some(attribute) => read(attribute).map(Some).ok_or_else(|| self.reject(name, expected)),
        }
    }

    pub fn string(&self, name: &str) -> Result<Option<&'a str>, Rejection> {
        self.typed(name, "must be a string (S)", Attribute::as_string)
    }

    /// Reads an S; the empty string counts as absent.
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
            Attribute::N(text) => Some(text),
            _ => None,
        })?;
        let double = |text: &String| number(text).and_then(|number| number.as_f64());
        text.map(|text| double(text).ok_or_else(|| self.reject(name, NOT_AN_ATTRIBUTE))).transpose()
    }

    /// Reads an M, whatever it holds, as canonical JSON.
    pub fn map_as_json(&self, name: &str) -> Result<Option<Json>, Rejection> {
        let map = self.typed(name, NOT_A_MAP, Attribute::as_map)?;
        map.map(Json::of).transpose().map_err(|_| self.reject(name, NOT_AN_ATTRIBUTE))
    }

    pub fn map(&self, name: &str) -> Result<Option<Self>, Rejection> {
        let map = self.typed(name, NOT_A_MAP, Attribute::as_map)?;
        Ok(map.map(|map| Self { map, path: self.path_of(name) }))
    }

    /// Reads an L of Ms; an empty one where there is none.
    pub fn list_of_maps(&self, name: &str) -> Result<Vec<Self>, Rejection> {
        let list = self.typed(name, "must be a list (L)", Attribute::as_list)?;
        let elements = list.unwrap_or_default().iter().enumerate();
        elements
            .map(|(position, element)| {
                let path = format!("{}[{position}]", self.path_of(name));
                match element.as_map() {
                    Some(map) => Ok(Self { map, path }),
                    None => Err(Rejection::new(path, NOT_A_MAP)),
                }
            })
            .collect()
    }
}
