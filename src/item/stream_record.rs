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
    /// Whether the record says what the item was before.
    pub has_old_image: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The item as the record's `NewImage` has it.
    Upsert(Item),
    Remove,
}

impl StreamRecord {
    /// Reads one record of an event. Never fails: anything may be in a record's place.
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
            "must be an item: the stream's view has to be NEW_IMAGE or NEW_AND_OLD_IMAGES",
        )),
        _ => Err(Rejection::new("eventName", "must be INSERT, MODIFY or REMOVE")),
    }
}

/// The fields of a JSON object, with their values unread. A name that is there twice has `None`, because
/// either value could be the right one.
#[derive(Default)]
struct Fields<'a>(BTreeMap<String, Option<&'a RawValue>>);

impl<'a> Fields<'a> {
    /// Reads an object; anything else has no fields.
    fn read(json: &'a RawValue) -> Self {
        let mut json = serde_json::Deserializer::from_str(json.get());
        json.deserialize_map(FieldsVisitor).unwrap_or_default()
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.get(name).copied().flatten()
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

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = r#""Keys":{"pk":{"S":"acct1"},"sk":{"S":"INDEX#main"}}"#;

    fn read(json: &str) -> StreamRecord {
        StreamRecord::read(serde_json::from_str(json).unwrap())
    }

    /// A record of `acct1/main`, with more fields beside its keys.
    fn record(event_name: &str, fields: &str) -> StreamRecord {
        read(&format!(r#"{{"eventName":{event_name},"dynamodb":{{{KEYS}{fields}}}}}"#))
    }

    fn change(record: StreamRecord) -> RecordedChange {
        match record.content {
            Content::Change(change) => change,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_record_says_of_its_item() {
        const UPSERT: Result<&str, &str> = Ok("upsert");
        const NO_IMAGE: Result<&str, &str> = Err("dynamodb.NewImage");
        const NO_NAME: Result<&str, &str> = Err("eventName");
        // The event's name, more fields of `dynamodb`; the change, and the shop ids that the images name.
        let rows: [(_, _, _, &[&str]); 16] = [
            (r#""INSERT""#, r#","NewImage":{"shop_id":{"S":"s"}}"#, UPSERT, &["s"]),
            (
                r#""MODIFY""#,
                r#","NewImage":{"shop_id":{"S":"s"}},"OldImage":{"shop_id":{"S":"o"}}"#,
                UPSERT,
                &["o", "s"],
            ),
            (r#""INSERT""#, r#","NewImage":{"x":7,"shop_id":{"S":""}}"#, UPSERT, &[]),
            (r#""INSERT""#, r#","NewImage":{},"OldImage":"x","SequenceNumber":7"#, UPSERT, &[]),
            (r#""INSERT""#, r#","NewImage":{},"Unknown":1,"Unknown":2"#, UPSERT, &[]),
            (r#""REMOVE""#, "", Ok("remove"), &[]),
            (
                r#""REMOVE""#,
                r#","NewImage":7,"OldImage":{"shop_id":{"S":"o"}}"#,
                Ok("remove"),
                &["o"],
            ),
            (r#""INSERT""#, r#","OldImage":{"shop_id":{"S":"o"}}"#, NO_IMAGE, &["o"]),
            (r#""INSERT""#, r#","NewImage":[]"#, NO_IMAGE, &[]),
            (r#""INSERT""#, r#","NewImage":null"#, NO_IMAGE, &[]),
            (r#""INSERT""#, r#","NewImage":{},"NewImage":{}"#, NO_IMAGE, &[]),
            (r#""UPSERT""#, r#","NewImage":{"shop_id":{"S":"s"}}"#, NO_NAME, &["s"]),
            ("7", r#","NewImage":{}"#, NO_NAME, &[]),
            ("null", r#","NewImage":{}"#, NO_NAME, &[]),
            (r#""REMOVE","eventName":"REMOVE""#, "", NO_NAME, &[]),
            (r#""remove""#, "", NO_NAME, &[]),
        ];
        for (name, fields, expected, shop_ids) in rows {
            let read = change(record(name, fields));
            let found = read.change.as_ref().map(|change| match change {
                Change::Upsert(_) => "upsert",
                Change::Remove => "remove",
            });
            assert_eq!(found.map_err(|rejection| &*rejection.path), expected, "{name} {fields}");
            assert_eq!(read.shop_ids, shop_ids, "{name} {fields}");
            assert_eq!(read.item.to_string(), "acct1/main", "{name} {fields}");
            let has_old_image = fields.contains(r#""OldImage":{"#);
            assert_eq!(read.has_old_image, has_old_image, "{name} {fields}");
        }
    }

    #[test]
    fn a_record_whose_keys_cannot_be_read_is_unknown() {
        let keys_twice = format!(r#"{{"dynamodb":{{{KEYS},{KEYS}}}}}"#);
        let change_twice = format!(r#"{{"dynamodb":{{{KEYS}}},"dynamodb":{{{KEYS}}}}}"#);
        for json in [
            "7",
            "null",
            "[]",
            "{}",
            r#"{"dynamodb":7}"#,
            r#"{"dynamodb":{"Keys":null}}"#,
            r#"{"dynamodb":{"Keys":{"pk":{"S":"a"}}}}"#,
            r#"{"dynamodb":{"Keys":{"pk":{"S":"a"},"sk":{"S":"b"},"pk":{"S":"c"}}}}"#,
            r#"{"dynamodb":{"Keys":[{"S":"a"},{"S":"b"}]}}"#,
            &keys_twice,
            &change_twice,
        ] {
            let Content::Unknown(rejection) = read(json).content else { panic!("{json}") };
            assert_eq!(rejection.path, "dynamodb.Keys", "{json}");
        }
    }

    #[test]
    fn items_that_are_not_ours_are_skipped_however_broken_they_are() {
        let keys = KEYS.replace("main", "DEFAULT_CONFIG");
        let json = format!(r#"{{"eventName":7,"dynamodb":{{{keys},"NewImage":7}}}}"#);
        assert!(matches!(read(&json).content, Content::Skipped));
    }

    #[test]
    fn a_query_configs_images_name_no_shop_id() {
        let keys = KEYS.replace("main", "main#QUERY#q");
        let image = r#""NewImage":{"shop_id":{"S":"s"}}"#;
        let read =
            change(read(&format!(r#"{{"eventName":"INSERT","dynamodb":{{{keys},{image}}}}}"#)));
        assert_eq!((read.item.query.as_deref(), read.shop_ids.len()), (Some("q"), 0));
    }

    #[test]
    fn what_is_not_needed_is_none_where_it_cannot_be_read() {
        let times = [
            ("1700000000", Some(1_700_000_000.0)),
            ("0.0", Some(0.0)),
            ("1e11", Some(1e11)),
            ("100000000001", None),
            ("1700000000000", None),
            ("-1", None),
            ("1e999", None),
            (r#""1700000000""#, None),
            ("null", None),
            (r#"1,"ApproximateCreationDateTime":1"#, None),
        ];
        for (json, expected) in times {
            let record =
                record(r#""REMOVE""#, &format!(r#","ApproximateCreationDateTime":{json}"#));
            assert_eq!(record.created_at, expected, "{json}");
            assert!(change(record).change.is_ok(), "{json}");
        }
        for (json, expected) in [(r#""x""#, Some("x")), ("7", None), ("null", None)] {
            let read = read(&format!(
                r#"{{"eventSource":{json},"eventSourceARN":{json},"dynamodb":{{"SequenceNumber":{json}}}}}"#
            ));
            for found in [read.sequence_number, read.event_source, read.source_arn] {
                assert_eq!(found.as_deref(), expected, "{json}");
            }
        }
    }
}
