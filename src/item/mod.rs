//! What the table holds, as the exporter understands it. Pure: no clock, no network, no logs.
//!
//! Items of the table and images of the stream are both an [`Item`], decoded into a [`Map`] of
//! [`Attribute`]s. From that follow the values that KV gets ([`IndexSettings`], [`query_config_value`]),
//! the keys that an item asks for ([`claimed_keys`]), and what its aliases protect ([`alias_targets()`]).

mod aliases;
mod attribute;
pub mod keys;
pub mod stream_record;
mod values;

use serde_json::value::RawValue;

use crate::json::{Json, from_object};

pub use aliases::{AliasTarget, CLAIM_PATHS, alias_targets};
pub use attribute::{Attribute, Map};
pub use keys::{ItemKey, claimed_keys};
pub use stream_record::{Change, RecordedChange, StreamRecord};
pub use values::{IndexSettings, query_config_value};

/// An item of the table, or an image of one, in DynamoDB JSON. It is decoded where it is needed, so a
/// fault in it matters only there.
#[derive(Debug, Clone, PartialEq)]
pub struct Item(Json);

impl Item {
    /// Reads an item and its key, which every item of the table has.
    pub fn parse(json: Box<RawValue>) -> serde_json::Result<(ItemKey, Self)> {
        let key = from_object(json.get())?;
        Ok((key, Self(Json(json))))
    }

    /// Reads an image of a stream record. Returns `None` where it is no object.
    pub fn image(json: &RawValue) -> Option<Self> {
        json.get().starts_with('{').then(|| Self(Json(json.to_owned())))
    }

    pub fn attributes(&self) -> Map {
        Map::read(self.0.get())
    }

    pub fn bytes(&self) -> usize {
        self.0.get().len()
    }
}

/// Why an item can't be exported. Trying again can't help. It may be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Rejection {
    /// The field at fault, as in `index_aliases.doc_reads.targets[0].weight`.
    pub path: String,
    /// A constant text, so it quotes no value.
    pub reason: &'static str,
}

impl Rejection {
    pub fn new(path: impl Into<String>, reason: &'static str) -> Self {
        Self { path: path.into(), reason }
    }

    /// Returns the same rejection of something that is inside of the attribute or element `name`.
    fn inside(self, name: &str) -> Self {
        Self { path: format!("{name}.{}", self.path), ..self }
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
