//! The wire format of Cloudflare KV's bulk API. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use reqwest::StatusCode;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;

use super::error_codes;
use crate::json::Json;
use crate::kv::{Metadata, StoredValue};
use crate::ports::{BulkReply, Cause, KvError, ListPage};
use crate::services::http::is_transient;

/// Cloudflare's "a time-out occurred" between its edge and the API.
const STATUS_TIMEOUT: u16 = 524;

pub fn body(value: &(impl Serialize + ?Sized)) -> Bytes {
    // Only a map whose keys are no strings can't be written.
    serde_json::to_vec(value).unwrap_or_default().into()
}

pub fn get_body(keys: &[String]) -> Bytes {
    body(&json!({"keys": keys, "type": "text", "withMetadata": true}))
}

/// A response, read whole.
#[derive(Debug)]
pub struct Reply<'a> {
    pub status: StatusCode,
    pub retry_after: Option<Duration>,
    pub body: &'a [u8],
}

#[derive(Deserialize)]
struct Envelope<T> {
    success: bool,
    #[serde(default)]
    errors: Vec<ApiError>,
    result: Option<T>,
    result_info: Option<ResultInfo>,
}

#[derive(Deserialize)]
struct ResultInfo {
    cursor: Option<String>,
}

/// An error without its message, which may quote what was sent.
#[derive(Debug, Deserialize)]
struct ApiError {
    #[serde(default)]
    code: i64,
}

#[derive(Deserialize, Default)]
struct BulkResult {
    #[serde(default)]
    unsuccessful_keys: BTreeSet<String>,
    successful_key_count: Option<usize>,
}

/// The answer to a bulk write or delete of `sent` keys, on 2xx and 4xx alike. On 4xx the keys that are
/// not listed count as done only where the count of the successful ones says so.
pub fn bulk_reply(reply: &Reply<'_>, sent: usize) -> Result<BulkReply, KvError> {
    if reply.status.is_success() {
        let (BulkResult { unsuccessful_keys, .. }, _) = success(reply)?;
        return Ok(BulkReply { unsuccessful: unsuccessful_keys, retry_after: reply.retry_after });
    }
    let envelope = serde_json::from_slice::<Envelope<BulkResult>>(reply.body).ok();
    match envelope.and_then(|envelope| envelope.result) {
        Some(BulkResult { unsuccessful_keys, successful_key_count: Some(successful) })
            if reply.status.is_client_error()
                && !unsuccessful_keys.is_empty()
                && successful.checked_add(unsuccessful_keys.len()) == Some(sent) =>
        {
            Ok(BulkReply { unsuccessful: unsuccessful_keys, retry_after: reply.retry_after })
        }
        _ => Err(failure(reply)),
    }
}

pub fn get_reply(reply: &Reply<'_>) -> Result<BTreeMap<String, StoredValue>, KvError> {
    #[derive(Deserialize)]
    struct GetResult<'a> {
        #[serde(borrow)]
        values: BTreeMap<String, Option<&'a RawValue>>,
    }
    #[derive(Deserialize)]
    struct WithMetadata {
        value: Option<String>,
        metadata: Option<Json>,
    }
    let (GetResult { values }, _) = success(reply)?;
    let mut found = BTreeMap::new();
    for (key, raw) in values {
        let Some(raw) = raw else { continue };
        // `wrangler dev` doesn't know `withMetadata`, and gives bare strings.
        let held = serde_json::from_str(raw.get())
            .map(|value| WithMetadata { value: Some(value), metadata: None })
            .or_else(|_| serde_json::from_str(raw.get()));
        let WithMetadata { value, metadata } = held.map_err(|_| not_the_api(reply))?;
        found.extend(value.map(|value| (key, StoredValue { value, metadata })));
    }
    Ok(found)
}

pub fn list_reply(reply: &Reply<'_>) -> Result<ListPage, KvError> {
    #[derive(Deserialize)]
    struct Key<'a> {
        name: String,
        #[serde(default, borrow)]
        metadata: Option<&'a RawValue>,
    }
    let (keys, info): (Vec<Key<'_>>, _) = success(reply)?;
    let keys = keys
        .into_iter()
        .map(|key| (key.name, key.metadata.and_then(|json| Metadata::parse(json.get()))));
    let cursor = info.and_then(|info| info.cursor).filter(|cursor| !cursor.is_empty());
    Ok(ListPage { keys: keys.collect(), cursor })
}

/// The result of a 2xx, which is a claim to check.
fn success<'a, T: Deserialize<'a>>(reply: &Reply<'a>) -> Result<(T, Option<ResultInfo>), KvError> {
    if !reply.status.is_success() {
        return Err(failure(reply));
    }
    let envelope: Envelope<T> =
        serde_json::from_slice(reply.body).map_err(|_| not_the_api(reply))?;
    match envelope.result {
        Some(result) if envelope.success => Ok((result, envelope.result_info)),
        _ => Err(failure(reply)),
    }
}

/// An answer that is no success: numbers and words of our own, and nothing of its text.
#[derive(Debug, thiserror::Error)]
enum WrongAnswer {
    #[error("status {0}{codes}", codes = error_codes::describe(.1.iter().map(|error| error.code)))]
    Status(StatusCode, Vec<ApiError>),
    #[error("status {0} with a body that is not the API's")]
    NotTheApi(StatusCode),
}

fn not_the_api(reply: &Reply<'_>) -> KvError {
    KvError::Transient(Cause::new(WrongAnswer::NotTheApi(reply.status)))
}

/// The verdict on an answer that is no success.
pub fn failure(reply: &Reply<'_>) -> KvError {
    let status = reply.status;
    let envelope = serde_json::from_slice::<Envelope<IgnoredAny>>(reply.body).ok();
    let errors = envelope.map(|envelope| envelope.errors).unwrap_or_default();
    let cause = Cause::new(WrongAnswer::Status(status, errors));
    let asked_wait = reply.retry_after;
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => KvError::AuthRejected(cause),
        StatusCode::NOT_FOUND => KvError::Refused(cause),
        _ if status.as_u16() == STATUS_TIMEOUT => KvError::TooMuch(cause),
        StatusCode::TOO_MANY_REQUESTS => KvError::RateLimited(Cause { asked_wait, ..cause }),
        _ if is_transient(status) || status.is_success() => {
            KvError::Transient(Cause { asked_wait, ..cause })
        }
        _ if status.is_client_error() => KvError::RefusedContent(cause),
        _ => KvError::Refused(cause),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::IndexRef;
    use crate::kv::{Entry, Pair, Source, Stamp};
    use std::rc::Rc;

    fn reply(status: u16, body: &str) -> Reply<'_> {
        Reply {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: Some(Duration::from_secs(9)),
            body: body.as_bytes(),
        }
    }

    const OK: &str = r#"{"result":{"successful_key_count":2,"unsuccessful_keys":[]},"success":true,"errors":[],"messages":[]}"#;
    const PARTLY: &str = r#"{"result":{"successful_key_count":1,"unsuccessful_keys":["b"]},"success":true,"errors":[],"messages":[]}"#;
    const NOT_A_SUCCESS: &str = r#"{"result":null,"success":false,"errors":[{"code":10000,"message":"Authentication error: \"s3cret\""}]}"#;

    #[test]
    fn bodies_are_what_the_api_takes() {
        let index = IndexRef::parse("a", "i").unwrap();
        let stamp = Stamp {
            exported_at: "t".into(),
            source: Source::Stream,
            environment: "prod".into(),
            changed_at: None,
        };
        let entry = Rc::new(Entry::new("{\"x\":\"\\n\"}", &index, &stamp));
        let pairs = ["k\"1", "k2"].map(|key| Pair { key: key.into(), entry: entry.clone() });
        let sent: serde_json::Value = serde_json::from_slice(&body(&pairs)).unwrap();
        assert_eq!(sent[0]["key"], "k\"1");
        assert_eq!(sent[1]["value"], "{\"x\":\"\\n\"}");
        assert_eq!(sent[1]["metadata"]["source"], "stream");
        assert_eq!(sent.as_array().unwrap().len(), 2);
        assert_eq!(body(&[] as &[Pair]), "[]");
        assert_eq!(body(&["a\"", "b"]), r#"["a\"","b"]"#);
        assert_eq!(get_body(&["a".into()]), r#"{"keys":["a"],"type":"text","withMetadata":true}"#);
    }

    #[test]
    fn per_key_results_count_on_2xx_and_4xx_alike() {
        let unsuccessful = |status, body| bulk_reply(&reply(status, body), 2).unwrap().unsuccessful;
        let b = BTreeSet::from(["b".to_owned()]);
        assert_eq!(unsuccessful(200, OK), BTreeSet::new());
        assert_eq!(unsuccessful(200, PARTLY), b);
        let refused = PARTLY.replace("true", "false");
        assert_eq!(unsuccessful(400, &refused), b);
    }

    #[test]
    fn on_4xx_keys_that_are_not_listed_are_done_only_if_the_count_says_so() {
        let refused = PARTLY.replace("true", "false");
        let uncounted = refused.replace(r#""successful_key_count":1,"#, "");
        let overflowing = refused
            .replace(r#":1,"#, &format!(":{},", usize::MAX))
            .replace(r#"["b"]"#, r#"["a","b","c"]"#);
        let twice = refused.replace(r#"["b"]"#, r#"["b","b"]"#);
        let wrong = [(&refused, 1), (&refused, 3), (&twice, 3), (&uncounted, 2), (&overflowing, 2)];
        for (body, sent) in wrong {
            let reply = bulk_reply(&reply(400, body), sent);
            assert!(matches!(reply, Err(KvError::RefusedContent(_))), "{body} {sent}");
        }
    }

    #[test]
    fn a_2xx_that_is_no_success_is_a_failure() {
        for body in [
            NOT_A_SUCCESS,
            "",
            "<html>",
            "{}",
            "[]",
            "null",
            r#"{"success":true}"#,
            r#"{"success":true,"result":null}"#,
            &OK[..40],
        ] {
            assert!(
                matches!(bulk_reply(&reply(200, body), 2), Err(KvError::Transient(_))),
                "{body}"
            );
            assert!(get_reply(&reply(200, body)).is_err(), "{body}");
            assert!(list_reply(&reply(200, body)).is_err(), "{body}");
        }
    }

    #[test]
    fn every_status_has_its_verdict() {
        let verdict = |status| bulk_reply(&reply(status, NOT_A_SUCCESS), 2).unwrap_err();
        for status in [408, 500, 502, 503, 520, 522, 599] {
            let KvError::Transient(cause) = verdict(status) else { panic!("{status}") };
            assert_eq!(cause.asked_wait, Some(Duration::from_secs(9)));
        }
        assert!(matches!(verdict(429), KvError::RateLimited(Cause { asked_wait: Some(_), .. })));
        assert!(matches!(verdict(524), KvError::TooMuch(_)));
        for status in [301, 302, 404] {
            assert!(matches!(verdict(status), KvError::Refused(_)), "{status}");
        }
        for status in [400, 405, 409, 413, 422] {
            assert!(matches!(verdict(status), KvError::RefusedContent(_)), "{status}");
        }
    }

    #[test]
    fn a_reason_holds_codes_and_nothing_of_what_cloudflare_says() {
        let said = |errors: &str| {
            let body = format!(r#"{{"result":null,"success":false,"errors":{errors}}}"#);
            let refused = bulk_reply(&reply(400, &body), 2).unwrap_err();
            let KvError::RefusedContent(cause) = refused else { panic!("{refused}") };
            cause.to_string()
        };
        for (errors, reason) in [
            (
                r#"[{"code":10012,"message":"malformed s3cret"}]"#,
                "status 400 Bad Request, code 10012: malformed body or value",
            ),
            (r#"[{"code":4711,"message":"s3cret"}]"#, "status 400 Bad Request, code 4711"),
            (r#"[{"code":"s3cret"}]"#, "status 400 Bad Request"),
            (r#"["s3cret"]"#, "status 400 Bad Request"),
            ("[]", "status 400 Bad Request"),
        ] {
            assert_eq!(said(errors), reason, "{errors}");
        }
    }

    #[test]
    fn values_come_with_metadata_bare_or_not_at_all() {
        let body = r#"{"success":true,"errors":[],"messages":[],"result":{"values":{
            "a":{"value":"v1","metadata":{"digest":"x"}},"b":"v2","c":null,"d":{"value":"v4","metadata":null},"e":{"value":null}}}}"#;
        let found = get_reply(&reply(200, body)).unwrap();
        assert_eq!(found["a"].value, "v1");
        assert_eq!(found["a"].metadata.as_ref().map(|json| json.get()), Some(r#"{"digest":"x"}"#));
        assert_eq!((found["b"].value.as_str(), found["b"].metadata.is_none()), ("v2", true));
        assert!(found["d"].metadata.is_none());
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_listing_tells_ours_from_foreign_and_ends_at_an_empty_cursor() {
        let body = |cursor: &str| {
            format!(
                r#"{{"success":true,"errors":[],"messages":[],"result":[{{"name":"a","metadata":{{"digest":"d","exported_at":"t","source":"stream","system_account_id":"x","index_name":"i"}}}},
                {{"name":"b"}},{{"name":"c","metadata":{{"other":1}}}},{{"name":"d","metadata":"text","expiration":1}}],"result_info":{{"count":4{cursor}}}}}"#
            )
        };
        let page = |cursor: &str| list_reply(&reply(200, &body(cursor))).unwrap();
        let listed = page(r#","cursor":"next""#);
        assert_eq!(listed.cursor.as_deref(), Some("next"));
        let ours: Vec<bool> = listed.keys.iter().map(|(_, metadata)| metadata.is_some()).collect();
        assert_eq!(ours, [true, false, false, false]);
        assert_eq!(page(r#","cursor":"""#).cursor, None);
        assert_eq!(page("").cursor, None);
    }
}
