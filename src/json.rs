//! What serde leaves open: borrowed text, JSON that may be secret, and objects that are read by field.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::ops::Deref;

use serde::de::{Deserializer, Error, MapAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A string, borrowed from the JSON where it holds no escapes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> From<&'a str> for Text<'a> {
    fn from(text: &'a str) -> Self {
        Self(Cow::Borrowed(text))
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Text<'_> {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// JSON as it stands. `Debug` shows its size only.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(transparent)]
pub struct Json(Box<RawValue>);

impl Json {
    pub fn of(value: &(impl Serialize + ?Sized)) -> serde_json::Result<Self> {
        serde_json::value::to_raw_value(value).map(Self)
    }
}

impl From<Box<RawValue>> for Json {
    fn from(json: Box<RawValue>) -> Self {
        Self(json)
    }
}

impl Deref for Json {
    type Target = RawValue;

    fn deref(&self) -> &RawValue {
        &self.0
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

/// The fields of a JSON object in their order, the values unread.
#[derive(Default)]
pub struct RawObject<'a>(Vec<(Text<'a>, &'a RawValue)>);

/// A field that an object holds twice: which of the two would count?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duplicate;

impl<'a> RawObject<'a> {
    pub fn take(&mut self, name: &str) -> Result<Option<&'a RawValue>, Duplicate> {
        let mut found = self.0.extract_if(.., |(field, _)| &**field == name);
        let value = found.next().map(|(_, value)| value);
        if found.next().is_some() { Err(Duplicate) } else { Ok(value) }
    }

    pub fn into_fields(self) -> impl Iterator<Item = (Text<'a>, &'a RawValue)> {
        self.0.into_iter()
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawObject<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = RawObject<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(RawObject(fields))
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// Reads a struct from a JSON object. Serde's derive takes `[]` too, as one without optional fields.
pub fn from_object<'a, T: Deserialize<'a>>(json: &'a str) -> serde_json::Result<T> {
    if !json.trim_ascii_start().starts_with('{') {
        return Err(serde_json::Error::custom("not an object"));
    }
    serde_json::from_str(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_object_tells_absent_from_duplicate_and_reads_no_value() {
        let mut object: RawObject = serde_json::from_str(r#"{"a":1,"b":[2],"a":3,"d":4}"#).unwrap();
        assert_eq!(object.take("b").unwrap().map(RawValue::get), Some("[2]"));
        assert!(object.take("b").unwrap().is_none() && object.take("c").unwrap().is_none());
        assert!(object.take("a").is_err());
        assert_eq!(object.into_fields().map(|(name, _)| name).collect::<Vec<_>>(), ["d".into()]);
    }

    #[test]
    fn an_array_is_no_object() {
        #[derive(Debug, PartialEq, serde::Deserialize)]
        struct Optional {
            #[serde(default)]
            field: Option<u8>,
        }
        assert!(serde_json::from_str::<Optional>("[]").is_ok(), "serde's derive takes it");
        assert!(from_object::<Optional>("[]").is_err());
        assert_eq!(from_object::<Optional>(" {}").unwrap(), Optional { field: None });
    }
}
