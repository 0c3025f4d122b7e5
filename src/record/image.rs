//! The attributes of an item, whether it came with a stream record or out of the table.

use std::borrow::Cow;
use std::ops::Range;

use serde_dynamo::{AttributeValue, Item};

use super::transcode::Transcoder;
use super::{Rejection, json};
use crate::cursor::{Cursor, Malformed};

/// The attributes of a stream record's image: each transcoded as it was read, so that the event is
/// gone through once. One that can't be transcoded fails the record only where it is needed.
#[derive(Debug)]
pub struct StreamImage<'a> {
    attributes: Vec<Attribute<'a>>,
    /// The transcoded attributes, one behind the other.
    json: String,
}

#[derive(Debug)]
struct Attribute<'a> {
    name: Cow<'a, str>,
    dynamodb: &'a str,
    /// Where it stands in canonical JSON, if it could be transcoded.
    json: Option<Range<usize>>,
}

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
            Self::Stream(image) => match image.find(name) {
                Some(attribute) => Some(Cow::Owned(decode(name, attribute.dynamodb)?)),
                None => None,
            },
            Self::Table(item) => item.get(name).map(Cow::Borrowed),
        };
        Ok(value.filter(|value| !matches!(**value, AttributeValue::Null(_))))
    }

    /// An optional S attribute; NULL and the empty string count as absent.
    pub fn optional_string(self, name: &str) -> Result<Option<String>, Rejection> {
        Ok(self.string(name)?.filter(|text| !text.is_empty()).map(Cow::into_owned))
    }

    /// An S attribute; NULL counts as absent.
    pub fn string(self, name: &str) -> Result<Option<Cow<'a, str>>, Rejection> {
        if let Self::Stream(image) = self
            && let Some(text) = image.find(name).and_then(|attribute| string(attribute.dynamodb))
        {
            return Ok(Some(text));
        }
        match self.get(name)? {
            None => Ok(None),
            Some(Cow::Borrowed(AttributeValue::S(text))) => Ok(Some(Cow::Borrowed(text))),
            Some(Cow::Owned(AttributeValue::S(text))) => Ok(Some(Cow::Owned(text))),
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
        if let Self::Stream(image) = self {
            let Some(attribute) = image.find(name) else { return Ok(()) };
            // A map's JSON starts with a brace; NULL, other types and what is malformed go the
            // long way, which finds out what is wrong and where.
            if let Some(json) = image.json(attribute).filter(|json| json.starts_with('{')) {
                out.push_str(label);
                out.push_str(json);
                return Ok(());
            }
        }
        let Some(map) = self.optional_map(name)? else { return Ok(()) };
        out.push_str(label);
        json::push_attribute(out, &map, name)
    }

    /// About how many bytes all attributes take as JSON.
    pub fn json_bytes(self) -> usize {
        match self {
            Self::Stream(image) => image.json.len(),
            // Not known before they are written; most items are of a few kilobytes.
            Self::Table(_) => 2048,
        }
    }

    /// The names of all attributes, NULL ones too, in no particular order.
    pub fn names(self) -> Vec<&'a str> {
        match self {
            Self::Stream(image) => {
                image.attributes.iter().map(|attribute| &*attribute.name).collect()
            }
            #[expect(clippy::disallowed_methods, reason = "the caller sorts")]
            Self::Table(item) => item.keys().map(String::as_str).collect(),
        }
    }

    /// Appends an attribute as canonical JSON, null where it is NULL or absent.
    pub fn push_attribute(self, out: &mut String, name: &str) -> Result<(), Rejection> {
        let decoded;
        let value = match self {
            Self::Stream(image) => {
                let Some(attribute) = image.find(name) else {
                    out.push_str("null");
                    return Ok(());
                };
                if let Some(json) = image.json(attribute) {
                    out.push_str(json);
                    return Ok(());
                }
                decoded = decode(name, attribute.dynamodb)?;
                &decoded
            }
            Self::Table(item) => item.get(name).unwrap_or(&AttributeValue::Null(true)),
        };
        json::push_attribute(out, value, name)
    }
}

impl<'a> StreamImage<'a> {
    /// Takes an image, an object of attributes in DynamoDB JSON.
    pub fn read(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        let mut image =
            Self { attributes: Vec::with_capacity(16), json: String::with_capacity(1024) };
        let mut transcoder = Transcoder::default();
        cursor.object(|cursor, name| {
            let name = name.decoded()?;
            let before = cursor.clone();
            let start = image.json.len();
            let transcoded = transcoder.push(&mut image.json, cursor);
            let json = match transcoded {
                Ok(()) => Some(start..image.json.len()),
                Err(Malformed) => {
                    image.json.truncate(start);
                    *cursor = before.clone();
                    cursor.skip()?;
                    None
                }
            };
            let dynamodb = before.text_to(cursor);
            image.attributes.push(Attribute { name, dynamodb, json });
            Ok::<(), Malformed>(())
        })?;
        Ok(image)
    }

    fn find(&self, name: &str) -> Option<&Attribute<'a>> {
        self.attributes.iter().find(|attribute| attribute.name == name)
    }

    fn json(&self, attribute: &Attribute<'a>) -> Option<&str> {
        attribute.json.clone().map(|range| &self.json[range])
    }
}

/// The text of a lone S.
fn string(dynamodb: &str) -> Option<Cow<'_, str>> {
    let mut cursor = Cursor::new(dynamodb);
    cursor.take(b'{').ok()?;
    if cursor.string().ok()?.plain_literal() != Some(r#""S""#) {
        return None;
    }
    cursor.take(b':').ok()?;
    let text = cursor.string().ok()?.decoded().ok()?;
    cursor.take(b'}').ok()?;
    Some(text)
}

/// Decodes DynamoDB JSON. The decoder's own message is dropped: it may quote the value.
fn decode(name: &str, dynamodb: &str) -> Result<AttributeValue, Rejection> {
    serde_json::from_str(dynamodb).map_err(|_| {
        let mut json = serde_json::Deserializer::from_str(dynamodb);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn with_image<T>(json: &str, test: impl FnOnce(Image<'_>) -> T) -> T {
        test(Image::Stream(&StreamImage::read(&mut Cursor::new(json)).unwrap()))
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
        assert!(StreamImage::read(&mut Cursor::new(&deep)).is_err());
        let closed = format!("{{\"a\":{}{}}}", r#"{"L":["#.repeat(5_000), "]}".repeat(5_000));
        with_image(&closed, |image| {
            assert_eq!(image.get("a").unwrap_err().path.get(..1), Some("a"))
        });
    }
}
