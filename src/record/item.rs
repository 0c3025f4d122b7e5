//! An item of the table, as DynamoDB answers it.

use super::{Image, ItemKey, Rejection};
use crate::cursor::{Cursor, Malformed};

/// An item in DynamoDB JSON, which is decoded where it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item(Box<str>);

impl Item {
    /// Takes an item and its key; every item of the table has one.
    pub fn read(cursor: &mut Cursor<'_>) -> Result<(ItemKey, Self), Malformed> {
        let before = cursor.clone();
        let key = ItemKey::read(cursor)?;
        Ok((key, Self(before.text_to(cursor).into())))
    }

    /// An item in DynamoDB JSON.
    pub fn parse(json: &str) -> Result<(ItemKey, Self), Malformed> {
        let mut cursor = Cursor::new(json);
        let item = Self::read(&mut cursor)?;
        cursor.end()?;
        Ok(item)
    }

    /// The item's attributes.
    pub fn image(&self) -> Result<Image<'_>, Rejection> {
        Image::read(&mut Cursor::new(&self.0))
            .map_err(|Malformed| Rejection::new("(item)", "is not DynamoDB JSON"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_item_is_read_with_its_key_and_decoded_later() {
        let json = r#"{"a":{"M":{"x":{"L":[]}}},"sk":{"S":"INDEX#i"},"pk":{"S":"acct\u0031"}}"#;
        let (key, item) = Item::parse(json).unwrap();
        assert_eq!(key, ItemKey { pk: "acct1".into(), sk: "INDEX#i".into() });
        let image = item.image().unwrap();
        assert_eq!(image.string("sk").unwrap().as_deref(), Some("INDEX#i"));
        for bad in [
            "",
            "7",
            r#"{"pk":{"S":"a"}}"#,
            r#"{"pk":{"S":"a"},"sk":{"N":"1"}}"#,
            r#"{"pk":{"S":"a"},"sk":{"S":"b"}"#,
            r#"{"pk":{"S":"a"},"sk":{"S":"b"}}}"#,
        ] {
            assert_eq!(Item::parse(bad), Err(Malformed), "{bad}");
        }
    }
}
