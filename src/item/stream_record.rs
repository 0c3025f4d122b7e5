//! Stream records. Each is decoded by itself, so that a malformed one takes no other down.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::keys::claimed_shop_id;
use super::{IndexSettings, ItemKey, ItemKind, Map, QueryConfig, QueryConfigRef, Rejection};
use crate::index::IndexRef;
use crate::json::{RawObject, Text, from_object};

/// The event source that stream records name.
pub const EVENT_SOURCE: &str = "aws:dynamodb";

/// A stream record and what it asks for.
#[derive(Debug)]
pub struct StreamRecord {
    /// Where the record stands in its shard.
    pub sequence_number: Option<String>,
    /// Whether the record names another event source than [`EVENT_SOURCE`].
    pub from_another_source: bool,
    /// When the table took the change, in seconds since the epoch; to the second.
    pub created_at: Option<f64>,
    /// What it asks for.
    pub content: Content,
}

/// What a stream record asks for.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all records are of settings")]
pub enum Content {
    /// Nothing: the item isn't ours.
    Skipped,
    /// A change of an index's settings.
    Settings(SettingsRecord),
    /// A change of a query config.
    QueryConfig(QueryConfigRecord),
    /// So broken that not even its item is known.
    Unknown {
        /// Why.
        rejection: Rejection,
    },
}

/// A change of an index's settings.
#[derive(Debug)]
pub struct SettingsRecord {
    /// The index.
    pub index: IndexRef,
    /// What happened to it.
    pub change: Result<Change<IndexSettings>, Rejection>,
    /// Every shop id that the record's images name, as far as it can be read.
    pub shop_ids: Vec<String>,
    /// Whether the stream says what was there before.
    pub has_old_image: bool,
}

/// A change of a query config.
#[derive(Debug)]
pub struct QueryConfigRecord {
    /// The query config.
    pub query_config: QueryConfigRef,
    /// What happened to it.
    pub change: Result<Change<QueryConfig>, Rejection>,
}

/// What happened to an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<T> {
    /// It was written.
    Upsert(T),
    /// It is gone.
    Remove,
}

/// A record as the stream sends it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRecord<'a> {
    #[serde(borrow)]
    event_name: Text<'a>,
    #[serde(borrow)]
    event_source: Option<Text<'a>>,
    #[serde(borrow)]
    dynamodb: WireChange<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireChange<'a> {
    keys: ItemKey,
    #[serde(borrow)]
    new_image: Option<Map<'a>>,
    #[serde(borrow)]
    old_image: Option<Map<'a>>,
    sequence_number: Option<String>,
    /// Seconds since the epoch; in any other shape it is not needed.
    approximate_creation_date_time: Option<&'a RawValue>,
}

/// What could be read of a record.
#[derive(Default)]
struct Parts<'a> {
    event_name: Option<Text<'a>>,
    event_source: Option<Text<'a>>,
    key: Option<ItemKey>,
    new_image: Option<Map<'a>>,
    old_image: Option<Map<'a>>,
    sequence_number: Option<String>,
    created_at: Option<f64>,
    /// The first field that could not be read.
    malformed: Option<&'static str>,
}

impl StreamRecord {
    /// Reads one record of an event, whatever stands in its place.
    pub fn read(json: &RawValue) -> Self {
        let parts = match from_object::<WireRecord<'_>>(json.get()) {
            Ok(record) => record.into(),
            Err(_) => Parts::read_what_can_be_read(json),
        };
        Self::interpret(parts)
    }

    fn interpret(parts: Parts<'_>) -> Self {
        let content = Content::of(&parts);
        Self {
            sequence_number: parts.sequence_number,
            from_another_source: parts.event_source.is_some_and(|name| *name != *EVENT_SOURCE),
            created_at: parts.created_at,
            content,
        }
    }
}

/// Reads a record of the right shape. Any other shape is an error of the whole event, which then
/// has to be read record by record.
impl<'de> Deserialize<'de> for StreamRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        WireRecord::deserialize(deserializer).map(|record| Self::interpret(record.into()))
    }
}

impl<'a> From<WireRecord<'a>> for Parts<'a> {
    fn from(WireRecord { event_name, event_source, dynamodb }: WireRecord<'a>) -> Self {
        Self {
            event_name: Some(event_name),
            event_source,
            key: Some(dynamodb.keys),
            new_image: dynamodb.new_image,
            old_image: dynamodb.old_image,
            sequence_number: dynamodb.sequence_number,
            created_at: dynamodb.approximate_creation_date_time.and_then(created_at),
            malformed: None,
        }
    }
}

impl<'a> Parts<'a> {
    fn read_what_can_be_read(json: &'a RawValue) -> Self {
        let mut parts = Self::default();
        let Ok(record) = serde_json::from_str::<RawObject<'a>>(json.get()) else {
            return Self { malformed: Some("(record)"), ..parts };
        };
        parts.event_name = parts.field(&record, "eventName", "eventName", read);
        parts.event_source = parts.field(&record, "eventSource", "eventSource", read);
        let change: Option<RawObject<'a>> = parts.field(&record, "dynamodb", "dynamodb", read);
        let change = change.unwrap_or_default();
        parts.key =
            parts.field(&change, "Keys", "dynamodb.Keys", |json| from_object(json.get()).ok());
        let image = Map::read_what_can_be_read;
        parts.new_image = parts.field(&change, "NewImage", "dynamodb.NewImage", image);
        parts.old_image = parts.field(&change, "OldImage", "dynamodb.OldImage", image);
        parts.sequence_number =
            parts.field(&change, "SequenceNumber", "dynamodb.SequenceNumber", read);
        let created_at = change.get("ApproximateCreationDateTime").ok().flatten();
        parts.created_at = created_at.and_then(self::created_at);
        parts
    }

    /// Reads a field that may be absent or null; notes its path where it is something else.
    fn field<T>(
        &mut self,
        object: &RawObject<'a>,
        name: &str,
        path: &'static str,
        read: impl FnOnce(&'a RawValue) -> Option<T>,
    ) -> Option<T> {
        let value = match object.get(name) {
            Ok(None) => return None,
            Ok(Some(json)) if json.get() == "null" => return None,
            Ok(Some(json)) => read(json),
            Err(_duplicate) => None,
        };
        if value.is_none() {
            self.malformed.get_or_insert(path);
        }
        value
    }
}

fn read<'a, T: Deserialize<'a>>(json: &'a RawValue) -> Option<T> {
    serde_json::from_str(json.get()).ok()
}

/// Seconds since the epoch; a time that can't be read counts as none.
fn created_at(json: &RawValue) -> Option<f64> {
    read(json).filter(|seconds| *seconds >= 0.0)
}

impl Content {
    fn of(parts: &Parts<'_>) -> Self {
        let malformed = |path| Rejection::new(path, "is not as in a DynamoDB stream record");
        let Some(key) = &parts.key else {
            let rejection = malformed(parts.malformed.unwrap_or("dynamodb.Keys"));
            return Self::Unknown { rejection };
        };
        let shape = match parts.malformed {
            Some(path) => Err(malformed(path)),
            None => Ok(()),
        };
        match key.kind() {
            ItemKind::Skipped => Self::Skipped,
            ItemKind::IndexSettings(index) => {
                let images = [&parts.old_image, &parts.new_image].into_iter().flatten();
                Self::Settings(SettingsRecord {
                    shop_ids: images.filter_map(claimed_shop_id).map(str::to_owned).collect(),
                    has_old_image: parts.old_image.is_some(),
                    change: shape
                        .and_then(|()| parts.change(|image| IndexSettings::decode(&index, image))),
                    index,
                })
            }
            ItemKind::QueryConfig(query_config) => Self::QueryConfig(QueryConfigRecord {
                change: shape
                    .and_then(|()| parts.change(|image| QueryConfig::decode(&query_config, image))),
                query_config,
            }),
        }
    }
}

impl Parts<'_> {
    fn change<T>(
        &self,
        decode: impl FnOnce(&Map<'_>) -> Result<T, Rejection>,
    ) -> Result<Change<T>, Rejection> {
        match (self.event_name.as_deref(), &self.new_image) {
            (Some("REMOVE"), _) => Ok(Change::Remove),
            (Some("INSERT" | "MODIFY"), Some(image)) => decode(image).map(Change::Upsert),
            (Some("INSERT" | "MODIFY"), None) => Err(Rejection::new(
                "dynamodb.NewImage",
                "is missing: the stream's view has to be NEW_IMAGE or NEW_AND_OLD_IMAGES",
            )),
            _ => Err(Rejection::new("eventName", "must be INSERT, MODIFY or REMOVE")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> StreamRecord {
        StreamRecord::read(&RawValue::from_string(json.to_owned()).unwrap())
    }

    fn record(event_name: &str, rest: &str) -> String {
        format!(
            r#"{{"eventName":"{event_name}","awsRegion":"eu-west-1","dynamodb":{{"ApproximateCreationDateTime":1700000000.0,
            "Keys":{{"pk":{{"S":"acct1"}},"sk":{{"S":"INDEX#main"}}}},"SequenceNumber":"111"{rest}}}}}"#
        )
    }

    fn settings(json: &str) -> SettingsRecord {
        match decode(json).content {
            Content::Settings(settings) => settings,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn insert_and_modify_carry_the_new_image_and_remove_needs_none() {
        for name in ["INSERT", "MODIFY"] {
            let json = record(
                name,
                r#","NewImage":{"index_endpoint":{"S":"https://h"},"shop_id":{"S":"s2"}},"OldImage":{"shop_id":{"S":"s1"}}"#,
            );
            let settings = settings(&json);
            assert!(matches!(settings.change, Ok(Change::Upsert(_))));
            assert_eq!(settings.shop_ids, ["s1", "s2"]);
            assert!(settings.has_old_image);
        }
        let removed = settings(&record("REMOVE", ""));
        assert_eq!(removed.change, Ok(Change::Remove));
        assert!(!removed.has_old_image);
        let record = decode(&record("REMOVE", ""));
        assert_eq!(record.sequence_number.as_deref(), Some("111"));
        assert_eq!(record.created_at, Some(1_700_000_000.0));
    }

    #[test]
    fn what_is_wrong_with_a_record_is_named_by_its_path() {
        let rows = [
            (record("INSERT", ""), "dynamodb.NewImage"),
            (record("UPSERT", r#","NewImage":{}"#), "eventName"),
            (record("INSERT", r#","NewImage":[]"#), "dynamodb.NewImage"),
            (record("INSERT", r#","OldImage":"x""#), "dynamodb.OldImage"),
            (record("INSERT", r#","NewImage":{},"NewImage":{}"#), "dynamodb.NewImage"),
            (record("INSERT", r#","SequenceNumber":7"#), "dynamodb.SequenceNumber"),
            (record("INSERT", r#","NewImage":null"#), "dynamodb.NewImage"),
            (record("INSERT", r#","NewImage":{}"#), "index_endpoint"),
        ];
        for (json, path) in rows {
            assert_eq!(settings(&json).change.unwrap_err().path, path, "{json}");
        }
    }

    #[test]
    fn a_malformed_record_still_says_whose_it_is_and_which_shop_ids_it_names() {
        let malformed =
            settings(&record("INSERT", r#","NewImage":{"shop_id":{"S":"s1"}},"OldImage":7"#));
        assert_eq!(malformed.index.to_string(), "acct1/main");
        assert_eq!(malformed.shop_ids, ["s1"]);
        for json in [r#"{}"#, r#"7"#, r#"null"#, r#"{"dynamodb":{"Keys":{"pk":{"S":"a"}}}}"#] {
            assert!(matches!(decode(json).content, Content::Unknown { .. }), "{json}");
        }
    }

    #[test]
    fn items_that_are_not_ours_are_skipped_however_broken_they_are() {
        let json =
            record("INSERT", r#","NewImage":7"#).replace("INDEX#main", "INDEX#DEFAULT_CONFIG");
        assert!(matches!(decode(&json).content, Content::Skipped));
    }
}
