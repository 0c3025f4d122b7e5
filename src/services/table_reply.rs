//! DynamoDB's answers, taken before the AWS SDK decodes them: it makes a map of owned strings of
//! each item, which costs several times what the exporter needs of it.

use std::sync::{Arc, Mutex, PoisonError};

use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::interceptors::Intercept;
use aws_smithy_runtime_api::client::interceptors::context::BeforeDeserializationInterceptorContextMut;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::config_bag::ConfigBag;

use crate::cursor::{Cursor, Malformed};
use crate::record::{Item, ItemKey};

/// The fields of the four operations' answers.
const FIELDS: [&str; 8] = [
    "Item",
    "Items",
    "Responses",
    "LastEvaluatedKey",
    "UnprocessedKeys",
    "Count",
    "ScannedCount",
    "ConsumedCapacity",
];

/// What the answer to a `GetItem`, `BatchGetItem`, `Query` or `Scan` holds.
#[derive(Debug, Default, PartialEq)]
pub struct TableReply {
    /// The items, by key, in the order of the answer; `None` where it has no place for them, as that
    /// to a `GetItem` of what isn't there.
    pub items: Option<Vec<(ItemKey, Item)>>,
    /// Where to go on; `None` at the end.
    pub last_evaluated: Option<ItemKey>,
    /// Keys that have to be asked for again.
    pub unprocessed: Vec<ItemKey>,
}

impl TableReply {
    /// Reads an answer of whichever of the four operations; of one table.
    ///
    /// What has fields, but none of DynamoDB's, is refused: taken for an answer without items, it
    /// would say that they are gone.
    pub fn parse(json: &str) -> Result<Self, Malformed> {
        let mut reply = Self::default();
        let (mut empty, mut known) = (true, false);
        let mut cursor = Cursor::new(json);
        cursor.object(|cursor, name| {
            let name = name.decoded()?;
            empty = false;
            known |= FIELDS.contains(&&*name);
            if cursor.peek() == Some(b'n') {
                return cursor.skip().map(drop);
            }
            match &*name {
                "Item" => {
                    reply.items.get_or_insert_default().push(Item::read(cursor)?);
                    Ok(())
                }
                "Items" => reply.take_items(cursor),
                "Responses" => {
                    reply.items.get_or_insert_default();
                    cursor.object(|cursor, _table| reply.take_items(cursor))
                }
                "LastEvaluatedKey" => {
                    reply.last_evaluated = Some(ItemKey::read(cursor)?);
                    Ok(())
                }
                "UnprocessedKeys" => cursor.object(|cursor, _table| reply.take_unprocessed(cursor)),
                _ => cursor.skip().map(drop),
            }
        })?;
        cursor.end()?;
        if empty || known { Ok(reply) } else { Err(Malformed) }
    }

    fn take_items(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        let items = self.items.get_or_insert_default();
        cursor.array(|cursor| {
            items.push(Item::read(cursor)?);
            Ok(())
        })
    }

    fn take_unprocessed(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Malformed> {
        cursor.object(|cursor, name| {
            if name.decoded()? != "Keys" {
                return cursor.skip().map(drop);
            }
            cursor.array(|cursor| {
                self.unprocessed.push(ItemKey::read(cursor)?);
                Ok(())
            })
        })
    }
}

/// Takes the reply out of one call's answer, and leaves an empty one to the SDK.
///
/// Answers that are no success stay as they are, and so do those that can't be read.
#[derive(Debug, Clone, Default)]
pub struct TakeReply(Arc<Mutex<Option<TableReply>>>);

impl TakeReply {
    /// The reply; `None` if the answer could not be read.
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
    fn every_operations_answer_is_read() {
        let item = || Item::parse(ITEM).unwrap();
        let parsed = |json: String| TableReply::parse(&json).unwrap();
        assert_eq!(parsed(format!(r#"{{"Item":{ITEM}}}"#)).items, Some(vec![item()]));
        assert_eq!(parsed("{}".into()), TableReply::default());
        let page = parsed(format!(
            r#"{{"Count":2,"Items":[{ITEM},{ITEM}],"ScannedCount":2,"LastEvaluatedKey":{{"sk":{{"S":"z"}},"pk":{{"S":"a"}}}}}}"#
        ));
        let items = Some(vec![item(), item()]);
        assert_eq!((page.items, page.last_evaluated), (items, Some(key("z"))));
        let batch = parsed(format!(
            r#"{{"Responses":{{"table":[{ITEM}]}},"UnprocessedKeys":{{"table":{{"ConsistentRead":true,"Keys":[{{"pk":{{"S":"a"}},"sk":{{"S":"x"}}}}]}}}}}}"#
        ));
        assert_eq!((batch.items, batch.unprocessed), (Some(vec![item()]), vec![key("x")]));
        for none in [r#"{"Items":[],"Count":0}"#, r#"{"Responses":{}}"#, r#"{"New":1,"Items":[]}"#]
        {
            assert_eq!(parsed(none.into()).items, Some(vec![]), "{none}");
        }
        for none in [r#"{"ConsumedCapacity":{"Units":1}}"#, r#"{"Item":null}"#, r#"{"Items":null}"#]
        {
            assert_eq!(parsed(none.into()), TableReply::default(), "{none}");
        }
    }

    #[test]
    fn what_is_not_an_answer_is_refused_whole() {
        for bad in [
            "",
            "<html>",
            "[]",
            r#"{"status":"ok"}"#,
            r#"{"Items":[{}]}"#,
            r#"{"Items":[]"#,
            r#"{"Items":7}"#,
        ] {
            assert_eq!(TableReply::parse(bad), Err(Malformed), "{bad}");
        }
    }
}
