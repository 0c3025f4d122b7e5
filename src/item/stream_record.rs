//! Stream records. Each is decoded by itself, so that a malformed one takes no other down.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::{Item, ItemKey, Map, Rejection};
use crate::index::ItemRef;
use crate::json::from_object;

pub const EVENT_SOURCE: &str = "aws:dynamodb";

/// A time beyond this is not in seconds since the epoch; seconds reach it in the year 5138.
const LATEST_SECONDS: f64 = 1e11;

#[derive(Debug)]
pub struct StreamRecord {
    pub sequence_number: Option<String>,
    /// `eventSource`, which is [`EVENT_SOURCE`] where the stream sent the record.
    pub event_source: Option<String>,
    /// `eventSourceARN`: the stream, and with it the table.
    pub source_arn: Option<String>,
    /// When the table took the change, in seconds since the epoch; to the second.
    pub created_at: Option<f64>,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    /// Nothing: the item isn't ours.
    Skipped,
    /// Not even the record's item is known.
    Unknown(Rejection),
    Change(RecordedChange),
}

#[derive(Debug)]
pub struct RecordedChange {
    pub item: ItemRef,
    pub change: Result<Change, Rejection>,
    /// Every shop id that the record's images name, as far as it can be read; none of a query config.
    pub shop_ids: Vec<String>,
    /// Whether the stream says what was there before.
    pub has_old_image: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The item as the record's `NewImage` has it.
    Upsert(Item),
    Remove,
}

impl StreamRecord {
    /// Reads one record of an event, whatever stands in its place.
    pub fn read(json: &RawValue) -> Self {
        let record = Fields::read(json);
        let change = record.get("dynamodb").map(Fields::read).unwrap_or_default();
        let created_at: Option<f64> = change.parse("ApproximateCreationDateTime");
        Self {
            sequence_number: change.parse("SequenceNumber"),
            event_source: record.parse("eventSource"),
            source_arn: record.parse("eventSourceARN"),
            created_at: created_at.filter(|seconds| (0.0..=LATEST_SECONDS).contains(seconds)),
            content: content(&record, &change),
        }
    }
}

fn content(record: &Fields<'_>, change: &Fields<'_>) -> Content {
    let key = change.get("Keys").and_then(|json| from_object::<ItemKey>(json.get()).ok());
    let Some(key) = key else {
        let reason = "is missing, or is not as in a DynamoDB stream record";
        return Content::Unknown(Rejection::new("dynamodb.Keys", reason));
    };
    let Some(item) = key.item() else { return Content::Skipped };
    let images = ["OldImage", "NewImage"].map(|name| change.get(name).and_then(Map::read));
    let shop_ids = images.iter().flatten().filter_map(|image| image.text("shop_id"));
    let shop_ids = shop_ids.filter(|_| item.query.is_none()).map(str::to_owned).collect();
    let has_old_image = images[0].is_some();
    Content::Change(RecordedChange {
        item,
        change: read_change(record, change),
        shop_ids,
        has_old_image,
    })
}

fn read_change(record: &Fields<'_>, change: &Fields<'_>) -> Result<Change, Rejection> {
    let image = change.get("NewImage").and_then(Item::image);
    match (record.parse::<String>("eventName").as_deref(), image) {
        (Some("REMOVE"), _) => Ok(Change::Remove),
        (Some("INSERT" | "MODIFY"), Some(image)) => Ok(Change::Upsert(image)),
        (Some("INSERT" | "MODIFY"), None) => Err(Rejection::new(
            "dynamodb.NewImage",
            "is missing: the stream's view has to be NEW_IMAGE or NEW_AND_OLD_IMAGES",
        )),
        _ => Err(Rejection::new("eventName", "must be INSERT, MODIFY or REMOVE")),
    }
}

/// The fields of a JSON object, their values unread. `None` for a name that stands twice: which of the
/// two would count?
#[derive(Default)]
struct Fields<'a>(BTreeMap<String, Option<&'a RawValue>>);

impl<'a> Fields<'a> {
    /// Returns no fields where there is no object.
    fn read(json: &'a RawValue) -> Self {
        let mut json = serde_json::Deserializer::from_str(json.get());
        json.deserialize_map(FieldsVisitor).unwrap_or_default()
    }

    /// Returns a field that is there once and not null.
    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied().flatten().filter(|json| json.get() != "null")
    }

    fn parse<T: Deserialize<'a>>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.get(name)?.get()).ok()
    }
}

struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = BTreeMap::new();
        while let Some((name, value)) = map.next_entry()? {
            fields.entry(name).and_modify(|first| *first = None).or_insert(Some(value));
        }
        Ok(Fields(fields))
    }
}
