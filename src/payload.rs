//! What an invocation asks for: a closed set, parsed whole before anything is done. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::cursor::{Cursor, Malformed};
use crate::re_export::ReExport;
use crate::record::IndexRef;
use crate::record::image::ImageReader;
use crate::stream::StreamRecord;

/// An invocation's payload.
#[derive(Debug)]
pub enum Payload {
    /// A batch of the table's stream.
    Stream(Vec<StreamRecord>),
    /// A re-export by hand.
    ReExport(ReExport),
    /// Reconcile.
    Reconcile(Reconcile),
}

/// What a reconcile asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reconcile {
    /// Whether to repair what differs.
    pub apply: bool,
    /// The one account to look at; all of them where absent.
    pub system_account_id: Option<String>,
}

/// A payload that is none of those the function takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}. Payloads taken: {{\"Records\":[…]}} of a DynamoDB stream; {{\"system_account_id\":\"…\",\"index_name\":\"…\",\"include_query_configs\":true|false (optional)}}; {{\"reconcile\":{{\"apply\":true|false (optional),\"system_account_id\":\"…\" (optional)}}}}"
)]
pub struct InvalidPayload(pub String);

impl Payload {
    /// Parses a payload.
    pub fn parse(json: &str) -> Result<Self, InvalidPayload> {
        if let Ok(records) = stream_records(json) {
            return Ok(Self::Stream(records));
        }
        let mut fields = Fields::parse(json)?;
        if fields.0.contains_key("Records") {
            return Err(fields.stream_problem());
        }
        if let Some(reconcile) = fields.0.remove("reconcile") {
            fields.end("beside reconcile")?;
            return Ok(Self::Reconcile(Reconcile::parse(reconcile)?));
        }
        let account = fields.text("system_account_id")?;
        let name = fields.text("index_name")?;
        let include_query_configs = fields.flag("include_query_configs")?;
        fields.end("in the payload")?;
        let (Some(account), Some(name)) = (account, name) else {
            return Err(InvalidPayload(
                "the payload is neither a stream event nor names system_account_id and index_name"
                    .to_owned(),
            ));
        };
        let index = IndexRef::parse(&account, &name).ok_or_else(|| {
            InvalidPayload(
                "system_account_id and index_name must not be empty, and index_name holds no '#' and is not DEFAULT_CONFIG"
                    .to_owned(),
            )
        })?;
        Ok(Self::ReExport(ReExport { index, include_query_configs }))
    }
}

/// The records of a stream event, which has nothing beside them.
fn stream_records(json: &str) -> Result<Vec<StreamRecord>, Malformed> {
    let mut cursor = Cursor::new(json);
    let mut records = None;
    cursor.object(|cursor, name| {
        if name.decoded()? != "Records" || records.is_some() {
            return Err(Malformed);
        }
        let list = records.insert(Vec::new());
        let mut images = ImageReader::default();
        cursor.array(|cursor| {
            list.push(StreamRecord::read(cursor, &mut images)?);
            Ok(())
        })
    })?;
    cursor.end()?;
    records.ok_or(Malformed)
}

impl Reconcile {
    fn parse(value: Value) -> Result<Self, InvalidPayload> {
        let Value::Object(object) = value else {
            return Err(InvalidPayload("reconcile must be an object".to_owned()));
        };
        let mut fields = Fields(object.into_iter().collect());
        let apply = fields.flag("apply")?;
        let system_account_id = fields.text("system_account_id")?;
        fields.end("in reconcile")?;
        if system_account_id.as_deref() == Some("") {
            return Err(InvalidPayload("system_account_id must not be empty".to_owned()));
        }
        Ok(Self { apply, system_account_id })
    }
}

/// The fields of an object, taken one by one; what is left over is refused.
struct Fields(BTreeMap<String, Value>);

impl Fields {
    fn parse(json: &str) -> Result<Self, InvalidPayload> {
        // Twice the same field is an error, not a choice; the parser's message may quote a value.
        struct Unique(BTreeMap<String, Value>);
        impl<'de> Deserialize<'de> for Unique {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl<'de> serde::de::Visitor<'de> for Visitor {
                    type Value = Unique;
                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }
                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<Unique, A::Error> {
                        let mut fields = BTreeMap::new();
                        while let Some((name, value)) = map.next_entry::<String, Value>()? {
                            if fields.insert(name, value).is_some() {
                                return Err(serde::de::Error::custom("a field stands twice"));
                            }
                        }
                        Ok(Unique(fields))
                    }
                }
                deserializer.deserialize_map(Visitor)
            }
        }
        serde_json::from_str(json).map(|Unique(fields)| Self(fields)).map_err(|_| {
            InvalidPayload("the payload is not a JSON object of distinct fields".to_owned())
        })
    }

    fn stream_problem(mut self) -> InvalidPayload {
        let is_list = matches!(self.0.remove("Records"), Some(Value::Array(_)));
        if !is_list {
            return InvalidPayload("Records must be a list of stream records".to_owned());
        }
        match self.end("beside Records") {
            Err(error) => error,
            Ok(()) => InvalidPayload("Records can't be read as a list of records".to_owned()),
        }
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, InvalidPayload> {
        match self.0.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(InvalidPayload(format!("{name} must be a string"))),
        }
    }

    fn flag(&mut self, name: &str) -> Result<bool, InvalidPayload> {
        match self.0.remove(name) {
            None => Ok(false),
            Some(Value::Bool(value)) => Ok(value),
            Some(_) => Err(InvalidPayload(format!("{name} must be true or false"))),
        }
    }

    fn end(&self, place: &str) -> Result<(), InvalidPayload> {
        match self.0.keys().next() {
            None => Ok(()),
            // A field's name is shortened: an unknown payload may hold anything.
            Some(name) => {
                let name: String = name.chars().take(40).collect();
                Err(InvalidPayload(format!("unknown field {name:?} {place}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_payloads_that_are_taken() {
        assert!(
            matches!(Payload::parse(r#"{"Records":[]}"#), Ok(Payload::Stream(r)) if r.is_empty())
        );
        assert!(
            matches!(Payload::parse(r#"{"Records":[{},7]}"#), Ok(Payload::Stream(r)) if r.len() == 2)
        );
        let re_export = |json: &str| match Payload::parse(json) {
            Ok(Payload::ReExport(re_export)) => re_export,
            other => panic!("{other:?}"),
        };
        let plain = re_export(r#"{"system_account_id":"a","index_name":"i"}"#);
        assert_eq!(plain.index.to_string(), "a/i");
        assert!(!plain.include_query_configs);
        assert!(
            re_export(r#"{"index_name":"i","include_query_configs":true,"system_account_id":"a"}"#)
                .include_query_configs
        );
        let reconcile = |json: &str| match Payload::parse(json) {
            Ok(Payload::Reconcile(reconcile)) => reconcile,
            other => panic!("{other:?}"),
        };
        assert_eq!(reconcile(r#"{"reconcile":{}}"#), Reconcile::default());
        assert_eq!(
            reconcile(r#"{"reconcile":{"apply":true,"system_account_id":"a"}}"#),
            Reconcile { apply: true, system_account_id: Some("a".into()) }
        );
    }

    #[test]
    fn everything_else_is_refused_and_the_error_says_what_is_wrong_and_what_is_taken() {
        let rows = [
            ("", "not a JSON object"),
            ("null", "not a JSON object"),
            ("[]", "not a JSON object"),
            ("{}", "neither a stream event nor"),
            (r#"{"foo":1}"#, "unknown field \"foo\""),
            (r#"{"Records":{}}"#, "Records must be a list"),
            (r#"{"Records":null}"#, "Records must be a list"),
            (r#"{"Records":[],"extra":1}"#, "unknown field \"extra\" beside Records"),
            (r#"{"Records":[],"Records":[]}"#, "distinct fields"),
            (r#"{"system_account_id":"a"}"#, "neither a stream event nor"),
            (r#"{"system_account_id":1,"index_name":"i"}"#, "system_account_id must be a string"),
            (r#"{"system_account_id":"a","index_name":null}"#, "index_name must be a string"),
            (r#"{"system_account_id":"","index_name":"i"}"#, "must not be empty"),
            (r#"{"system_account_id":"a","index_name":""}"#, "must not be empty"),
            (r#"{"system_account_id":"a","index_name":"a#b"}"#, "holds no '#'"),
            (r#"{"system_account_id":"a","index_name":"DEFAULT_CONFIG"}"#, "DEFAULT_CONFIG"),
            (
                r#"{"system_account_id":"a","index_name":"i","include_query_configs":"true"}"#,
                "include_query_configs must be true or false",
            ),
            (r#"{"system_account_id":"a","index_name":"i","dry":1}"#, "unknown field \"dry\""),
            (r#"{"reconcile":true}"#, "reconcile must be an object"),
            (r#"{"reconcile":{"apply":1}}"#, "apply must be true or false"),
            (r#"{"reconcile":{"account":"a"}}"#, "unknown field \"account\" in reconcile"),
            (r#"{"reconcile":{"system_account_id":""}}"#, "must not be empty"),
            (r#"{"reconcile":{},"apply":true}"#, "unknown field \"apply\" beside reconcile"),
        ];
        for (json, says) in rows {
            let error = Payload::parse(json).unwrap_err().to_string();
            assert!(error.contains(says), "{json}: {error}");
            assert!(error.contains("Payloads taken: {\"Records\":[…]}"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".*") {
            let _ = Payload::parse(&text);
        }

        #[test]
        fn any_nesting_is_answered(depth in 0..5_000_usize) {
            let _ = Payload::parse(&format!("{{\"reconcile\":{}", "[".repeat(depth)));
            let json = format!("{{\"Records\":[{}{}]}}", "[".repeat(depth), "]".repeat(depth));
            prop_assert!(Payload::parse(&json).is_ok());
        }
    }
}
