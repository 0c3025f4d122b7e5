//! DynamoDB's responses. They are parsed here because the AWS SDK makes a map of owned strings for each item,
//! which costs several times what the exporter needs.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::Error;
use serde_json::value::RawValue;

use crate::item::{Item, ItemKey};
use crate::json::from_object;
use crate::ports::TablePage;

/// The content of a response to a `BatchGetItem`, `Query` or `Scan` of one table.
#[derive(Debug, PartialEq)]
pub struct TableReply {
    pub page: TablePage,
    /// Keys to ask for again.
    pub unprocessed: Vec<ItemKey>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Body {
    items: Option<Vec<Box<RawValue>>>,
    responses: Option<BTreeMap<String, Vec<Box<RawValue>>>>,
    last_evaluated_key: Option<ItemKey>,
    unprocessed_keys: Option<BTreeMap<String, UnprocessedKeys>>,
    count: Option<usize>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UnprocessedKeys {
    #[serde(default)]
    keys: Vec<ItemKey>,
}

impl TableReply {
    /// Parses a response. Rejects JSON without a list of items, and a list whose length is not its count, because
    /// items that are left out would look deleted.
    pub fn parse(json: &[u8]) -> serde_json::Result<Self> {
        let body: Body = from_object(json)?;
        let responses = body.responses.map(|tables| tables.into_values().flatten().collect());
        let items: Option<Vec<_>> = body.items.or(responses);
        let items = items.filter(|items| body.count.is_none_or(|count| items.len() == count));
        let items = items.ok_or_else(|| Error::custom("not a response of DynamoDB's"))?;
        let items = items.into_iter().map(Item::parse).collect::<Result<_, _>>()?;
        let unprocessed = body.unprocessed_keys.into_iter().flat_map(BTreeMap::into_values);
        Ok(Self {
            page: TablePage { items, last_read: body.last_evaluated_key },
            unprocessed: unprocessed.flat_map(|table| table.keys).collect(),
        })
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
        let parsed = |json: String| TableReply::parse(json.as_bytes()).unwrap();
        let page = parsed(format!(
            r#"{{"Count":2,"Items":[{ITEM},{ITEM}],"ScannedCount":2,"LastEvaluatedKey":{{"sk":{{"S":"z"}},"pk":{{"S":"a"}}}}}}"#
        ));
        let items = vec![item(), item()];
        assert_eq!((page.page.items, page.page.last_read), (items, Some(key("z"))));
        let batch = parsed(format!(
            r#"{{"Responses":{{"table":[{ITEM}]}},"UnprocessedKeys":{{"table":{{"ConsistentRead":true,"Keys":[{{"pk":{{"S":"a"}},"sk":{{"S":"x"}}}}]}}}}}}"#
        ));
        assert_eq!((batch.page.items, batch.unprocessed), (vec![item()], vec![key("x")]));
        for none in [r#"{"Items":[],"Count":0}"#, r#"{"Responses":{}}"#, r#"{"New":1,"Items":[]}"#]
        {
            assert_eq!(parsed(none.into()).page.items, [], "{none}");
        }
    }

    #[test]
    fn anything_else_is_refused_whole() {
        for bad in [
            "<html>",
            "{}",
            r#"{"ConsumedCapacity":{"Units":1}}"#,
            r#"{"Items":[{}]}"#,
            r#"{"Items":[]"#,
            r#"{"Items":7}"#,
            r#"{"Items":null}"#,
            r#"{"UnprocessedKeys":{}}"#,
            r#"{"Items":[],"Count":1}"#,
            "[null,null,null,null,null,null,null,null]",
        ] {
            assert!(TableReply::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
