//! The wire format of Cloudflare KV's REST API. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use bytes::Bytes;
use reqwest::StatusCode;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::json::{Json, from_object};
use crate::kv::{Metadata, StoredValue};
use crate::ports::{BulkReply, ErrorKind, ListPage, Service, ServiceError};
use crate::services::http::{Response, is_transient, retry_after};

pub fn body(value: &(impl Serialize + ?Sized)) -> Bytes {
    // Only a map whose keys are no strings can't be written.
    serde_json::to_vec(value).unwrap_or_default().into()
}

#[derive(Deserialize)]
struct Envelope<T> {
    success: bool,
    errors: Option<Vec<ApiError>>,
    result: Option<T>,
    result_info: Option<ResultInfo>,
}

#[derive(Deserialize)]
struct ResultInfo {
    cursor: Option<String>,
}

/// An error of Cloudflare's, without its message, which may quote what was sent.
#[derive(Debug, Deserialize)]
struct ApiError {
    #[serde(default)]
    code: i64,
}

#[derive(Deserialize)]
struct BulkResult {
    unsuccessful_keys: Option<BTreeSet<String>>,
    successful_key_count: Option<usize>,
}

/// Reads the response to a bulk write or delete of `sent` keys. A key that is not listed as unsuccessful counts as done
/// if the number of successful keys adds up. A 2xx may lack that number; a 4xx must have it, and list keys.
pub fn bulk_reply(response: &Response, sent: usize) -> Result<BulkReply, ServiceError> {
    let status = response.status();
    // What the response means unless it tells of each key.
    let error = failure(response);
    let envelope = from_object::<Envelope<BulkResult>>(response.body());
    let Ok(Envelope { success, result: Some(result), .. }) = envelope else { return Err(error) };
    let unsuccessful = result.unsuccessful_keys.unwrap_or_default();
    let is_sum = |count: usize| count.checked_add(unsuccessful.len()) == Some(sent);
    let tells_of_each_key = match error.kind {
        ErrorKind::AuthRejected => false,
        _ if status.is_client_error() => {
            !unsuccessful.is_empty() && result.successful_key_count.is_some_and(is_sum)
        }
        _ => status.is_success() && success && result.successful_key_count.is_none_or(is_sum),
    };
    if !tells_of_each_key {
        return Err(error);
    }
    let retry_after = retry_after(response.headers());
    Ok(BulkReply { unsuccessful, retry_after, is_refusal: error.is_refusal() })
}

pub fn get_reply(response: &Response) -> Result<BTreeMap<String, StoredValue>, ServiceError> {
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
    let (GetResult { values }, _) = success(response)?;
    let mut found = BTreeMap::new();
    for (key, raw) in values {
        let Some(raw) = raw else { continue };
        // `wrangler dev` doesn't know `withMetadata`, and gives bare strings.
        let stored = serde_json::from_str(raw.get())
            .map(|value| WithMetadata { value: Some(value), metadata: None })
            .or_else(|_| serde_json::from_str(raw.get()));
        let WithMetadata { value, metadata } = stored.map_err(|_| failure(response))?;
        found.extend(value.map(|value| (key, StoredValue { value, metadata })));
    }
    Ok(found)
}

pub fn list_reply(response: &Response) -> Result<ListPage, ServiceError> {
    #[derive(Deserialize)]
    struct Key<'a> {
        name: String,
        #[serde(default, borrow)]
        metadata: Option<&'a RawValue>,
    }
    let (keys, info): (Vec<Key<'_>>, _) = success(response)?;
    let keys = keys
        .into_iter()
        .map(|key| (key.name, key.metadata.and_then(|json| Metadata::parse(json.get()))));
    let cursor = info.and_then(|info| info.cursor).filter(|cursor| !cursor.is_empty());
    Ok(ListPage { keys: keys.collect(), cursor })
}

/// Returns the result of a 2xx. A 2xx alone proves nothing.
fn success<'a, T: Deserialize<'a>>(
    response: &'a Response,
) -> Result<(T, Option<ResultInfo>), ServiceError> {
    let envelope = from_object::<Envelope<T>>(response.body()).ok();
    let envelope = envelope.filter(|envelope| envelope.success && response.status().is_success());
    let result = envelope.and_then(|envelope| Some((envelope.result?, envelope.result_info)));
    result.ok_or_else(|| failure(response))
}

/// Cloudflare's "a time-out occurred" between its edge and the API.
const STATUS_TIMEOUT: u16 = 524;

/// Codes have up to five digits. Any larger number is something else.
const CODES: RangeInclusive<i64> = 1..=99_999;

/// How many codes of one response are shown.
const SHOWN_CODES: usize = 3;

/// What an operator has to know about a code. 10001 and others mean one thing to KV and another to the rest of
/// the API.
const MEANINGS: [(i64, &str); 12] = [
    (971, "too many requests in too short a time"),
    (6_003, "invalid request headers: the token may have the wrong form"),
    (7_003, "the account's or the namespace's id is malformed"),
    (9_109, "the token is refused"),
    (10_000, "the token is refused"),
    (10_011, "malformed namespace id"),
    (10_012, "malformed body or value"),
    (10_013, "namespace not found"),
    (10_024, "the body is too large"),
    (10_037, "the token lacks the permission"),
    (10_046, "too many bulk requests"),
    (10_048, "the account's free usage is used up"),
];

/// What to do about a token that Cloudflare refuses.
const TOKEN_REFUSED: &str = "CloudflareAuthRejected: Cloudflare refuses the API token; check the secret and that the token may edit Workers KV Storage of this account: ";

/// Returns the error of a response that is no success. It is described by numbers and our own words, without its
/// text.
fn failure(response: &Response) -> ServiceError {
    let status = response.status();
    let unproved = if status.is_success() { "a body that does not confirm " } else { "" };
    let mut reason = format!("{unproved}status {status}");
    let envelope = from_object::<Envelope<IgnoredAny>>(response.body()).ok();
    let errors = envelope.and_then(|envelope| envelope.errors).unwrap_or_default().into_iter();
    let codes = errors.map(|error| error.code);
    for code in codes.filter(|code| CODES.contains(code)).take(SHOWN_CODES) {
        let meaning = MEANINGS.iter().find(|(known, _)| *known == code);
        let meaning = meaning.map_or(String::new(), |(_, meaning)| format!(": {meaning}"));
        reason.push_str(&format!(", code {code}{meaning}"));
    }
    let kind = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            reason.insert_str(0, TOKEN_REFUSED);
            ErrorKind::AuthRejected
        }
        StatusCode::NOT_FOUND => ErrorKind::Refused,
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::RateLimited,
        _ if status.as_u16() == STATUS_TIMEOUT => ErrorKind::TimedOut,
        _ if is_transient(status) || status.is_success() => ErrorKind::Transient,
        _ if status.is_client_error() => ErrorKind::RefusedContent,
        _ => ErrorKind::Refused,
    };
    let asked_wait = retry_after(response.headers());
    ServiceError { asked_wait, ..ServiceError::new(Service::Kv, kind, reason) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Pair;
    use reqwest::header::RETRY_AFTER;
    use serde_json::json;
    use std::rc::Rc;
    use std::time::Duration;

    fn response(status: u16, body: &str) -> Response {
        let response = http::Response::builder().status(status).header(RETRY_AFTER, 9);
        response.body(Bytes::copy_from_slice(body.as_bytes())).unwrap()
    }

    #[test]
    fn a_pair_is_sent_with_its_metadata_as_it_stands_or_without_any() {
        let pair = |metadata: Option<&str>| {
            let metadata = metadata.map(|json| serde_json::from_str(json).unwrap());
            let stored = Rc::new(StoredValue { value: r#"{"x":"\n"}"#.into(), metadata });
            Pair { key: "k\"1".into(), stored, item: None }
        };
        assert_eq!(
            body(&[pair(Some(r#"{"x":1e2}"#)), pair(None)]),
            r#"[{"key":"k\"1","value":"{\"x\":\"\\n\"}","metadata":{"x":1e2}},{"key":"k\"1","value":"{\"x\":\"\\n\"}"}]"#
        );
    }

    /// What is read of a response to a bulk request for three keys.
    fn bulk(status: u16, count: Option<usize>, unsuccessful: &[&str]) -> String {
        let body = json!({
            "success": status == 200,
            "errors": [],
            "result": {"successful_key_count": count, "unsuccessful_keys": unsuccessful},
        });
        match bulk_reply(&response(status, &body.to_string()), 3) {
            Ok(BulkReply { unsuccessful, retry_after, is_refusal }) => {
                assert_eq!(retry_after, Some(Duration::from_secs(9)));
                assert_eq!(is_refusal, [400, 413].contains(&status), "{status}");
                unsuccessful.into_iter().collect()
            }
            Err(error) => {
                assert_eq!(error.asked_wait, Some(Duration::from_secs(9)));
                format!("{:?}", error.kind)
            }
        }
    }

    #[test]
    fn each_status_has_its_error_and_keys_that_are_not_listed_are_done_if_the_count_bears_it_out() {
        const MAX: usize = usize::MAX;
        for (statuses, count, unsuccessful, outcome) in [
            (&[200][..], Some(3), &[][..], ""),
            (&[200], Some(1), &["b", "c"], "bc"),
            (&[200], None, &[], ""),
            (&[200], None, &["b"], "b"),
            (&[200], Some(0), &[], "Transient"),
            (&[200], Some(2), &[], "Transient"),
            (&[200], Some(4), &[], "Transient"),
            (&[200], Some(1), &["b", "b"], "Transient"),
            (&[200], Some(MAX), &["a", "b", "c", "d"], "Transient"),
            (&[400], Some(2), &["b"], "b"),
            (&[413], Some(0), &["a", "b", "c"], "abc"),
            (&[404, 408, 429], Some(2), &["b"], "b"),
            (&[400, 402, 405, 409, 410, 413, 414, 422, 451], Some(3), &[], "RefusedContent"),
            (&[400], Some(1), &["b"], "RefusedContent"),
            (&[400], Some(1), &["b", "b"], "RefusedContent"),
            (&[400], Some(MAX), &["a", "b", "c", "d"], "RefusedContent"),
            (&[400], None, &["b"], "RefusedContent"),
            (&[401, 403], Some(2), &["b"], "AuthRejected"),
            (&[301, 302, 404], Some(3), &[], "Refused"),
            (&[429], Some(3), &[], "RateLimited"),
            (&[524], Some(3), &[], "TimedOut"),
            (&[408, 500, 502, 503, 520, 522, 599], None, &["b"], "Transient"),
            (&[500], Some(2), &["b"], "Transient"),
        ] {
            for status in statuses {
                let case = format!("{status} {count:?} {unsuccessful:?}");
                assert_eq!(bulk(*status, count, unsuccessful), outcome, "{case}");
            }
        }
        let nulls = r#"{"success":true,"errors":null,"result":{"unsuccessful_keys":null}}"#;
        assert!(bulk_reply(&response(200, nulls), 3).unwrap().unsuccessful.is_empty());
    }

    #[test]
    fn a_2xx_that_is_no_success_is_a_failure() {
        for body in [
            "<html>",
            "{}",
            r#"{"success":true}"#,
            r#"{"success":true,"result":null}"#,
            r#"{"success":false,"result":{"successful_key_count":2}}"#,
            r#"{"success":true,"result":{"successful_"#,
            r#"[true,[],{"successful_key_count":2,"unsuccessful_keys":[]},null]"#,
        ] {
            let response = response(200, body);
            let errors = [
                bulk_reply(&response, 2).unwrap_err(),
                get_reply(&response).unwrap_err(),
                list_reply(&response).unwrap_err(),
            ];
            assert_eq!(errors.map(|error| error.kind), [ErrorKind::Transient; 3], "{body}");
        }
    }

    #[test]
    fn a_reason_holds_codes_and_nothing_of_what_cloudflare_says() {
        let said = |status, errors: &str| {
            let body = format!(r#"{{"result":null,"success":false,"errors":{errors}}}"#);
            let error = bulk_reply(&response(status, &body), 2).unwrap_err();
            error.to_string()
        };
        for (errors, codes) in [
            (
                r#"[{"code":10012,"message":"malformed s3cret"}]"#,
                ", code 10012: malformed body or value",
            ),
            (
                r#"[{"code":4711,"message":"s3cret"},{"code":100000},{"code":-1},{"code":1},{"code":2},{"code":3}]"#,
                ", code 4711, code 1, code 2",
            ),
            (r#"[{"code":"s3cret"}]"#, ""),
            (r#"["s3cret"]"#, ""),
            ("[]", ""),
        ] {
            let told =
                |status: &str| format!("Cloudflare KV: {status}{codes}; it asks to wait 9 s");
            assert_eq!(said(400, errors), told("status 400 Bad Request"), "{errors}");
            let unproved = told("a body that does not confirm status 200 OK");
            assert_eq!(said(200, errors), unproved, "{errors}");
        }
    }

    #[test]
    fn values_come_with_metadata_bare_or_not_at_all() {
        let body = r#"{"success":true,"errors":[],"messages":[],"result":{"values":{
            "a":{"value":"v1","metadata":{"digest":"x"}},"b":"v2","c":null,"d":{"value":"v4","metadata":null},"e":{"value":null}}}}"#;
        let found = get_reply(&response(200, body)).unwrap();
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
        let page = |cursor: &str| list_reply(&response(200, &body(cursor))).unwrap();
        let listed = page(r#","cursor":"next""#);
        assert_eq!(listed.cursor.as_deref(), Some("next"));
        let ours: Vec<bool> = listed.keys.iter().map(|(_, metadata)| metadata.is_some()).collect();
        assert_eq!(ours, [true, false, false, false]);
        assert_eq!(page(r#","cursor":"""#).cursor, None);
        assert_eq!(page("").cursor, None);
    }
}
