//! DynamoDB's responses, taken before the AWS SDK decodes them. The SDK makes a map of owned strings for each
//! item, which costs several times what the exporter needs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;

use crate::item::{Item, ItemKey};
use crate::json::from_object;

/// The content of a response to a `BatchGetItem`, `Query` or `Scan` of one table.
#[derive(Debug, PartialEq)]
pub struct TableReply {
    /// In the order of the response.
    pub items: Vec<(ItemKey, Item)>,
    /// The key that the next page comes after; `None` at the end.
    pub last_evaluated: Option<ItemKey>,
    /// Keys to ask for again.
    pub unprocessed: Vec<ItemKey>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body {
    items: Option<Vec<KeyedItem>>,
    responses: Option<BTreeMap<String, Vec<KeyedItem>>>,
    last_evaluated_key: Option<ItemKey>,
    unprocessed_keys: Option<BTreeMap<String, UnprocessedKeys>>,
    count: Option<usize>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UnprocessedKeys {
    #[serde(default)]
    keys: Vec<ItemKey>,
}

struct KeyedItem(ItemKey, Item);

impl<'de> Deserialize<'de> for KeyedItem {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = Box::<RawValue>::deserialize(deserializer)?;
        Item::parse(json).map(|(key, item)| Self(key, item)).map_err(D::Error::custom)
    }
}

impl TableReply {
    /// Parses a response. Rejects JSON without a list of items, and a list whose length is not its count, because
    /// items that are left out would look deleted.
    pub fn parse(json: &str) -> serde_json::Result<Self> {
        let body: Body = from_object(json)?;
        let responses = body.responses.map(|tables| tables.into_values().flatten().collect());
        let items: Option<Vec<KeyedItem>> = body.items.or(responses);
        let items = items.filter(|items| body.count.is_none_or(|count| items.len() == count));
        let items = items.ok_or_else(|| Error::custom("not a response of DynamoDB's"))?;
        let unprocessed = body.unprocessed_keys.into_iter().flat_map(BTreeMap::into_values);
        Ok(Self {
            items: items.into_iter().map(|KeyedItem(key, item)| (key, item)).collect(),
            last_evaluated: body.last_evaluated_key,
            unprocessed: unprocessed.flat_map(|table| table.keys).collect(),
        })
    }
}

/// Takes the reply out of a call's response, and leaves an empty one to the SDK. A response that is no
/// success, or can't be read, stays as it is.
#[derive(Debug, Clone, Default)]
pub struct TakeReply(Arc<Mutex<Option<TableReply>>>);

impl TakeReply {
    /// Returns the reply, unless the response could not be read.
    pub fn taken(&self) -> Option<TableReply> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Intercept for TakeReply {
    fn name(&self) -> &'static str {
        "TakeReply"
    }

    fn modify_before_deserialization(
        &self,
        context: &mut BeforeDeserializationInterceptorContextMut<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response_mut();
        if !response.status().is_success() {
            return Ok(());
        }
        let json = response.body().bytes().and_then(|body| std::str::from_utf8(body).ok());
        if let Some(reply) = json.and_then(|json| TableReply::parse(json).ok()) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reply);
            *response.body_mut() = SdkBody::from("{}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ITEM: &str = r#"{"pk":{"S":"a"},"boost":{"N":"1"},"sk":{"S":"INDEX#i"}}"#;

    fn key(sk: &str) -> ItemKey {
        ItemKey { pk: "a".into(), sk: sk.into() }
    }

    #[test]
    fn every_operations_response_is_read() {
        let item = || Item::parse(serde_json::from_str(ITEM).unwrap()).unwrap();
        let parsed = |json: String| TableReply::parse(&json).unwrap();
        let page = parsed(format!(
            r#"{{"Count":2,"Items":[{ITEM},{ITEM}],"ScannedCount":2,"LastEvaluatedKey":{{"sk":{{"S":"z"}},"pk":{{"S":"a"}}}}}}"#
        ));
        let items = vec![item(), item()];
        assert_eq!((page.items, page.last_evaluated), (items, Some(key("z"))));
        let batch = parsed(format!(
            r#"{{"Responses":{{"table":[{ITEM}]}},"UnprocessedKeys":{{"table":{{"ConsistentRead":true,"Keys":[{{"pk":{{"S":"a"}},"sk":{{"S":"x"}}}}]}}}}}}"#
        ));
        assert_eq!((batch.items, batch.unprocessed), (vec![item()], vec![key("x")]));
        for none in [r#"{"Items":[],"Count":0}"#, r#"{"Responses":{}}"#, r#"{"New":1,"Items":[]}"#]
        {
            assert_eq!(parsed(none.into()).items, [], "{none}");
        }
    }

    #[test]
    fn anything_else_is_refused_whole() {
        for bad in [
            "",
            "<html>",
            "{}",
            r#"{"ConsumedCapacity":{"Units":1}}"#,
            "[]",
            r#"{"status":"ok"}"#,
            r#"{"Items":[{}]}"#,
            r#"{"Items":[]"#,
            r#"{"Items":7}"#,
            r#"{"Items":null}"#,
            r#"{"UnprocessedKeys":{}}"#,
            r#"{"Items":[],"Count":1}"#,
            "[null,null,null,null,null,null,null,null]",
        ] {
            assert!(TableReply::parse(bad).is_err(), "{bad}");
        }
    }
}
