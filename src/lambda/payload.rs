//! What an invocation asks for: a closed set, parsed whole before anything is done.

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::export::explain::Explain;
use crate::export::re_export::ReExport;
use crate::export::reconcile::{Progress, Raised, Reconcile};
use crate::index::IndexRef;
use crate::item::StreamRecord;
use crate::json::{Duplicate, RawObject, from_object};
use crate::kv::check_key;

#[derive(Debug)]
pub enum Payload {
    Stream(Vec<StreamRecord>),
    ReExport(ReExport),
    Reconcile(Box<Reconcile>),
    Explain(Explain),
}

/// A payload that is none of those the function takes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}. Payloads taken: {{\"Records\":[…]}} of a DynamoDB stream; {{\"system_account_id\":\"…\",\"index_name\":\"…\",\"include_query_configs\":true|false (optional)}}; {{\"reconcile\":{{\"apply\":true|false (optional),\"preview\":true|false (optional),\"system_account_id\":\"…\" (optional),\"continue\":\"…\" (optional),\"delete_up_to\":n (optional),\"rewrite_up_to\":n (optional)}}}}; {{\"explain\":{{\"system_account_id\":\"…\",\"index_name\":\"…\"}}}}; {{\"explain\":{{\"key\":\"…\"}}}}"
)]
pub struct InvalidPayload(pub String);

/// A stream event, which has nothing beside its records.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StreamEvent {
    #[serde(rename = "Records")]
    records: Vec<StreamRecord>,
}

impl Payload {
    pub fn parse(json: &str) -> Result<Self, InvalidPayload> {
        // One pass reads an event whose records all have the right shape, as nearly every one is.
        if let Ok(event) = from_object::<StreamEvent>(json) {
            return Ok(Self::Stream(event.records));
        }
        let mut fields: Fields<'_> = serde_json::from_str(json)
            .map_err(|_| invalid("the payload is not a JSON object of distinct fields"))?;
        let records: Option<Vec<&RawValue>> = fields.take("Records", "a list of stream records")?;
        if let Some(records) = records {
            fields.end("beside Records")?;
            // Each by itself, so that a malformed one takes no other down.
            return Ok(Self::Stream(records.into_iter().map(StreamRecord::read).collect()));
        }
        if let Some(request) = fields.take("reconcile", "an object")? {
            fields.end("beside reconcile")?;
            return reconcile(request).map(Box::new).map(Self::Reconcile);
        }
        if let Some(question) = fields.take("explain", "an object")? {
            fields.end("beside explain")?;
            return explain(question).map(Self::Explain);
        }
        re_export(fields).map(Self::ReExport)
    }
}

fn reconcile(mut fields: Fields<'_>) -> Result<Reconcile, InvalidPayload> {
    let mut request = Reconcile {
        apply: fields.flag("apply")?,
        preview: fields.flag("preview")?,
        system_account_id: fields.text("system_account_id")?,
        raised: Raised {
            deletes: fields.number("delete_up_to")?,
            rewrites: fields.number("rewrite_up_to")?,
        },
        progress: None,
    };
    let progress = fields.text("continue")?;
    fields.end("in reconcile")?;
    if request.system_account_id.as_deref() == Some("") {
        return Err(invalid("system_account_id must not be empty"));
    }
    if request.apply && request.preview {
        return Err(invalid("preview is an audit: not with apply"));
    }
    if let Some(text) = progress {
        let progress = Progress::parse(&text).filter(|progress| progress.belongs_to(&request));
        request.progress = Some(progress.ok_or_else(|| {
            invalid("continue must be that of the run before, whole, with the same apply, preview and system_account_id")
        })?);
    }
    Ok(request)
}

fn explain(mut fields: Fields<'_>) -> Result<Explain, InvalidPayload> {
    let key = fields.text("key")?;
    let names = (fields.text("system_account_id")?, fields.text("index_name")?);
    fields.end("in explain")?;
    match (key, names) {
        (None, (Some(account), Some(name))) => index(&account, &name).map(Explain::Index),
        (Some(key), (None, None)) if check_key(&key).is_ok() => Ok(Explain::Key(key)),
        (Some(_), (None, None)) => {
            Err(invalid("key must be one that KV can hold: 1 to 512 bytes, and not . or .."))
        }
        _ => Err(invalid("explain takes either system_account_id and index_name, or key")),
    }
}

fn re_export(mut fields: Fields<'_>) -> Result<ReExport, InvalidPayload> {
    let names = (fields.text("system_account_id")?, fields.text("index_name")?);
    let include_query_configs = fields.flag("include_query_configs")?;
    fields.end("in the payload")?;
    let (Some(account), Some(name)) = names else {
        return Err(invalid(
            "the payload is neither a stream event nor names system_account_id and index_name",
        ));
    };
    Ok(ReExport { index: index(&account, &name)?, include_query_configs })
}

fn index(account: &str, name: &str) -> Result<IndexRef, InvalidPayload> {
    IndexRef::parse(account, name).ok_or_else(|| {
        invalid("system_account_id and index_name must not be empty, and index_name holds no '#' and is not DEFAULT_CONFIG")
    })
}

fn invalid(reason: &str) -> InvalidPayload {
    InvalidPayload(reason.to_owned())
}

/// An object's fields that are still to be read. No message of serde's is used: it may quote a value.
#[derive(Deserialize)]
#[serde(transparent)]
struct Fields<'a>(#[serde(borrow)] RawObject<'a>);

impl<'a> Fields<'a> {
    fn take<T: Deserialize<'a>>(
        &mut self,
        name: &str,
        expected: &str,
    ) -> Result<Option<T>, InvalidPayload> {
        let json = self.0.take(name).map_err(|Duplicate| {
            InvalidPayload(format!("the payload is not a JSON object of distinct fields: {name}"))
        })?;
        json.map(|json| serde_json::from_str(json.get()))
            .transpose()
            .map_err(|_| InvalidPayload(format!("{name} must be {expected}")))
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, InvalidPayload> {
        self.take(name, "a string")
    }

    fn flag(&mut self, name: &str) -> Result<bool, InvalidPayload> {
        Ok(self.take(name, "true or false")?.unwrap_or(false))
    }

    fn number(&mut self, name: &str) -> Result<Option<u64>, InvalidPayload> {
        self.take(name, "a whole number, zero or more")
    }

    /// Refuses any field that was not read.
    fn end(self, place: &str) -> Result<(), InvalidPayload> {
        match self.0.into_fields().next() {
            None => Ok(()),
            // A field's name is shortened: an unknown payload may hold anything.
            Some((name, _)) => {
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
            Ok(Payload::Reconcile(reconcile)) => *reconcile,
            other => panic!("{other:?}"),
        };
        assert_eq!(reconcile(r#"{"reconcile":{}}"#), Reconcile::default());
        assert_eq!(
            reconcile(r#"{"reconcile":{"apply":true,"system_account_id":"a"}}"#),
            Reconcile { apply: true, system_account_id: Some("a".into()), ..Reconcile::default() }
        );
        assert_eq!(
            reconcile(r#"{"reconcile":{"delete_up_to":0,"rewrite_up_to":18446744073709551615}}"#)
                .raised,
            Raised { deletes: Some(0), rewrites: Some(u64::MAX) }
        );
    }

    #[test]
    fn an_explain_is_about_an_index_or_a_key() {
        let explain = |json: &str| match Payload::parse(json) {
            Ok(Payload::Explain(explain)) => explain,
            other => panic!("{other:?}"),
        };
        assert_eq!(
            explain(r#"{"explain":{"index_name":"i","system_account_id":"a"}}"#),
            Explain::Index(IndexRef::parse("a", "i").unwrap())
        );
        for key in ["example.myshopify.com", "a-i", &"k".repeat(512)] {
            let json = serde_json::json!({"explain": {"key": key}}).to_string();
            assert_eq!(explain(&json), Explain::Key(key.to_owned()));
        }
        for refused in ["", ".", "..", &"k".repeat(513), &"ü".repeat(257)] {
            let json = serde_json::json!({"explain": {"key": refused}}).to_string();
            let error = Payload::parse(&json).unwrap_err().to_string();
            assert!(error.contains("1 to 512 bytes") && !error.contains("kkk"), "{error}");
        }
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
            (r#"{"reconcile":{"delete_up_to":-1}}"#, "delete_up_to must be a whole number"),
            (r#"{"reconcile":{"delete_up_to":1.5}}"#, "delete_up_to must be a whole number"),
            (r#"{"reconcile":{"rewrite_up_to":"7"}}"#, "rewrite_up_to must be a whole number"),
            (r#"{"reconcile":{"rewrite_up_to":null}}"#, "rewrite_up_to must be a whole number"),
            (r#"{"reconcile":{"account":"a"}}"#, "unknown field \"account\" in reconcile"),
            (r#"{"reconcile":{"system_account_id":""}}"#, "must not be empty"),
            (r#"{"reconcile":{},"apply":true}"#, "unknown field \"apply\" beside reconcile"),
            (r#"{"reconcile":{},"explain":{}}"#, "unknown field \"explain\" beside reconcile"),
            (r#"{"explain":"a-i"}"#, "explain must be an object"),
            (r#"{"explain":["a","i"]}"#, "explain must be an object"),
            (r#"{"explain":null}"#, "explain must be an object"),
            (r#"{"explain":{}}"#, "explain takes either"),
            (r#"{"explain":{"system_account_id":"a"}}"#, "explain takes either"),
            (r#"{"explain":{"index_name":"i"}}"#, "explain takes either"),
            (r#"{"explain":{"key":"k","index_name":"i"}}"#, "explain takes either"),
            (
                r#"{"explain":{"key":"k","system_account_id":"a","index_name":"i"}}"#,
                "explain takes either",
            ),
            (r#"{"explain":{"key":7}}"#, "key must be a string"),
            (r#"{"explain":{"key":null}}"#, "key must be a string"),
            (r#"{"explain":{"key":"k","key":"k"}}"#, "distinct fields"),
            (r#"{"explain":{"key":"k","apply":true}}"#, "unknown field \"apply\" in explain"),
            (r#"{"explain":{"key":"k"},"system_account_id":"a"}"#, "beside explain"),
            (r#"{"explain":{"system_account_id":"a","index_name":"a#b"}}"#, "holds no '#'"),
            (r#"{"explain":{"system_account_id":"","index_name":"i"}}"#, "must not be empty"),
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
