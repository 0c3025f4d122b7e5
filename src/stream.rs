//! Stream records, decoded one by one, so that a malformed one takes no other down.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::entry::{check_metadata_size, check_value_size};
use crate::limits::check_key;
use crate::record::image::StreamImage;
use crate::record::index_settings::readable_shop_id;
use crate::record::{
    Image, IndexRef, IndexSettings, ItemKey, ItemKind, QueryConfig, QueryConfigRef, Rejection,
};

/// A stream record and what it asks for.
#[derive(Debug)]
pub struct StreamRecord {
    /// Where the record stands in its shard.
    pub sequence_number: Option<String>,
    /// The event source that the record names.
    pub event_source: Option<String>,
    /// When the table took the change, in seconds since the epoch; to the second.
    pub created_at: Option<f64>,
    /// What it asks for.
    pub content: Content,
}

/// What a stream record asks for.
#[derive(Debug)]
pub enum Content {
    /// Nothing: the item isn't ours.
    Skipped,
    /// A change of an index' settings.
    Settings(SettingsRecord),
    /// A change of a query config.
    QueryConfig(QueryConfigRecord),
    /// So broken that not even its item is known.
    Unknown {
        /// Why.
        rejection: Rejection,
    },
}

/// A change of an index' settings.
#[derive(Debug)]
pub struct SettingsRecord {
    /// The index.
    pub index: IndexRef,
    /// What became of it.
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
    /// What became of it.
    pub change: Result<Change<QueryConfig>, Rejection>,
}

/// What became of an item.
#[derive(Debug, Clone, PartialEq)]
pub enum Change<T> {
    /// It was written.
    Upsert(T),
    /// It is gone.
    Remove,
}

#[derive(Deserialize)]
struct RawRecord<'a> {
    #[serde(rename = "eventName")]
    event_name: String,
    #[serde(rename = "eventSource", default)]
    event_source: Option<String>,
    #[serde(borrow)]
    dynamodb: RawChange<'a>,
}

#[derive(Deserialize)]
struct RawChange<'a> {
    #[serde(rename = "Keys")]
    keys: RawKeys,
    #[serde(rename = "NewImage", borrow, default)]
    new_image: Option<StreamImage<'a>>,
    #[serde(rename = "OldImage", borrow, default)]
    old_image: Option<StreamImage<'a>>,
    #[serde(rename = "SequenceNumber", default)]
    sequence_number: Option<String>,
    #[serde(rename = "ApproximateCreationDateTime", default)]
    created_at: Option<f64>,
}

#[derive(Deserialize)]
struct RawKeys {
    pk: RawText,
    sk: RawText,
}

#[derive(Deserialize)]
struct RawText {
    #[serde(rename = "S")]
    text: String,
}

impl StreamRecord {
    /// Decodes one record of an event.
    pub fn decode(raw: &RawValue) -> Self {
        match serde_json::from_str::<RawRecord<'_>>(raw.get()) {
            Ok(record) => Self::interpret(record),
            Err(_) => Self::malformed(raw),
        }
    }

    fn interpret(record: RawRecord<'_>) -> Self {
        let RawChange { keys, new_image, old_image, sequence_number, created_at } = record.dynamodb;
        let key = ItemKey { pk: keys.pk.text, sk: keys.sk.text };
        let new_image = new_image.as_ref().map(Image::Stream);
        let old_image = old_image.as_ref().map(Image::Stream);
        let content = match key.kind() {
            ItemKind::Skipped => Content::Skipped,
            ItemKind::IndexSettings(index) => {
                let shop_ids =
                    [old_image, new_image].into_iter().flatten().filter_map(readable_shop_id);
                Content::Settings(SettingsRecord {
                    shop_ids: shop_ids.collect(),
                    has_old_image: old_image.is_some(),
                    change: change(&record.event_name, new_image, |image| {
                        decode_settings(&index, image)
                    }),
                    index,
                })
            }
            ItemKind::QueryConfig(query_config) => Content::QueryConfig(QueryConfigRecord {
                change: change(&record.event_name, new_image, |image| {
                    decode_query_config(&query_config, image)
                }),
                query_config,
            }),
        };
        Self { sequence_number, event_source: record.event_source, created_at, content }
    }

    /// A record that isn't of a stream record's shape: what can be read of it says whose it is.
    fn malformed(raw: &RawValue) -> Self {
        let rejection = shape_rejection(raw);
        let value: serde_json::Value = serde_json::from_str(raw.get()).unwrap_or_default();
        let text = |pointer: &str| value.pointer(pointer).and_then(|text| text.as_str());
        let image = |name: &str| value.pointer(&format!("/dynamodb/{name}/shop_id/S"));
        let shop_ids: Vec<String> = ["OldImage", "NewImage"]
            .into_iter()
            .filter_map(|name| image(name)?.as_str().map(str::to_owned))
            .filter(|shop_id| !shop_id.is_empty())
            .collect();
        let key = text("/dynamodb/Keys/pk/S").zip(text("/dynamodb/Keys/sk/S"));
        let kind = key.map(|(pk, sk)| ItemKey { pk: pk.to_owned(), sk: sk.to_owned() }.kind());
        let content = match kind {
            None => Content::Unknown { rejection },
            Some(ItemKind::Skipped) => Content::Skipped,
            Some(ItemKind::IndexSettings(index)) => Content::Settings(SettingsRecord {
                index,
                change: Err(rejection),
                shop_ids,
                has_old_image: false,
            }),
            Some(ItemKind::QueryConfig(query_config)) => {
                Content::QueryConfig(QueryConfigRecord { query_config, change: Err(rejection) })
            }
        };
        Self {
            sequence_number: text("/dynamodb/SequenceNumber").map(str::to_owned),
            event_source: text("/eventSource").map(str::to_owned),
            created_at: None,
            content,
        }
    }
}

/// Decodes an index-settings item with all that KV demands of it.
pub fn decode_settings(index: &IndexRef, image: Image<'_>) -> Result<IndexSettings, Rejection> {
    let settings = IndexSettings::decode(index, image)?;
    check_value_size(settings.bytes_without_key())?;
    check_metadata_size(index)?;
    Ok(settings)
}

/// Decodes a query-config item with all that KV demands of it.
pub fn decode_query_config(
    query_config: &QueryConfigRef,
    image: Image<'_>,
) -> Result<QueryConfig, Rejection> {
    check_key(&query_config.kv_key()).map_err(|reason| Rejection::new("index_name", reason))?;
    check_metadata_size(&query_config.index)?;
    let decoded = QueryConfig::decode(query_config, image)?;
    check_value_size(decoded.value.len())?;
    Ok(decoded)
}

fn change<T>(
    event_name: &str,
    new_image: Option<Image<'_>>,
    decode: impl FnOnce(Image<'_>) -> Result<T, Rejection>,
) -> Result<Change<T>, Rejection> {
    match (event_name, new_image) {
        ("REMOVE", _) => Ok(Change::Remove),
        ("INSERT" | "MODIFY", Some(image)) => decode(image).map(Change::Upsert),
        ("INSERT" | "MODIFY", None) => Err(Rejection::new(
            "dynamodb.NewImage",
            "is missing: the stream's view has to be NEW_IMAGE or NEW_AND_OLD_IMAGES",
        )),
        _ => Err(Rejection::new("eventName", "must be INSERT, MODIFY or REMOVE")),
    }
}

/// Names the place where a record leaves the shape. The decoder's own message is dropped: it may
/// quote a value.
fn shape_rejection(raw: &RawValue) -> Rejection {
    let mut json = serde_json::Deserializer::from_str(raw.get());
    let path = match serde_path_to_error::deserialize::<_, RawRecord<'_>>(&mut json) {
        Err(error) => error.path().to_string(),
        Ok(_) => String::new(),
    };
    let path = if path.is_empty() || path == "." { "(record)".to_owned() } else { path };
    Rejection::new(path, "is not as in a DynamoDB stream record")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> StreamRecord {
        StreamRecord::decode(&RawValue::from_string(json.to_owned()).unwrap())
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
