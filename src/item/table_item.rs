//! An item of the table, as DynamoDB answers it.

use serde_json::value::RawValue;

use super::{ItemKey, Map};
use crate::json::{Json, from_object};

/// An item in DynamoDB JSON, decoded where it is needed.
#[derive(Debug, Clone, PartialEq)]
pub struct Item(Json);

impl Item {
    /// Reads an item and its key; every item of the table has one.
    pub fn parse(json: Box<RawValue>) -> serde_json::Result<(ItemKey, Self)> {
        let key = from_object(json.get())?;
        Ok((key, Self(json.into())))
    }

    pub fn attributes(&self) -> Map<'_> {
        Map::read(&self.0).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> serde_json::Result<(ItemKey, Item)> {
        Item::parse(serde_json::from_str(json)?)
    }

    #[test]
    fn an_item_is_read_with_its_key_and_decoded_later() {
        let json = r#"{"a":{"M":{"x":{"L":[]}}},"sk":{"S":"INDEX#i"},"pk":{"S":"acct\u0031"}}"#;
        let (key, item) = parse(json).unwrap();
        assert_eq!(key, ItemKey { pk: "acct1".into(), sk: "INDEX#i".into() });
        assert_eq!(item.attributes().text("sk"), Some("INDEX#i"));
        for bad in [
            "",
            "7",
            r#"[{"S":"a"},{"S":"b"}]"#,
            r#"{"pk":{"S":"a"}}"#,
            r#"{"pk":{"S":"a"},"sk":{"N":"1"}}"#,
            r#"{"pk":{"S":"a"},"sk":{"S":"b"}"#,
            r#"{"pk":{"S":"a"},"sk":{"S":"b"}}}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_broken_attribute_hides_no_other() {
        let (_, item) =
            parse(r#"{"pk":{"S":"a"},"sk":{"S":"b"},"bad":{"Q":1},"good":{"S":"x"}}"#).unwrap();
        assert_eq!(item.attributes().text("good"), Some("x"));
    }

    #[test]
    fn debug_shows_no_attribute() {
        let (_, item) = parse(r#"{"pk":{"S":"a"},"sk":{"S":"b"},"x":{"S":"s3cret"}}"#).unwrap();
        assert!(!format!("{item:?}").contains("s3cret"));
    }
}
