//! The attributes of an item, whether it came with a stream record or out of the table.

use std::borrow::Cow;
use std::ops::Range;

use serde_dynamo::AttributeValue;

use super::attribute::{Attribute, Fields};
use super::transcode::Transcoder;
use super::{Rejection, json};
use crate::cursor::{Cursor, Malformed};

/// An item's attributes: each transcoded as it was read, so that the JSON is gone through once. One
/// that can't be transcoded fails the item only where it is needed.
#[derive(Debug)]
pub struct Image<'a> {
    attributes: Vec<Named<'a>>,
    /// The transcoded attributes, one behind the other.
    json: String,
}

#[derive(Debug)]
struct Named<'a> {
    name: Cow<'a, str>,
    dynamodb: &'a str,
    /// Where it stands in canonical JSON, if it could be transcoded.
    json: Option<Range<usize>>,
}

/// Reads images one after the other, in the memory of those that are done with.
#[derive(Debug, Default)]
pub struct ImageReader<'a> {
    transcoder: Transcoder,
    spare: Vec<Image<'a>>,
}

impl<'a> ImageReader<'a> {
    /// Takes an image or item, an object of attributes in DynamoDB JSON.
    pub fn read(&mut self, cursor: &mut Cursor<'a>) -> Result<Image<'a>, Malformed> {
        let mut image = self.spare.pop().unwrap_or_else(|| Image {
            attributes: Vec::with_capacity(16),
            json: String::with_capacity(2048),
        });
        cursor.object(|cursor, name| {
            let name = name.decoded()?;
            let before = cursor.clone();
            let start = image.json.len();
            let transcoded = self.transcoder.push(&mut image.json, cursor);
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
            image.attributes.push(Named { name, dynamodb, json });
            Ok::<(), Malformed>(())
        })?;
        Ok(image)
    }

    /// Takes an image back.
    pub fn done(&mut self, mut image: Image<'a>) {
        image.attributes.clear();
        image.json.clear();
        self.spare.push(image);
    }
}

impl<'a> Image<'a> {
    /// Takes an image or item, an object of attributes in DynamoDB JSON.
    pub fn read(cursor: &mut Cursor<'a>) -> Result<Self, Malformed> {
        ImageReader::default().read(cursor)
    }

    /// The attribute `name`, if the item has it and it isn't NULL.
    pub fn get(&self, name: &str) -> Result<Option<Attribute<'a>>, Rejection> {
        let Some(named) = self.find(name) else { return Ok(None) };
        match Attribute::read(&mut Cursor::new(named.dynamodb)) {
            Ok(Attribute::Null) => Ok(None),
            Ok(attribute) => Ok(Some(attribute)),
            Err(Malformed) => Err(malformed(named)),
        }
    }

    /// An optional S attribute; NULL and the empty string count as absent.
    pub fn optional_string(&self, name: &str) -> Result<Option<String>, Rejection> {
        Ok(self.string(name)?.filter(|text| !text.is_empty()).map(Cow::into_owned))
    }

    /// An S attribute; NULL counts as absent.
    pub fn string(&self, name: &str) -> Result<Option<Cow<'a, str>>, Rejection> {
        match self.get(name)? {
            None => Ok(None),
            Some(Attribute::Text(text)) => Ok(Some(text)),
            Some(_) => Err(Rejection::new(name, "must be a string (S)")),
        }
    }

    /// An optional M attribute.
    pub fn optional_map(&self, name: &str) -> Result<Option<Fields<'a>>, Rejection> {
        match self.get(name)? {
            None => Ok(None),
            Some(Attribute::Map(fields)) => Ok(Some(fields)),
            Some(_) => Err(Rejection::new(name, "must be a map (M)")),
        }
    }

    /// Appends an optional M attribute as canonical JSON behind `label`; nothing if it is absent.
    pub fn push_optional_map(
        &self,
        out: &mut String,
        label: &str,
        name: &str,
    ) -> Result<(), Rejection> {
        let Some(named) = self.find(name) else { return Ok(()) };
        let json = self.json(named)?;
        match json.as_bytes().first() {
            // Only a map's JSON starts with a brace, and only NULL's with this letter.
            Some(b'{') => {
                out.push_str(label);
                out.push_str(json);
                Ok(())
            }
            Some(b'n') => Ok(()),
            _ => Err(Rejection::new(name, "must be a map (M)")),
        }
    }

    /// About how many bytes all attributes take as JSON.
    pub fn json_bytes(&self) -> usize {
        self.json.len()
    }

    /// The names of all attributes, NULL ones too, in no particular order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.attributes.iter().map(|named| &*named.name)
    }

    /// Appends an attribute as canonical JSON, null where it is NULL or absent.
    pub fn push_attribute(&self, out: &mut String, name: &str) -> Result<(), Rejection> {
        out.push_str(match self.find(name) {
            Some(named) => self.json(named)?,
            None => "null",
        });
        Ok(())
    }

    fn find(&self, name: &str) -> Option<&Named<'a>> {
        self.attributes.iter().find(|named| named.name == name)
    }

    fn json(&self, named: &Named<'a>) -> Result<&str, Rejection> {
        match &named.json {
            Some(range) => Ok(&self.json[range.clone()]),
            None => Err(malformed(named)),
        }
    }
}

/// Finds out what is wrong with an attribute that could not be taken. The decoder's own message is
/// dropped: it may quote the value.
fn malformed(named: &Named<'_>) -> Rejection {
    let mut json = serde_json::Deserializer::from_str(named.dynamodb);
    let inner = match serde_path_to_error::deserialize::<_, AttributeValue>(&mut json) {
        Err(error) => error.path().to_string(),
        Ok(value) => match json::push_attribute(&mut String::new(), &value, &named.name) {
            Err(rejection) => return rejection,
            Ok(()) => String::new(),
        },
    };
    let path = if inner.is_empty() || inner == "." {
        named.name.clone().into_owned()
    } else {
        format!("{}.{inner}", named.name)
    };
    Rejection::new(path, "is not a DynamoDB attribute value")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_image<T>(json: &str, test: impl FnOnce(Image<'_>) -> T) -> T {
        test(Image::read(&mut Cursor::new(json)).unwrap())
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
        assert!(Image::read(&mut Cursor::new(&deep)).is_err());
        let closed = format!("{{\"a\":{}{}}}", r#"{"L":["#.repeat(5_000), "]}".repeat(5_000));
        with_image(&closed, |image| {
            assert_eq!(image.get("a").unwrap_err().path.get(..1), Some("a"))
        });
    }
}
