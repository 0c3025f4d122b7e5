//! What an invocation asks for: a closed set, parsed whole before anything is done.

use std::collections::BTreeMap;

use lambda_runtime::Diagnostic;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::export::explain::{Explain, Subject};
use crate::export::re_export::ReExport;
use crate::export::reconcile::{Progress, Reconcile};
use crate::index::IndexRef;
use crate::item::{Item, StreamRecord};
use crate::kv::check_key;
use crate::text::cut;

#[derive(Debug)]
pub enum Payload {
    Stream(Vec<StreamRecord>),
    ReExport(ReExport),
    Reconcile(Box<Reconcile>),
    Explain(Explain),
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PayloadFields<'a> {
    #[serde(rename = "Records", borrow)]
    records: Option<Vec<&'a RawValue>>,
    #[serde(borrow)]
    reconcile: Option<&'a RawValue>,
    #[serde(borrow)]
    explain: Option<&'a RawValue>,
    system_account_id: Option<String>,
    index_name: Option<String>,
    include_query_configs: Option<bool>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ExplainFields {
    system_account_id: Option<String>,
    index_name: Option<String>,
    key: Option<String>,
    item: Option<Box<RawValue>>,
    removed: Option<bool>,
    values: Option<bool>,
    #[serde(rename = "continue")]
    after: Option<String>,
}

impl Payload {
    /// Parses a payload for the exporter of `environment`.
    pub fn parse(json: &str, environment: &str) -> Result<Self, Diagnostic> {
        let it: PayloadFields<'_> = object("the payload", json)?;
        let index = (it.system_account_id, it.index_name, it.include_query_configs);
        match (it.records, it.reconcile, it.explain, index) {
            (Some(records), None, None, (None, None, None)) => {
                Ok(Self::Stream(records.into_iter().map(StreamRecord::read).collect()))
            }
            (None, Some(request), None, (None, None, None)) => {
                let request = reconcile(object("reconcile", request.get())?, environment)?;
                Ok(Self::Reconcile(Box::new(request)))
            }
            (None, None, Some(question), (None, None, None)) => {
                explain(object("explain", question.get())?).map(Self::Explain)
            }
            (None, None, None, (Some(account), Some(name), include_query_configs)) => {
                let index = index_ref(&account, &name)?;
                let include_query_configs = include_query_configs.unwrap_or_default();
                Ok(Self::ReExport(ReExport { index, include_query_configs }))
            }
            _ => invalid(
                "the payload has to be one of: Records alone; reconcile alone; explain alone; system_account_id with index_name",
            ),
        }
    }
}

fn reconcile(mut request: Reconcile, environment: &str) -> Result<Reconcile, Diagnostic> {
    check_account(request.system_account_id.as_deref())?;
    if request.apply && request.preview {
        return invalid("preview is an audit: not with apply");
    }
    if let Some(text) = &request.r#continue {
        let Some(progress) = Progress::parse(text, &request, environment) else {
            return invalid(
                "continue must be that of the run before, whole, of the same environment, with the same apply, preview and system_account_id",
            );
        };
        request.progress = progress;
    }
    Ok(request)
}

fn explain(it: ExplainFields) -> Result<Explain, Diagnostic> {
    let index = (it.system_account_id, it.index_name);
    let subject = match (index, it.key, it.item, it.removed, it.after, it.values) {
        ((Some(account), Some(name)), None, None, None, None, _) => {
            Subject::Index(index_ref(&account, &name)?)
        }
        ((Some(account), None), None, None, None, after, None) => {
            check_account(Some(&account))?;
            Subject::Account { account, after }
        }
        ((None, None), Some(key), None, None, None, _) => {
            if check_key(&key).is_err() {
                let rule = "key must be one that KV can hold: 1 to 512 bytes, and not . or ..";
                return invalid(rule);
            }
            Subject::Key(key)
        }
        ((None, None), None, Some(item), removed, None, _) => {
            let item = Item::parse(item).ok().filter(|(key, _)| key.fits_the_table());
            let Some((key, item)) = item else {
                return invalid("item must be one of the table in DynamoDB JSON, with pk and sk");
            };
            Subject::Item(key, Some(item).filter(|_| removed != Some(true)))
        }
        _ => {
            return invalid(
                "explain takes one of: system_account_id and index_name; system_account_id alone; key; item. removed is for an item, continue for an account, and values for all but an account",
            );
        }
    };
    Ok(Explain { subject, values: it.values.unwrap_or_default() })
}

fn check_account(account: Option<&str>) -> Result<(), Diagnostic> {
    if account == Some("") { invalid("system_account_id must not be empty") } else { Ok(()) }
}

fn index_ref(account: &str, name: &str) -> Result<IndexRef, Diagnostic> {
    let index = IndexRef::parse(account, name);
    index.map_or_else(|| invalid("system_account_id and index_name must not be empty, and index_name holds no '#' and is not DEFAULT_CONFIG"), Ok)
}

/// How much of serde's message is shown. An unknown payload may hold anything.
const MAX_MESSAGE_CHARACTERS: usize = 100;

/// Reads an object. The error names the field at fault, and quotes no value: serde quotes it before it says what
/// it expected.
fn object<'a, T: Deserialize<'a>>(name: &str, json: &'a str) -> Result<T, Diagnostic> {
    // Serde's derive takes `[]` for an object without fields, and null for a field that is absent.
    let Ok(raw) = serde_json::from_str::<BTreeMap<String, &RawValue>>(json) else {
        return invalid(&format!("{name} must be a JSON object"));
    };
    let mut json = serde_json::Deserializer::from_str(json);
    let fields = serde_path_to_error::deserialize(&mut json).or_else(|error| {
        let (path, error) = (error.path(), error.inner().to_string());
        // The path says where: the line and column are of no use.
        let error = error.rsplit_once(" at line ").map_or(&*error, |(what, _)| what);
        let expected = error.rsplit_once(", expected ").filter(|_| error.starts_with("invalid "));
        invalid(&match expected {
            Some((_, expected)) => {
                format!("{name}: {path} must be {}", expected.replace("u64", "a whole number"))
            }
            None => format!("{name}: {}", cut(error, MAX_MESSAGE_CHARACTERS)),
        })
    })?;
    match raw.iter().find(|(_, value)| value.get() == "null") {
        None => Ok(fields),
        Some((field, _)) => invalid(&format!("{name}: {field} must not be null")),
    }
}

const TAKEN: &str = r#"{"Records":[…]} of a DynamoDB stream; {"system_account_id":"…","index_name":"…","include_query_configs":true|false (optional)}; {"reconcile":{"apply":true|false (optional),"preview":true|false (optional),"system_account_id":"…" (optional),"continue":"…" (optional),"delete_up_to":n (optional),"rewrite_up_to":n (optional)}}; {"explain":{"system_account_id":"…","index_name":"…","values":true|false (optional)}}; {"explain":{"key":"…","values":true|false (optional)}}; {"explain":{"item":{…},"removed":true|false (optional),"values":true|false (optional)}}; {"explain":{"system_account_id":"…","continue":"…" (optional)}}"#;

/// Returns the error of a payload that the function does not take.
pub fn invalid<T>(reason: &str) -> Result<T, Diagnostic> {
    let error_message = format!("{reason}. Payloads taken: {TAKEN}");
    Err(Diagnostic { error_type: "InvalidPayload".to_owned(), error_message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn parse(json: &str) -> Result<Payload, Diagnostic> {
        Payload::parse(json, "prod")
    }

    /// The payload that continues an audit in an environment.
    fn continued(environment: &str, apply: bool) -> String {
        let progress = Progress { left_out: true, ..Progress::default() };
        let text = progress.to_text(&Reconcile::default(), environment);
        json!({"reconcile": {"continue": text, "apply": apply}}).to_string()
    }

    #[test]
    fn the_payloads_that_are_taken() {
        // The behaviour tests send every other kind.
        let all = r#"{"reconcile":{"apply":true,"system_account_id":"a","delete_up_to":0,"rewrite_up_to":18446744073709551615}}"#;
        let expected = Reconcile {
            apply: true,
            system_account_id: Some("a".to_owned()),
            delete_up_to: Some(0),
            rewrite_up_to: Some(u64::MAX),
            ..Reconcile::default()
        };
        assert!(matches!(parse(all), Ok(Payload::Reconcile(request)) if *request == expected));
        let audit = parse(&continued("prod", false));
        assert!(matches!(audit, Ok(Payload::Reconcile(it)) if it.progress.left_out));
        let longest = json!({"explain": {"key": "k".repeat(512)}}).to_string();
        assert!(matches!(parse(&longest), Ok(Payload::Explain(_))));
    }

    #[test]
    fn everything_else_is_refused_and_the_error_says_what_is_wrong_and_what_is_taken() {
        let long = json!({"explain": {"key": "k".repeat(513)}}).to_string();
        let rows = [
            ("[]", "the payload must be a JSON object"),
            ("{}", "the payload has to be one of"),
            (r#"{"foo":1}"#, "unknown field `foo`"),
            (r#"{"Records":{}}"#, "Records must be a sequence"),
            (r#"{"Records":null}"#, "Records must not be null"),
            (r#"{"Records":[],"index_name":null}"#, "index_name must not be null"),
            (r#"{"Records":[],"Records":[]}"#, "duplicate field `Records`"),
            (r#"{"system_account_id":"a"}"#, "the payload has to be one of"),
            (r#"{"system_account_id":1,"index_name":"i"}"#, "system_account_id must be a string"),
            (r#"{"system_account_id":"a","index_name":null}"#, "index_name must not be null"),
            (r#"{"system_account_id":"","index_name":"i"}"#, "must not be empty"),
            (r#"{"system_account_id":"a","index_name":"a#b"}"#, "holds no '#'"),
            (r#"{"system_account_id":"a","index_name":"DEFAULT_CONFIG"}"#, "DEFAULT_CONFIG"),
            (
                r#"{"system_account_id":"a","index_name":"i","include_query_configs":"true"}"#,
                "include_query_configs must be a boolean",
            ),
            (r#"{"reconcile":true}"#, "reconcile must be a JSON object"),
            (r#"{"reconcile":null}"#, "reconcile must not be null"),
            (r#"{"reconcile":{"apply":null}}"#, "reconcile: apply must be a boolean"),
            (r#"{"reconcile":{"apply":true,"preview":true}}"#, "preview is an audit"),
            (r#"{"reconcile":{"delete_up_to":-1}}"#, "delete_up_to must be a whole number"),
            (r#"{"reconcile":{"rewrite_up_to":"7"}}"#, "rewrite_up_to must be a whole number"),
            (r#"{"reconcile":{"rewrite_up_to":null}}"#, "rewrite_up_to must not be null"),
            (r#"{"reconcile":{"account":"a"}}"#, "unknown field `account`"),
            (r#"{"reconcile":{"progress":{}}}"#, "unknown field `progress`"),
            (r#"{"reconcile":{"system_account_id":""}}"#, "must not be empty"),
            (r#"{"reconcile":{"apply":"kkk, expected kkk"}}"#, "apply must be a boolean"),
            (r#"{"reconcile":{} x"#, "the payload must be a JSON object"),
            (r#"{"reconcile":{"continue":7}}"#, "continue must be a string"),
            (r#"{"reconcile":{"continue":"11.cut"}}"#, "continue must be that of the run before"),
            (&continued("dev", false), "continue must be that of the run before"),
            (&continued("prod", true), "continue must be that of the run before"),
            (r#"{"reconcile":{},"explain":{}}"#, "the payload has to be one of"),
            (r#"{"explain":["a","i"]}"#, "explain must be a JSON object"),
            (r#"{"explain":{}}"#, "explain takes one of"),
            (r#"{"explain":{"key":"k","index_name":"i"}}"#, "explain takes one of"),
            (r#"{"explain":{"key":null}}"#, "key must not be null"),
            (r#"{"explain":{"key":"k","removed":true}}"#, "removed is for an item"),
            (r#"{"explain":{"key":"k","continue":"i"}}"#, "continue for an account"),
            (r#"{"explain":{"system_account_id":"a","values":true}}"#, "all but an account"),
            (r#"{"explain":{"system_account_id":""}}"#, "must not be empty"),
            (r#"{"explain":{"item":{"pk":{"S":"a"}}}}"#, "item must be one of the table"),
            (r#"{"explain":{"key":"k","key":"k"}}"#, "duplicate field `key`"),
            (r#"{"explain":{"key":""}}"#, "1 to 512 bytes"),
            (&long, "1 to 512 bytes"),
            (r#"{"explain":{"system_account_id":"a","index_name":"a#b"}}"#, "holds no '#'"),
        ];
        for (json, says) in rows {
            let error = parse(json).unwrap_err().error_message;
            assert!(error.contains(says), "{json}: {error}");
            assert!(error.contains("Payloads taken: {\"Records\":[…]}"), "{error}");
            assert!(!error.contains("kkk"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_nesting_is_answered(depth in 0..5_000_usize) {
            let _ = parse(&format!("{{\"reconcile\":{}", "[".repeat(depth)));
            let json = format!("{{\"Records\":[{}{}]}}", "[".repeat(depth), "]".repeat(depth));
            prop_assert!(parse(&json).is_ok());
        }
    }
}
