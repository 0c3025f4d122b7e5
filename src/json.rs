//! What serde does not offer: JSON that may be secret, and objects that are read field by field, or as nothing else.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// JSON as it stands. `Debug` shows its size only.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Json(pub Box<RawValue>);

impl Json {
    pub fn of(value: &(impl Serialize + ?Sized)) -> serde_json::Result<Self> {
        serde_json::value::to_raw_value(value).map(Self)
    }

    pub fn string(text: &str) -> Self {
        // A string can always be written.
        Self::of(text).unwrap_or_default()
    }

    pub fn get(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        self.get() == other.get()
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes of JSON", self.get().len())
    }
}

/// The fields of a JSON object, with their values unread. Where a name is there twice, the last one counts.
#[derive(Default, Deserialize)]
pub struct Fields<'a>(#[serde(borrow)] BTreeMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    /// Returns a field that is there and of this type.
    pub fn get<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.0.get(name)?.get()).ok()
    }
}

/// Reads a struct from a JSON object. Serde's derive would also take an array, and read its elements as the fields.
pub fn from_object<'a, T: Deserialize<'a>>(
    json: &'a (impl AsRef<[u8]> + ?Sized),
) -> serde_json::Result<T> {
    if !json.as_ref().trim_ascii_start().starts_with(b"{") {
        return Err(serde_json::Error::custom("not an object"));
    }
    serde_json::from_slice(json.as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_array_is_no_object() {
        assert!(from_object::<Vec<u8>>("[]").is_err());
        assert!(from_object::<BTreeMap<String, u8>>(" {}").is_ok());
    }
}
