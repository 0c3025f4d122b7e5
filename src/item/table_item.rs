//! An item, as DynamoDB holds it.

use serde_json::value::RawValue;

use super::{ItemKey, Map};
use crate::json::{Json, from_object};

/// An item of the table, or an image of one, in DynamoDB JSON. It is decoded where it is needed, so a
/// fault in it matters only there.
#[derive(Debug, Clone, PartialEq)]
pub struct Item(Json);

impl Item {
    /// Reads an item and its key, which every item of the table has.
    pub fn parse(json: Box<RawValue>) -> serde_json::Result<(ItemKey, Self)> {
        let key = from_object(json.get())?;
        Ok((key, Self(json.into())))
    }

    /// Reads an image of a stream record. Returns `None` where it is no object.
    pub fn image(json: &RawValue) -> Option<Self> {
        json.get().starts_with('{').then(|| Self(json.to_owned().into()))
    }

    pub fn attributes(&self) -> Map {
        Map::read(self.0.get())
    }

    pub fn bytes(&self) -> usize {
        self.0.get().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> serde_json::Result<(ItemKey, Item)> {
        Item::parse(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn an_item_has_its_key_and_decodes_its_attributes_later() {
        let json =
            r#"{"bad":{"Q":1},"sk":{"S":"INDEX#i"},"pk":{"S":"acct\u0031"},"x":{"S":"s3cret"}}"#;
        let (key, item) = parse(json).unwrap();
        assert_eq!(key, ItemKey { pk: "acct1".into(), sk: "INDEX#i".into() });
        assert_eq!(item.attributes().text("x"), Some("s3cret"));
        assert_eq!(item.bytes(), json.len());
        assert!(!format!("{item:?}").contains("s3cret"), "{item:?}");
    }

    #[test]
    fn an_item_without_its_key_is_refused() {
        for bad in [
            "7",
            r#"[{"S":"a"},{"S":"b"}]"#,
            r#"{"pk":{"S":"a"}}"#,
            r#"{"pk":{"S":"a"},"sk":{"N":"1"}}"#,
            r#"{"pk":{"S":"a"},"sk":{"S":"b"},"pk":{"S":"c"}}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
