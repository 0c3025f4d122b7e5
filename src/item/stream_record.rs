//! Stream records. Each is decoded by itself, so that a malformed one takes no other down.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::value::RawValue;

use super::{Item, ItemKey, Rejection};
use crate::index::ItemRef;
use crate::json::{Fields, from_object};

pub const EVENT_SOURCE: &str = "aws:dynamodb";

/// A later time, beyond the year 5138, is not in seconds. The metadata's RFC 3339 ends with the year 9999.
const LATEST_SECONDS: f64 = 1e11;

#[derive(Debug)]
pub struct StreamRecord {
    pub sequence_number: Option<String>,
    /// `eventSource`, which is [`EVENT_SOURCE`] where the stream sent the record.
    pub event_source: Option<String>,
    /// `eventSourceARN`: the stream, and with it the table.
    pub source_arn: Option<String>,
    /// `None` where the item isn't ours, an error where the item is not known.
    pub change: Result<Option<RecordedChange>, Rejection>,
}

#[derive(Debug)]
pub struct RecordedChange {
    pub item: ItemRef,
    pub change: Change,
    /// When the table took it, to the second.
    pub created_at: Option<SystemTime>,
    /// Every shop id that the record's images name, as far as it can be read; none of a query config.
    pub shop_ids: BTreeSet<String>,
    /// Whether the record says what the item was before.
    pub has_old_image: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// The item as the record's `NewImage` has it.
    Upsert(Item),
    Remove,
    Malformed(Rejection),
}

impl StreamRecord {
    /// Reads one record of an event. Never fails: anything may be in a record's place.
    pub fn read(json: &RawValue) -> Self {
        let record: Fields<'_> = serde_json::from_str(json.get()).unwrap_or_default();
        let change: Fields<'_> = record.get("dynamodb").unwrap_or_default();
        Self {
            sequence_number: change.get("SequenceNumber"),
            event_source: record.get("eventSource"),
            source_arn: record.get("eventSourceARN"),
            change: recorded_change(&record, &change),
        }
    }
}

/// Returns what a record says of its item, as [`StreamRecord::change`] has it.
fn recorded_change(
    record: &Fields<'_>,
    change: &Fields<'_>,
) -> Result<Option<RecordedChange>, Rejection> {
    let key = change.get("Keys").and_then(|json: &RawValue| from_object(json.get()).ok());
    let reason = "is missing, or is not as in a DynamoDB stream record";
    let key: ItemKey = key.ok_or_else(|| Rejection::new("dynamodb.Keys", reason))?;
    let Some(item) = key.item() else { return Ok(None) };
    let event_name: Option<String> = record.get("eventName");
    let seconds: Option<f64> = change.get("ApproximateCreationDateTime");
    let seconds = seconds.filter(|seconds| (0.0..=LATEST_SECONDS).contains(seconds));
    let [old, new] = ["OldImage", "NewImage"].map(|name| change.get(name).and_then(Item::image));
    let images = [&old, &new].into_iter().flatten().map(Item::attributes);
    let shop_ids = images.filter_map(|image| image.text("shop_id").map(str::to_owned));
    Ok(Some(RecordedChange {
        shop_ids: shop_ids.filter(|_| item.query.is_none()).collect(),
        item,
        change: match (event_name.as_deref(), new) {
            (Some("REMOVE"), _) => Change::Remove,
            (Some("INSERT" | "MODIFY"), Some(image)) => Change::Upsert(image),
            (Some("INSERT" | "MODIFY"), None) => Change::Malformed(Rejection::new(
                "dynamodb.NewImage",
                "must be an item: the stream's view has to be NEW_IMAGE or NEW_AND_OLD_IMAGES",
            )),
            _ => Change::Malformed(Rejection::new("eventName", "must be INSERT, MODIFY or REMOVE")),
        },
        created_at: seconds.map(|seconds| UNIX_EPOCH + Duration::from_secs_f64(seconds)),
        has_old_image: old.is_some(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const INSERT: &str = r#""INSERT""#;
    const REMOVE: &str = r#""REMOVE""#;
    const NEW: &str = r#","NewImage":{"shop_id":{"S":"s"}}"#;
    const OLD: &str = r#","OldImage":{"shop_id":{"S":"o"}}"#;

    fn read(json: &str) -> StreamRecord {
        StreamRecord::read(serde_json::from_str(json).unwrap())
    }

    /// A record of account `acct1`, with more fields beside its keys.
    fn record(sk: &str, event_name: &str, fields: &str) -> StreamRecord {
        let keys = format!(r#""Keys":{{"pk":{{"S":"acct1"}},"sk":{{"S":"{sk}"}}}}"#);
        read(&format!(r#"{{"eventName":{event_name},"dynamodb":{{{keys}{fields}}}}}"#))
    }

    #[test]
    fn what_a_record_says_of_its_item() {
        const NO_IMAGE: &str = "dynamodb.NewImage";
        // The event's name, more fields of `dynamodb`; the change, and the shop ids that the images name.
        let rows: [(_, _, _, &[&str]); 13] = [
            (INSERT, NEW, "upsert", &["s"]),
            (r#""MODIFY""#, &[NEW, OLD].concat(), "upsert", &["o", "s"]),
            (INSERT, r#","NewImage":{"x":7,"shop_id":{"S":""}}"#, "upsert", &[]),
            (INSERT, r#","NewImage":{},"OldImage":"x","SequenceNumber":7"#, "upsert", &[]),
            (REMOVE, "", "remove", &[]),
            (REMOVE, &[r#","NewImage":7"#, OLD].concat(), "remove", &["o"]),
            (INSERT, OLD, NO_IMAGE, &["o"]),
            (INSERT, r#","NewImage":[]"#, NO_IMAGE, &[]),
            (INSERT, r#","NewImage":null"#, NO_IMAGE, &[]),
            (r#""UPSERT""#, NEW, "eventName", &["s"]),
            ("7", r#","NewImage":{}"#, "eventName", &[]),
            ("null", r#","NewImage":{}"#, "eventName", &[]),
            (r#""remove""#, "", "eventName", &[]),
        ];
        for (name, fields, expected, shop_ids) in rows {
            let read = record("INDEX#main", name, fields).change.unwrap().unwrap();
            let found = match &read.change {
                Change::Upsert(_) => "upsert",
                Change::Remove => "remove",
                Change::Malformed(rejection) => &rejection.path,
            };
            assert_eq!(found, expected, "{name} {fields}");
            assert_eq!(Vec::from_iter(&read.shop_ids), shop_ids, "{name} {fields}");
            assert_eq!(read.item.to_string(), "acct1/main", "{name} {fields}");
            assert_eq!(read.has_old_image, fields.contains(OLD), "{name} {fields}");
        }
        let read = record("INDEX#main#QUERY#q", INSERT, NEW).change.unwrap().unwrap();
        assert_eq!((read.item.query.as_deref(), read.shop_ids.len()), (Some("q"), 0));
    }

    #[test]
    fn a_record_whose_keys_cannot_be_read_is_rejected() {
        for json in [
            "7",
            "null",
            "[]",
            "{}",
            r#"{"dynamodb":7}"#,
            r#"{"dynamodb":{"Keys":null}}"#,
            r#"{"dynamodb":{"Keys":{"pk":{"S":"a"}}}}"#,
            r#"{"dynamodb":{"Keys":[{"S":"a"},{"S":"b"}]}}"#,
        ] {
            assert_eq!(read(json).change.unwrap_err().path, "dynamodb.Keys", "{json}");
        }
    }

    #[test]
    fn items_that_are_not_ours_are_skipped_however_broken_they_are() {
        let record = record("INDEX#DEFAULT_CONFIG", "7", r#","NewImage":7"#);
        assert!(matches!(record.change, Ok(None)));
    }

    #[test]
    fn what_is_not_needed_is_none_where_it_cannot_be_read() {
        let times = [
            ("1700000000", Some(1_700_000_000)),
            ("0.0", Some(0)),
            ("1e11", Some(100_000_000_000)),
            ("100000000001", None),
            ("-1", None),
            ("1e999", None),
            (r#""1700000000""#, None),
            ("null", None),
        ];
        for (json, expected) in times {
            let field = format!(r#","ApproximateCreationDateTime":{json}"#);
            let record = record("INDEX#main", REMOVE, &field);
            let expected = expected.map(|seconds| UNIX_EPOCH + Duration::from_secs(seconds));
            let read = record.change.unwrap().unwrap();
            assert_eq!((read.created_at, read.change), (expected, Change::Remove), "{json}");
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
