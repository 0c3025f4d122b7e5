//! The API keys service: one GET for each account.

use std::sync::Arc;

use reqwest::StatusCode;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::held_secrets::hold_api_key;
use super::http::{Response, is_transient, retry_after, send};
use crate::json::from_object;
use crate::kv::stored::usable_api_key;
use crate::ports::{ApiKeyService, ErrorKind, Service, ServiceError};

/// The longest response that is read: one API key, and room for what a gateway adds.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

pub struct ApiKeysClient {
    pub http: reqwest::Client,
    /// A URL with `{cell}` and `{system_account_id}`.
    pub template: String,
}

impl ApiKeyService for ApiKeysClient {
    async fn fetch(&self, cell: &str, account: &str) -> Result<SecretString, ServiceError> {
        let url = url(&self.template, cell, account)?;
        let response = send(self.http.get(url), MAX_RESPONSE_BYTES).await;
        let response = response.map_err(|error| failed(error.kind, error.reason))?;
        api_key(&response).inspect(hold_api_key)
    }
}

fn failed(kind: ErrorKind, reason: impl Into<Arc<str>>) -> ServiceError {
    ServiceError::new(Service::ApiKeys, kind, reason)
}

fn api_key(response: &Response) -> Result<SecretString, ServiceError> {
    #[derive(Deserialize)]
    struct Body {
        api_key: String,
    }
    let status = response.status();
    let kind = match status {
        StatusCode::OK => {
            let body = from_object(response.body()).ok();
            let api_key = body.and_then(|Body { api_key }| usable_api_key(api_key));
            return api_key
                .ok_or_else(|| failed(ErrorKind::Unusable, "200 without a usable api_key"));
        }
        StatusCode::NOT_FOUND => {
            return Err(failed(ErrorKind::NotFound, "the account has no API key"));
        }
        StatusCode::TOO_MANY_REQUESTS => ErrorKind::RateLimited,
        _ if is_transient(status) => ErrorKind::Transient,
        _ => ErrorKind::Refused,
    };
    let asked_wait = retry_after(response.headers());
    Err(ServiceError { asked_wait, ..failed(kind, format!("status {status}")) })
}

/// Returns the URL for names that fit one.
fn url(template: &str, cell: &str, account: &str) -> Result<Url, ServiceError> {
    let filled = template
        .replace("{cell}", &percent_encoded(cell))
        .replace("{system_account_id}", &percent_encoded(account));
    Url::parse(&filled).map_err(|_| failed(ErrorKind::NoUrl, "cell can't be part of a URL"))
}

/// Encodes everything except RFC 3986's unreserved characters, so that a name stays within its part of the URL.
fn percent_encoded(name: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const RESERVED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(name, RESERVED).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::ErrorKind::{NotFound, RateLimited, Refused, Transient, Unusable};
    use crate::ports::fits_a_url;
    use bytes::Bytes;
    use proptest::prelude::*;
    use reqwest::header::RETRY_AFTER;
    use secrecy::ExposeSecret;
    use std::time::Duration;

    const TEMPLATE: &str = "http://127.0.0.1:1/{cell}/accounts/{system_account_id}/key";

    #[test]
    fn names_are_percent_encoded_and_do_not_step_up_the_path() {
        let url = |cell, account| url(TEMPLATE, cell, account);
        assert_eq!(
            url("c/1?x", "a b%#ä/../..").unwrap().as_str(),
            "http://127.0.0.1:1/c%2F1%3Fx/accounts/a%20b%25%23%C3%A4%2F..%2F../key"
        );
    }

    #[test]
    fn each_status_and_body_has_its_outcome() {
        let result = |status: u16, body: &str| {
            let response = http::Response::builder().status(status).header(RETRY_AFTER, 9);
            api_key(&response.body(Bytes::copy_from_slice(body.as_bytes())).unwrap())
        };
        let good = r#"{"api_key":"k-1","created_at":"x"}"#;
        assert_eq!(result(200, good).unwrap().expose_secret(), "k-1");
        let nine_seconds = Some(Duration::from_secs(9));
        for (name, statuses, body, kind, asked_wait) in [
            ("no API key", &[404][..], good, NotFound, None),
            ("no answer", &[408, 500, 502, 503, 504], good, Transient, nine_seconds),
            ("too busy", &[429], good, RateLimited, nine_seconds),
            ("refused", &[201, 301, 400, 401, 403, 410], good, Refused, nine_seconds),
            ("unusable", &[200], r#"{"api_key":""}"#, Unusable, None),
            ("no text", &[200], r#"{"api_key":7}"#, Unusable, None),
            ("null", &[200], r#"{"api_key":null}"#, Unusable, None),
            ("nothing", &[200], "{}", Unusable, None),
            ("no object", &[200], r#"["k-1"]"#, Unusable, None),
            ("no JSON", &[200], "<html>", Unusable, None),
        ] {
            for status in statuses {
                let error = result(*status, body).unwrap_err();
                assert_eq!((error.kind, error.asked_wait), (kind, asked_wait), "{name}, {status}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_place_in_the_url(cell in ".{1,20}", account in ".{1,20}") {
            prop_assume!(fits_a_url(&cell) && fits_a_url(&account));
            let url = url(TEMPLATE, &cell, &account).unwrap();
            let segments: Vec<&str> = url.path_segments().unwrap().collect();
            prop_assert_eq!(segments.len(), 4);
            prop_assert_eq!((segments[1], segments[3]), ("accounts", "key"));
            prop_assert_eq!(url.host_str(), Some("127.0.0.1"));
            prop_assert!(url.query().is_none() && url.fragment().is_none());
        }
    }
}
