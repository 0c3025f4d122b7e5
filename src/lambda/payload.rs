//! What an invocation asks for: a closed set, parsed whole before anything is done.

use serde::de::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::export::explain::{Explain, Subject, Tried};
use crate::export::re_export::ReExport;
use crate::export::reconcile::{Progress, Raised, Reconcile};
use crate::index::IndexRef;
use crate::item::{Item, StreamRecord};
use crate::json::from_object;
use crate::kv::check_key;

#[derive(Debug)]
pub enum Payload {
    Stream(Vec<StreamRecord>),
    ReExport(ReExport),
    Reconcile(Box<Reconcile>),
    Explain(Explain),
}

/// A payload that the function does not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0}. Payloads taken: {{\"Records\":[…]}} of a DynamoDB stream; {{\"system_account_id\":\"…\",\"index_name\":\"…\",\"include_query_configs\":true|false (optional)}}; {{\"reconcile\":{{\"apply\":true|false (optional),\"preview\":true|false (optional),\"system_account_id\":\"…\" (optional),\"continue\":\"…\" (optional),\"delete_up_to\":n (optional),\"rewrite_up_to\":n (optional)}}}}; {{\"explain\":{{\"system_account_id\":\"…\",\"index_name\":\"…\",\"values\":true|false (optional)}}}}; {{\"explain\":{{\"key\":\"…\",\"values\":true|false (optional)}}}}; {{\"explain\":{{\"item\":{{…}},\"removed\":true|false (optional),\"values\":true|false (optional)}}}}; {{\"explain\":{{\"system_account_id\":\"…\",\"continue\":\"…\" (optional)}}}}"
)]
pub struct InvalidPayload(pub String);

/// Returns a field that is there, null included: a wrongly typed field is refused, not taken for an absent one.
fn present<'de: 'a, 'a, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<&'a RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

/// Declares an object whose fields are all optional and read one by one; any other field is refused.
macro_rules! object {
    ($name:ident { $($field:ident $(= $key:literal)?),* $(,)? }) => {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $name<'a> {
            $(
                $(#[serde(rename = $key)])?
                #[serde(default, borrow, deserialize_with = "present")]
                $field: Option<&'a RawValue>,
            )*
        }
    };
}

object!(Fields {
    records = "Records",
    reconcile,
    explain,
    system_account_id,
    index_name,
    include_query_configs,
});

object!(ReconcileFields {
    apply,
    preview,
    system_account_id,
    progress = "continue",
    delete_up_to,
    rewrite_up_to,
});

object!(ExplainFields {
    system_account_id,
    index_name,
    key,
    item,
    removed,
    values,
    progress = "continue",
});

impl Payload {
    /// Parses a payload for the exporter of `environment`.
    pub fn parse(json: &str, environment: &str) -> Result<Self, InvalidPayload> {
        let fields: Fields<'_> = object(json, "the payload")?;
        match fields {
            Fields {
                records: Some(records),
                reconcile: None,
                explain: None,
                system_account_id: None,
                index_name: None,
                include_query_configs: None,
            } => {
                let records: Vec<&RawValue> =
                    typed("Records", records, "a list of stream records")?;
                Ok(Self::Stream(records.into_iter().map(StreamRecord::read).collect()))
            }
            Fields {
                records: None,
                reconcile: Some(request),
                explain: None,
                system_account_id: None,
                index_name: None,
                include_query_configs: None,
            } => reconcile(request, environment).map(Box::new).map(Self::Reconcile),
            Fields {
                records: None,
                reconcile: None,
                explain: Some(question),
                system_account_id: None,
                index_name: None,
                include_query_configs: None,
            } => explain(question).map(Self::Explain),
            Fields {
                records: None,
                reconcile: None,
                explain: None,
                system_account_id: Some(account),
                index_name: Some(name),
                include_query_configs,
            } => Ok(Self::ReExport(ReExport {
                index: index(account, name)?,
                include_query_configs: flag("include_query_configs", include_query_configs)?,
            })),
            _ => Err(invalid(
                "the payload has to be one of: Records alone; reconcile alone; explain alone; system_account_id with index_name",
            )),
        }
    }
}

fn reconcile(json: &RawValue, environment: &str) -> Result<Reconcile, InvalidPayload> {
    let fields: ReconcileFields<'_> = object(json.get(), "reconcile")?;
    let number = |name, json: Option<&RawValue>| {
        json.map(|json| typed::<u64>(name, json, "a whole number, zero or more")).transpose()
    };
    let account =
        fields.system_account_id.map(|json| text("system_account_id", json)).transpose()?;
    let mut request = Reconcile {
        apply: flag("apply", fields.apply)?,
        preview: flag("preview", fields.preview)?,
        system_account_id: account,
        raised: Raised {
            deletes: number("delete_up_to", fields.delete_up_to)?,
            rewrites: number("rewrite_up_to", fields.rewrite_up_to)?,
        },
        progress: None,
    };
    if request.system_account_id.as_deref() == Some("") {
        return Err(invalid("system_account_id must not be empty"));
    }
    if request.apply && request.preview {
        return Err(invalid("preview is an audit: not with apply"));
    }
    if let Some(progress) = fields.progress {
        let progress = Progress::parse(&text("continue", progress)?);
        let progress = progress.filter(|progress| progress.belongs_to(&request, environment));
        request.progress = Some(progress.ok_or_else(|| {
            invalid("continue must be that of the run before, whole, of the same environment, with the same apply, preview and system_account_id")
        })?);
    }
    Ok(request)
}

fn explain(json: &RawValue) -> Result<Explain, InvalidPayload> {
    let fields: ExplainFields<'_> = object(json.get(), "explain")?;
    let (removed, values) = (flag("removed", fields.removed)?, flag("values", fields.values)?);
    let is_item = fields.item.is_some();
    let is_account = fields.system_account_id.is_some() && fields.index_name.is_none();
    let subject = match (fields.system_account_id, fields.index_name, fields.key, fields.item) {
        _ if (fields.removed.is_some() && !is_item)
            || (fields.progress.is_some() && !is_account)
            || (fields.values.is_some() && is_account) =>
        {
            return Err(invalid(
                "removed is for an item, continue for an account, and values for all but an account",
            ));
        }
        (Some(account), Some(name), None, None) => Subject::Index(index(account, name)?),
        (Some(account), None, None, None) => {
            let account = text("system_account_id", account)?;
            if account.is_empty() {
                return Err(invalid("system_account_id must not be empty"));
            }
            let after = fields.progress.map(|name| text("continue", name)).transpose()?;
            Subject::Account { account, after }
        }
        (None, None, Some(key), None) => {
            let key = text("key", key)?;
            if check_key(&key).is_err() {
                let reason = "key must be one that KV can hold: 1 to 512 bytes, and not . or ..";
                return Err(invalid(reason));
            }
            Subject::Key(key)
        }
        (None, None, None, Some(item)) => {
            let item = Item::parse(item.to_owned()).ok().filter(|(key, _)| key.fits_the_table());
            let (key, item) = item.ok_or_else(|| {
                invalid("item must be one of the table in DynamoDB JSON, with pk and sk")
            })?;
            Subject::Item(Tried { key, item: Some(item).filter(|_| !removed) })
        }
        _ => {
            return Err(invalid(
                "explain takes one of: system_account_id and index_name; system_account_id alone; key; item",
            ));
        }
    };
    Ok(Explain { subject, values })
}

fn index(account: &RawValue, name: &RawValue) -> Result<IndexRef, InvalidPayload> {
    let (account, name) = (text("system_account_id", account)?, text("index_name", name)?);
    IndexRef::parse(&account, &name).ok_or_else(|| {
        invalid("system_account_id and index_name must not be empty, and index_name holds no '#' and is not DEFAULT_CONFIG")
    })
}

/// How much of serde's message is shown. An unknown payload may hold anything.
const MAX_MESSAGE_CHARACTERS: usize = 100;

/// Reads an object. Serde's error names fields but no value, because none has been read.
fn object<'a, T: serde::Deserialize<'a>>(json: &'a str, name: &str) -> Result<T, InvalidPayload> {
    from_object(json).map_err(|error| {
        let what: String = error.to_string().chars().take(MAX_MESSAGE_CHARACTERS).collect();
        InvalidPayload(format!("{name} is not a JSON object of the fields that are taken: {what}"))
    })
}

fn typed<'a, T: serde::Deserialize<'a>>(
    name: &str,
    json: &'a RawValue,
    expected: &str,
) -> Result<T, InvalidPayload> {
    serde_json::from_str(json.get())
        .map_err(|_| InvalidPayload(format!("{name} must be {expected}")))
}

fn text(name: &str, json: &RawValue) -> Result<String, InvalidPayload> {
    typed(name, json, "a string")
}

fn flag(name: &str, json: Option<&RawValue>) -> Result<bool, InvalidPayload> {
    json.map_or(Ok(false), |json| typed(name, json, "true or false"))
}

fn invalid(reason: &str) -> InvalidPayload {
    InvalidPayload(reason.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parse(json: &str) -> Result<Payload, InvalidPayload> {
        Payload::parse(json, "prod")
    }

    fn reconcile(json: &str) -> Reconcile {
        match parse(json) {
            Ok(Payload::Reconcile(request)) => *request,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_payloads_that_are_taken() {
        assert!(matches!(parse(r#"{"Records":[{},7]}"#), Ok(Payload::Stream(r)) if r.len() == 2));
        for (json, include_query_configs) in [
            (r#"{"system_account_id":"a","index_name":"i"}"#, false),
            (r#"{"index_name":"i","include_query_configs":true,"system_account_id":"a"}"#, true),
        ] {
            let Ok(Payload::ReExport(request)) = parse(json) else { panic!("{json}") };
            let index = IndexRef::parse("a", "i").unwrap();
            assert_eq!(request, ReExport { index, include_query_configs });
        }
        assert_eq!(reconcile(r#"{"reconcile":{}}"#), Reconcile::default());
        let all = json!({"reconcile": {
            "apply": true, "system_account_id": "a", "delete_up_to": 0, "rewrite_up_to": u64::MAX,
        }});
        let expected = Reconcile {
            apply: true,
            system_account_id: Some("a".to_owned()),
            raised: Raised { deletes: Some(0), rewrites: Some(u64::MAX) },
            ..Reconcile::default()
        };
        assert_eq!(reconcile(&all.to_string()), expected);
        let explain = |json: serde_json::Value| match parse(&json.to_string()) {
            Ok(Payload::Explain(question)) => question.subject.to_string(),
            other => panic!("{other:?}"),
        };
        let of_index = json!({"explain": {"system_account_id": "a", "index_name": "i"}});
        assert_eq!(explain(of_index), "index a/i");
        assert_eq!(explain(json!({"explain": {"key": "k".repeat(512)}})).len(), 4 + 514);
        let item = json!({"pk": {"S": "a"}, "sk": {"S": "INDEX#i"}});
        let of_item = json!({"explain": {"item": item, "removed": true, "values": true}});
        assert!(explain(of_item).starts_with("item "));
        let of_account = json!({"explain": {"system_account_id": "a", "continue": "i"}});
        assert_eq!(explain(of_account), "an index of account a");
    }

    #[test]
    fn a_chain_goes_on_with_its_own_fields_in_its_own_environment() {
        let audit = Reconcile::default();
        let text = |environment| Progress::at_start(&audit, environment).to_text();
        let with = |text: &str| json!({"reconcile": {"continue": text}}).to_string();
        assert!(reconcile(&with(&text("prod"))).progress.is_some());
        let of_repair = json!({"reconcile": {"continue": text("prod"), "apply": true}}).to_string();
        for refused in [with(&text("dev")), with(&text("prod")[1..]), with(""), of_repair] {
            let error = parse(&refused).unwrap_err();
            assert!(error.0.starts_with("continue must be that of the run before"), "{error}");
        }
    }

    #[test]
    fn everything_else_is_refused_and_the_error_says_what_is_wrong_and_what_is_taken() {
        let long = json!({"explain": {"key": "k".repeat(513)}}).to_string();
        let rows = [
            ("", "the payload is not a JSON object"),
            ("null", "the payload is not a JSON object"),
            ("[]", "the payload is not a JSON object"),
            ("{}", "the payload has to be one of"),
            (r#"{"foo":1}"#, "unknown field `foo`"),
            (r#"{"Records":{}}"#, "Records must be a list"),
            (r#"{"Records":null}"#, "Records must be a list"),
            (r#"{"Records":[],"reconcile":{}}"#, "the payload has to be one of"),
            (r#"{"Records":[],"index_name":null}"#, "the payload has to be one of"),
            (r#"{"Records":[],"Records":[]}"#, "duplicate field `Records`"),
            (r#"{"system_account_id":"a"}"#, "the payload has to be one of"),
            (r#"{"system_account_id":1,"index_name":"i"}"#, "system_account_id must be a string"),
            (r#"{"system_account_id":"a","index_name":null}"#, "index_name must be a string"),
            (r#"{"system_account_id":"","index_name":"i"}"#, "must not be empty"),
            (r#"{"system_account_id":"a","index_name":"a#b"}"#, "holds no '#'"),
            (r#"{"system_account_id":"a","index_name":"DEFAULT_CONFIG"}"#, "DEFAULT_CONFIG"),
            (
                r#"{"system_account_id":"a","index_name":"i","include_query_configs":"true"}"#,
                "include_query_configs must be true or false",
            ),
            (r#"{"reconcile":true}"#, "reconcile is not a JSON object"),
            (r#"{"reconcile":null}"#, "reconcile is not a JSON object"),
            (r#"{"reconcile":{"apply":null}}"#, "apply must be true or false"),
            (r#"{"reconcile":{"apply":true,"preview":true}}"#, "preview is an audit"),
            (r#"{"reconcile":{"delete_up_to":-1}}"#, "delete_up_to must be a whole number"),
            (r#"{"reconcile":{"delete_up_to":1.5}}"#, "delete_up_to must be a whole number"),
            (r#"{"reconcile":{"rewrite_up_to":"7"}}"#, "rewrite_up_to must be a whole number"),
            (r#"{"reconcile":{"rewrite_up_to":null}}"#, "rewrite_up_to must be a whole number"),
            (r#"{"reconcile":{"account":"a"}}"#, "unknown field `account`"),
            (r#"{"reconcile":{"system_account_id":""}}"#, "must not be empty"),
            (r#"{"reconcile":{"continue":7}}"#, "continue must be a string"),
            (r#"{"reconcile":{},"explain":{}}"#, "the payload has to be one of"),
            (r#"{"explain":["a","i"]}"#, "explain is not a JSON object"),
            (r#"{"explain":{}}"#, "explain takes one of"),
            (r#"{"explain":{"index_name":"i"}}"#, "explain takes one of"),
            (r#"{"explain":{"key":"k","index_name":"i"}}"#, "explain takes one of"),
            (r#"{"explain":{"key":null}}"#, "key must be a string"),
            (r#"{"explain":{"key":"k","removed":true}}"#, "removed is for an item"),
            (r#"{"explain":{"key":"k","continue":"i"}}"#, "continue for an account"),
            (r#"{"explain":{"system_account_id":"a","values":true}}"#, "all but an account"),
            (r#"{"explain":{"system_account_id":""}}"#, "must not be empty"),
            (r#"{"explain":{"item":{"pk":{"S":"a"}}}}"#, "item must be one of the table"),
            (r#"{"explain":{"key":"k","key":"k"}}"#, "duplicate field `key`"),
            (r#"{"explain":{"key":""}}"#, "1 to 512 bytes"),
            (r#"{"explain":{"key":".."}}"#, "1 to 512 bytes"),
            (&long, "1 to 512 bytes"),
            (r#"{"explain":{"system_account_id":"a","index_name":"a#b"}}"#, "holds no '#'"),
        ];
        for (json, says) in rows {
            let error = parse(json).unwrap_err().to_string();
            assert!(error.contains(says), "{json}: {error}");
            assert!(error.contains("Payloads taken: {\"Records\":[…]}"), "{error}");
            assert!(!error.contains("kkk"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(text in ".*") {
            let _ = parse(&text);
        }

        #[test]
        fn any_nesting_is_answered(depth in 0..5_000_usize) {
            let _ = parse(&format!("{{\"reconcile\":{}", "[".repeat(depth)));
            let json = format!("{{\"Records\":[{}{}]}}", "[".repeat(depth), "]".repeat(depth));
            prop_assert!(parse(&json).is_ok());
        }
    }
}
