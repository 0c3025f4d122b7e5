//! Stream records, decoded one by one, so that a malformed one takes no other down.

use std::borrow::Cow;

use crate::cursor::{Cursor, Malformed};
use crate::entry::{check_metadata_size, check_value_size};
use crate::limits::check_key;
use crate::record::image::ImageReader;
use crate::record::index_settings::readable_shop_id;
use crate::record::{
    Image, IndexRef, IndexSettings, Item, ItemKey, ItemKind, QueryConfig, QueryConfigRef, Rejection,
};

/// The event source that stream records name.
pub const EVENT_SOURCE: &str = "aws:dynamodb";

/// A stream record and what it asks for.
#[derive(Debug)]
pub struct StreamRecord {
    /// Where the record stands in its shard.
    pub sequence_number: Option<String>,
    /// Whether the record names another event source than [`EVENT_SOURCE`].
    pub foreign: bool,
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

/// The parts of a record, as they are found in its JSON.
#[derive(Default)]
struct RawRecord<'a> {
    event_name: Option<Cow<'a, str>>,
    event_source: Option<Cow<'a, str>>,
    dynamodb: Option<RawChange<'a>>,
}

#[derive(Default)]
struct RawChange<'a> {
    key: Option<ItemKey>,
    new_image: Option<Image<'a>>,
    old_image: Option<Image<'a>>,
    sequence_number: Option<String>,
    created_at: Option<f64>,
}

/// Where a record leaves the shape of a stream record.
struct Misshapen {
    path: &'static str,
}

impl From<Malformed> for Misshapen {
    fn from(Malformed: Malformed) -> Self {
        Self { path: "(record)" }
    }
}

/// Names the place of what is malformed.
fn at<T>(path: &'static str, taken: Result<T, Malformed>) -> Result<T, Misshapen> {
    taken.map_err(|Malformed| Misshapen { path })
}

/// Takes a value that may be null.
fn nullable<'a, T>(
    cursor: &mut Cursor<'a>,
    take: impl FnOnce(&mut Cursor<'a>) -> Result<T, Malformed>,
) -> Result<Option<T>, Malformed> {
    if cursor.peek() == Some(b'n') {
        return cursor.skip().map(|_| None);
    }
    take(cursor).map(Some)
}

fn is_foreign(event_source: Option<&str>) -> bool {
    event_source.is_some_and(|source| source != EVENT_SOURCE)
}

fn text<'a>(cursor: &mut Cursor<'a>) -> Result<Cow<'a, str>, Malformed> {
    cursor.string()?.decoded()
}

fn owned_text(cursor: &mut Cursor<'_>) -> Result<String, Malformed> {
    text(cursor).map(Cow::into_owned)
}

fn number(cursor: &mut Cursor<'_>) -> Result<f64, Malformed> {
    serde_json::from_str(cursor.skip()?).map_err(|_| Malformed)
}

/// Fills a slot that must be empty: which of two would count?
fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Malformed> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(Malformed),
    }
}

impl<'a> RawRecord<'a> {
    fn read(cursor: &mut Cursor<'a>, images: &mut ImageReader<'a>) -> Result<Self, Misshapen> {
        let mut record = Self::default();
        let mut event_source = None;
        cursor.object(|cursor, name| match &*name.decoded()? {
            "eventName" => at("eventName", text(cursor))
                .and_then(|name| at("eventName", once(&mut record.event_name, name))),
            "eventSource" => at("eventSource", nullable(cursor, text))
                .and_then(|source| at("eventSource", once(&mut event_source, source))),
            "dynamodb" => {
                let change = RawChange::read(cursor, images)?;
                at("dynamodb", once(&mut record.dynamodb, change))
            }
            _ => cursor.skip().map(drop).map_err(Misshapen::from),
        })?;
        record.event_source = event_source.flatten();
        Ok(record)
    }
}

impl<'a> RawChange<'a> {
    fn read(cursor: &mut Cursor<'a>, images: &mut ImageReader<'a>) -> Result<Self, Misshapen> {
        if cursor.peek() != Some(b'{') {
            return Err(Misshapen { path: "dynamodb" });
        }
        let (mut key, mut new_image, mut old_image) = (None, None, None);
        let (mut sequence_number, mut created_at) = (None, None);
        cursor.object(|cursor, name| match &*name.decoded()? {
            "Keys" => {
                at("dynamodb.Keys", ItemKey::read(cursor).and_then(|keys| once(&mut key, keys)))
            }
            "NewImage" => at("dynamodb.NewImage", {
                nullable(cursor, |cursor| images.read(cursor))
                    .and_then(|image| once(&mut new_image, image))
            }),
            "OldImage" => at("dynamodb.OldImage", {
                nullable(cursor, |cursor| images.read(cursor))
                    .and_then(|image| once(&mut old_image, image))
            }),
            "SequenceNumber" => at("dynamodb.SequenceNumber", {
                nullable(cursor, owned_text).and_then(|text| once(&mut sequence_number, text))
            }),
            "ApproximateCreationDateTime" => at("dynamodb.ApproximateCreationDateTime", {
                nullable(cursor, number).and_then(|number| once(&mut created_at, number))
            }),
            _ => cursor.skip().map(drop).map_err(Misshapen::from),
        })?;
        Ok(Self {
            key,
            new_image: new_image.flatten(),
            old_image: old_image.flatten(),
            sequence_number: sequence_number.flatten(),
            created_at: created_at.flatten(),
        })
    }
}

impl StreamRecord {
    /// Decodes one record of an event.
    pub fn decode(json: &str) -> Self {
        let mut cursor = Cursor::new(json);
        let record = Self::read(&mut cursor, &mut ImageReader::default())
            .and_then(|record| cursor.end().map(|()| record));
        record.unwrap_or_else(|Malformed| Self::malformed(json, Misshapen::from(Malformed)))
    }

    /// Takes one record; whatever value stands there gives one.
    pub fn read<'a>(
        cursor: &mut Cursor<'a>,
        images: &mut ImageReader<'a>,
    ) -> Result<Self, Malformed> {
        let before = cursor.clone();
        let record = RawRecord::read(cursor, images);
        match record.and_then(|record| Self::interpret(record, images)) {
            Ok(record) => Ok(record),
            Err(misshapen) => {
                *cursor = before;
                Ok(Self::malformed(cursor.skip()?, misshapen))
            }
        }
    }

    fn interpret<'a>(
        record: RawRecord<'a>,
        images: &mut ImageReader<'a>,
    ) -> Result<Self, Misshapen> {
        let RawRecord { event_name, event_source, dynamodb } = record;
        let RawChange { key, new_image, old_image, sequence_number, created_at } =
            dynamodb.ok_or(Misshapen { path: "dynamodb" })?;
        let key = key.ok_or(Misshapen { path: "dynamodb.Keys" })?;
        let event_name = event_name.ok_or(Misshapen { path: "eventName" })?;
        let content = match key.kind() {
            ItemKind::Skipped => Content::Skipped,
            ItemKind::IndexSettings(index) => {
                let shop_ids =
                    [&old_image, &new_image].into_iter().flatten().filter_map(readable_shop_id);
                Content::Settings(SettingsRecord {
                    shop_ids: shop_ids.collect(),
                    has_old_image: old_image.is_some(),
                    change: change(&event_name, new_image.as_ref(), |image| {
                        decode_settings(&index, image)
                    }),
                    index,
                })
            }
            ItemKind::QueryConfig(query_config) => Content::QueryConfig(QueryConfigRecord {
                change: change(&event_name, new_image.as_ref(), |image| {
                    decode_query_config(&query_config, image)
                }),
                query_config,
            }),
        };
        [old_image, new_image].into_iter().flatten().for_each(|image| images.done(image));
        let foreign = is_foreign(event_source.as_deref());
        Ok(Self { sequence_number, foreign, created_at, content })
    }

    /// A record that isn't of a stream record's shape: what can be read of it says whose it is.
    fn malformed(json: &str, Misshapen { path }: Misshapen) -> Self {
        let rejection = Rejection::new(path, "is not as in a DynamoDB stream record");
        let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
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
            foreign: is_foreign(text("/eventSource")),
            created_at: None,
            content,
        }
    }
}

/// Decodes an index-settings item with all that KV demands of it.
pub fn decode_settings(index: &IndexRef, image: &Image<'_>) -> Result<IndexSettings, Rejection> {
    let settings = IndexSettings::decode(index, image)?;
    check_value_size(settings.bytes_without_key())?;
    check_metadata_size(index)?;
    Ok(settings)
}

/// Decodes an index-settings item of the table.
pub fn decode_settings_of(index: &IndexRef, item: &Item) -> Result<IndexSettings, Rejection> {
    decode_settings(index, &item.image()?)
}

/// Decodes a query-config item with all that KV demands of it.
pub fn decode_query_config(
    query_config: &QueryConfigRef,
    image: &Image<'_>,
) -> Result<QueryConfig, Rejection> {
    check_key(&query_config.kv_key()).map_err(|reason| Rejection::new("index_name", reason))?;
    check_metadata_size(&query_config.index)?;
    let decoded = QueryConfig::decode(query_config, image)?;
    check_value_size(decoded.value.len())?;
    Ok(decoded)
}

fn change<T>(
    event_name: &str,
    new_image: Option<&Image<'_>>,
    decode: impl FnOnce(&Image<'_>) -> Result<T, Rejection>,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> StreamRecord {
        StreamRecord::decode(json)
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
