//! Stream records. Each is decoded by itself, so that a malformed one takes no other down.

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::{IndexSettings, ItemKey, ItemKind, Map, QueryConfig, QueryConfigRef, Rejection};
use crate::index::IndexRef;
use crate::json::{RawObject, Text, from_object};

pub const EVENT_SOURCE: &str = "aws:dynamodb";

#[derive(Debug)]
pub struct StreamRecord {
    pub sequence_number: Option<String>,
    /// Whether the record names another event source than [`EVENT_SOURCE`].
    pub from_another_source: bool,
    /// When the table took the change, in seconds since the epoch; to the second.
    pub created_at: Option<f64>,
    pub content: Content,
}

#[derive(Debug)]
pub enum Content {
    /// Nothing: the item isn't ours.
    Skipped,
    Settings(SettingsRecord),
    QueryConfig(QueryConfigRecord),
    /// So broken that not even its item is known.
    Unknown {
        rejection: Rejection,
    },
}

#[derive(Debug)]
pub struct SettingsRecord {
    pub index: IndexRef,
    pub change: Result<Change<IndexSettings>, Rejection>,
    /// Every shop id that the record's images name, as far as it can be read.
    pub shop_ids: Vec<String>,
    /// Whether the stream says what was there before.
    pub has_old_image: bool,
}

#[derive(Debug)]
pub struct QueryConfigRecord {
    pub query_config: QueryConfigRef,
    pub change: Result<Change<QueryConfig>, Rejection>,
}

#[derive(Debug, Clone, PartialEq)]
pub enum Change<T> {
    Upsert(T),
    Remove,
}

/// A record as the stream sends it, or what could be read of another.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireRecord<'a> {
    #[serde(borrow)]
    event_name: Option<Text<'a>>,
    #[serde(borrow)]
    event_source: Option<Text<'a>>,
    #[serde(borrow, default)]
    dynamodb: WireChange<'a>,
    /// The first field that could not be read.
    #[serde(skip)]
    malformed: Option<&'static str>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct WireChange<'a> {
    keys: Option<ItemKey>,
    #[serde(borrow)]
    new_image: Option<Map<'a>>,
    #[serde(borrow)]
    old_image: Option<Map<'a>>,
    sequence_number: Option<String>,
    /// Seconds since the epoch; in any other shape it is not needed.
    approximate_creation_date_time: Option<&'a RawValue>,
}

impl StreamRecord {
    /// Reads one record of an event, whatever stands in its place.
    pub fn read(json: &RawValue) -> Self {
        from_object(json.get())
            .unwrap_or_else(|_| WireRecord::read_field_by_field(json))
            .interpret()
    }
}

/// Any other shape is an error of the whole event, which then has to be read record by record.
impl<'de> Deserialize<'de> for StreamRecord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        WireRecord::deserialize(deserializer).map(WireRecord::interpret)
    }
}

impl<'a> WireRecord<'a> {
    fn interpret(self) -> StreamRecord {
        let content = self.content();
        let created_at = self.dynamodb.approximate_creation_date_time.and_then(read);
        StreamRecord {
            sequence_number: self.dynamodb.sequence_number,
            from_another_source: self.event_source.is_some_and(|name| *name != *EVENT_SOURCE),
            // A time that can't be read counts as none.
            created_at: created_at.filter(|seconds| *seconds >= 0.0),
            content,
        }
    }

    fn content(&self) -> Content {
        let change = &self.dynamodb;
        let Some(key) = &change.keys else {
            let rejection = malformed(self.malformed.unwrap_or("dynamodb.Keys"));
            return Content::Unknown { rejection };
        };
        match key.kind() {
            ItemKind::Skipped => Content::Skipped,
            ItemKind::IndexSettings(index) => {
                let images = [&change.old_image, &change.new_image].into_iter().flatten();
                let shop_ids = images.filter_map(|image| image.text("shop_id"));
                Content::Settings(SettingsRecord {
                    shop_ids: shop_ids.map(str::to_owned).collect(),
                    has_old_image: change.old_image.is_some(),
                    change: self.change(|image| IndexSettings::decode(&index, image)),
                    index,
                })
            }
            ItemKind::QueryConfig(query_config) => Content::QueryConfig(QueryConfigRecord {
                change: self.change(|image| QueryConfig::decode(&query_config, image)),
                query_config,
            }),
        }
    }

    fn change<T>(
        &self,
        decode: impl FnOnce(&Map<'_>) -> Result<T, Rejection>,
    ) -> Result<Change<T>, Rejection> {
        if let Some(path) = self.malformed {
            return Err(malformed(path));
        }
        match (self.event_name.as_deref(), &self.dynamodb.new_image) {
            (Some("REMOVE"), _) => Ok(Change::Remove),
            (Some("INSERT" | "MODIFY"), Some(image)) => decode(image).map(Change::Upsert),
            (Some("INSERT" | "MODIFY"), None) => Err(Rejection::new(
                "dynamodb.NewImage",
                "is missing: the stream's view has to be NEW_IMAGE or NEW_AND_OLD_IMAGES",
            )),
            _ => Err(Rejection::new("eventName", "must be INSERT, MODIFY or REMOVE")),
        }
    }

    fn read_field_by_field(json: &'a RawValue) -> Self {
        let mut record = Self::default();
        let Some(mut fields) = read::<RawObject<'a>>(json) else {
            return Self { malformed: Some("(record)"), ..record };
        };
        record.event_name = record.field(&mut fields, "eventName", read);
        record.event_source = record.field(&mut fields, "eventSource", read);
        let fields: Option<RawObject<'a>> = record.field(&mut fields, "dynamodb", read);
        let fields = &mut fields.unwrap_or_default();
        let created_at = fields.take("ApproximateCreationDateTime");
        record.dynamodb = WireChange {
            keys: record.field(fields, "dynamodb.Keys", |json| from_object(json.get()).ok()),
            new_image: record.field(fields, "dynamodb.NewImage", Map::read),
            old_image: record.field(fields, "dynamodb.OldImage", Map::read),
            sequence_number: record.field(fields, "dynamodb.SequenceNumber", read),
            approximate_creation_date_time: created_at.ok().flatten(),
        };
        record
    }

    /// Reads a field that may be absent or null; notes its path where it is something else.
    fn field<T>(
        &mut self,
        object: &mut RawObject<'a>,
        path: &'static str,
        read: impl FnOnce(&'a RawValue) -> Option<T>,
    ) -> Option<T> {
        let name = path.trim_start_matches("dynamodb.");
        let value = match object.take(name) {
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

fn malformed(path: &str) -> Rejection {
    Rejection::new(path, "is not as in a DynamoDB stream record")
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
        let rows = [
            ("{}", "dynamodb.Keys"),
            ("7", "(record)"),
            ("null", "(record)"),
            (r#"{"dynamodb":{"Keys":{"pk":{"S":"a"}}}}"#, "dynamodb.Keys"),
        ];
        for (json, path) in rows {
            let Content::Unknown { rejection } = decode(json).content else { panic!("{json}") };
            assert_eq!(rejection.path, path, "{json}");
        }
    }

    #[test]
    fn a_field_that_is_null_is_absent_also_where_another_is_malformed() {
        let image = r#","NewImage":{"index_endpoint":{"S":"http://h"},"x":7},"OldImage":null"#;
        let settings = settings(&record("INSERT", image));
        assert!(matches!(settings.change, Ok(Change::Upsert(_))));
        assert!(!settings.has_old_image);
    }

    #[test]
    fn items_that_are_not_ours_are_skipped_however_broken_they_are() {
        let json =
            record("INSERT", r#","NewImage":7"#).replace("INDEX#main", "INDEX#DEFAULT_CONFIG");
        assert!(matches!(decode(&json).content, Content::Skipped));
    }
}
