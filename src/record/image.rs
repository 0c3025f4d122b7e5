//! The attributes of an item, whether it came with a stream record or out of the table.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_dynamo::{AttributeValue, Item};
use serde_json::value::RawValue;

use super::transcode::push_transcoded;
use super::{Rejection, json};

/// The attributes of a stream record's image, each still undecoded, so that one that isn't needed
/// costs nothing and can't fail the record.
#[derive(Debug)]
pub struct StreamImage<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// An item's attributes by name.
#[derive(Debug, Clone, Copy)]
pub enum Image<'a> {
    /// From a stream record.
    Stream(&'a StreamImage<'a>),
    /// From the table.
    Table(&'a Item),
}

impl<'a> Image<'a> {
    /// The attribute `name`, if the item has it and it isn't NULL.
    pub fn get(self, name: &str) -> Result<Option<Cow<'a, AttributeValue>>, Rejection> {
        let value = match self {
            Self::Stream(image) => match image.raw(name) {
                Some(raw) => Some(Cow::Owned(decode(name, raw)?)),
                None => None,
            },
            Self::Table(item) => item.get(name).map(Cow::Borrowed),
        };
        Ok(value.filter(|value| !matches!(**value, AttributeValue::Null(_))))
    }

    /// An optional S attribute; NULL and the empty string count as absent.
    pub fn optional_string(self, name: &str) -> Result<Option<String>, Rejection> {
        match self.get(name)?.map(Cow::into_owned) {
            None => Ok(None),
            Some(AttributeValue::S(text)) => Ok(Some(text).filter(|text| !text.is_empty())),
            Some(_) => Err(Rejection::new(name, "must be a string (S)")),
        }
    }

    /// An optional M attribute.
    pub fn optional_map(self, name: &str) -> Result<Option<Cow<'a, AttributeValue>>, Rejection> {
        match self.get(name)? {
            Some(value) if !matches!(*value, AttributeValue::M(_)) => {
                Err(Rejection::new(name, "must be a map (M)"))
            }
            value => Ok(value),
        }
    }

    /// Appends an optional M attribute as canonical JSON behind `label`; nothing if it is absent.
    pub fn push_optional_map(
        self,
        out: &mut String,
        label: &str,
        name: &str,
    ) -> Result<(), Rejection> {
        let start = out.len();
        if let Self::Stream(image) = self {
            let Some(raw) = image.raw(name) else { return Ok(()) };
            // A map's JSON starts with a brace; NULL, other types and what is malformed go the
            // long way, which finds out what is wrong and where.
            out.push_str(label);
            let value = out.len();
            if push_transcoded(out, raw.get()).is_ok() && out[value..].starts_with('{') {
                return Ok(());
            }
            out.truncate(start);
        }
        let Some(map) = self.optional_map(name)? else { return Ok(()) };
        out.push_str(label);
        json::push_attribute(out, &map, name)
    }

    /// The names of all attributes, NULL ones too, in no particular order.
    pub fn names(self) -> Vec<&'a str> {
        match self {
            Self::Stream(image) => image.0.iter().map(|(name, _)| &**name).collect(),
            #[expect(clippy::disallowed_methods, reason = "the caller sorts")]
            Self::Table(item) => item.keys().map(String::as_str).collect(),
        }
    }

    /// Appends an attribute as canonical JSON, null where it is NULL or absent.
    pub fn push_attribute(self, out: &mut String, name: &str) -> Result<(), Rejection> {
        let decoded;
        let value = match self {
            Self::Stream(image) => {
                let Some(raw) = image.raw(name) else {
                    out.push_str("null");
                    return Ok(());
                };
                let start = out.len();
                if push_transcoded(out, raw.get()).is_ok() {
                    return Ok(());
                }
                out.truncate(start);
                decoded = decode(name, raw)?;
                &decoded
            }
            Self::Table(item) => item.get(name).unwrap_or(&AttributeValue::Null(true)),
        };
        json::push_attribute(out, value, name)
    }
}

impl<'a> StreamImage<'a> {
    fn raw(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, raw)| *raw)
    }
}

/// Decodes DynamoDB JSON. The decoder's own message is dropped: it may quote the value.
fn decode(name: &str, raw: &RawValue) -> Result<AttributeValue, Rejection> {
    serde_json::from_str(raw.get()).map_err(|_| {
        let mut json = serde_json::Deserializer::from_str(raw.get());
        let inner = match serde_path_to_error::deserialize::<_, AttributeValue>(&mut json) {
            Err(error) => error.path().to_string(),
            Ok(_) => String::new(),
        };
        let path = if inner.is_empty() || inner == "." {
            name.to_owned()
        } else {
            format!("{name}.{inner}")
        };
        Rejection::new(path, "is not a DynamoDB attribute value")
    })
}

impl<'de: 'a, 'a> Deserialize<'de> for StreamImage<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Attributes;

        impl<'de> Visitor<'de> for Attributes {
            type Value = StreamImage<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of attributes")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut attributes = Vec::with_capacity(16);
                while let Some((name, value)) = map.next_entry::<Name<'de>, &RawValue>()? {
                    attributes.push((name.0, value));
                }
                Ok(StreamImage(attributes))
            }
        }

        deserializer.deserialize_map(Attributes)
    }
}

/// An attribute's name, borrowed from the event unless it is written with escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn with_image<T>(json: &str, test: impl FnOnce(Image<'_>) -> T) -> T {
        test(Image::Stream(&serde_json::from_str(json).unwrap()))
    }

    #[test]
    fn null_and_the_empty_string_count_as_absent() {
        with_image(r#"{"a":{"NULL":true},"b":{"S":""},"c":{"S":"x"}}"#, |image| {
            assert_eq!(image.optional_string("a"), Ok(None));
            assert_eq!(image.optional_string("b"), Ok(None));
            assert_eq!(image.optional_string("c"), Ok(Some("x".into())));
            assert_eq!(image.optional_string("d"), Ok(None));
        });
    }

    #[test]
    fn a_wrong_type_names_the_attribute() {
        with_image(r#"{"shop_id":{"N":"1"},"search_config":{"S":"x"}}"#, |image| {
            assert_eq!(image.optional_string("shop_id").unwrap_err().path, "shop_id");
            assert_eq!(image.optional_map("search_config").unwrap_err().path, "search_config");
        });
    }

    #[test]
    fn a_malformed_attribute_fails_only_where_it_is_needed_and_never_quotes_its_value() {
        let json = r#"{"bad":{"M":{"x":{"L":[{"Q":"s3cret"}]}}},"good":{"S":"x"}}"#;
        with_image(json, |image| {
            assert_eq!(image.optional_string("good"), Ok(Some("x".into())));
            let error = image.get("bad").unwrap_err();
            assert!(error.path.starts_with("bad"), "{error}");
            assert!(!error.to_string().contains("s3cret"), "{error}");
        });
    }

    #[test]
    fn nesting_beyond_all_bounds_is_an_error_not_a_crash() {
        let deep = format!("{{\"a\":{}", r#"{"L":["#.repeat(100_000));
        assert!(serde_json::from_str::<StreamImage<'_>>(&deep).is_err());
        let closed = format!("{{\"a\":{}{}}}", r#"{"L":["#.repeat(5_000), "]}".repeat(5_000));
        with_image(&closed, |image| {
            assert_eq!(image.get("a").unwrap_err().path.get(..1), Some("a"))
        });
    }
}
