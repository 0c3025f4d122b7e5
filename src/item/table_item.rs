//! An item, as DynamoDB holds it.

use serde_json::value::RawValue;

use super::{ItemKey, Map};
use crate::json::{Json, from_object};

/// An item of the table, or an image of one, in DynamoDB JSON. It is decoded where it is needed, so
/// that what is wrong with it matters only there.
#[derive(Debug, Clone, PartialEq)]
pub struct Item(Json);

impl Item {
    /// Reads an item and its key, which every item of the table has.
    pub fn parse(json: Box<RawValue>) -> serde_json::Result<(ItemKey, Self)> {
        let key = from_object(json.get())?;
        Ok((key, Self(json.into())))
    }

    /// Reads an image of a stream record; `None` where it is no object.
    pub fn image(json: &RawValue) -> Option<Self> {
        json.get().starts_with('{').then(|| Self(json.to_owned().into()))
    }

    pub fn attributes(&self) -> Map {
        Map::read(&self.0).unwrap_or_default()
    }

    pub fn bytes(&self) -> usize {
        self.0.get().len()
    }
}
