//! The API keys service: one GET for each account.

use reqwest::StatusCode;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::held_secrets::hold_api_key;
use super::http::{Response, is_transient, retry_after, send};
use crate::json::from_object;
use crate::kv::stored::usable_api_key;
use crate::ports::{ApiKeyError, ApiKeyService, Cause};

/// The longest response that is read: one API key, and room for what a gateway adds.
const MAX_RESPONSE_BYTES: usize = 64 * 1024;

pub struct ApiKeysClient {
    pub http: reqwest::Client,
    /// A URL with `{cell}` and `{system_account_id}`.
    pub template: String,
}

impl ApiKeyService for ApiKeysClient {
    async fn fetch(&self, cell: &str, account: &str) -> Result<SecretString, ApiKeyError> {
        let url = url(&self.template, cell, account)?;
        match send(self.http.get(url), MAX_RESPONSE_BYTES).await {
            Ok(response) => api_key(&response).inspect(hold_api_key),
            Err(error) => Err(ApiKeyError::Silent(Cause::new(error))),
        }
    }
}

fn api_key(response: &Response) -> Result<SecretString, ApiKeyError> {
    #[derive(Deserialize)]
    struct Body {
        api_key: String,
    }
    let status = response.status();
    let refused = Cause::new(format!("status {status}"));
    let failed = Cause { asked_wait: retry_after(response.headers()), ..refused.clone() };
    match status {
        StatusCode::OK => {
            let body = from_object(response.body()).ok();
            let api_key = body.and_then(|Body { api_key }| usable_api_key(api_key));
            api_key.ok_or_else(|| ApiKeyError::Busy(Cause::new("200 without a usable api_key")))
        }
        StatusCode::NOT_FOUND => Err(ApiKeyError::NotFound),
        _ if status.is_server_error() => Err(ApiKeyError::Silent(failed)),
        _ if is_transient(status) => Err(ApiKeyError::Busy(failed)),
        _ => Err(ApiKeyError::Refused(refused)),
    }
}

/// Returns the URL for names that fit one.
fn url(template: &str, cell: &str, account: &str) -> Result<Url, ApiKeyError> {
    let filled = template
        .replace("{cell}", &percent_encoded(cell))
        .replace("{system_account_id}", &percent_encoded(account));
    Url::parse(&filled).map_err(|_| ApiKeyError::NoUrl)
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
    use crate::ports::{Retry, Retryable, fits_a_url};
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
        let again =
            |after_whole_back_off, asked_wait| Some(Retry { after_whole_back_off, asked_wait });
        for (name, statuses, body, kind, retry) in [
            ("no API key", &[404][..], good, "NotFound", None),
            ("no answer", &[500, 502, 503, 504], good, "Silent", again(false, nine_seconds)),
            ("too busy", &[408, 429], good, "Busy", again(true, nine_seconds)),
            ("refused", &[201, 301, 400, 401, 403, 410], good, "Refused", None),
            ("unusable", &[200], r#"{"api_key":""}"#, "Busy", again(true, None)),
            ("no text", &[200], r#"{"api_key":7}"#, "Busy", again(true, None)),
            ("null", &[200], r#"{"api_key":null}"#, "Busy", again(true, None)),
            ("nothing", &[200], "{}", "Busy", again(true, None)),
            ("no object", &[200], r#"["k-1"]"#, "Busy", again(true, None)),
            ("no JSON", &[200], "<html>", "Busy", again(true, None)),
        ] {
            for status in statuses {
                let error = result(*status, body).unwrap_err();
                assert!(format!("{error:?}").starts_with(kind), "{name}, {status}: {error:?}");
                assert_eq!(error.retry(), retry, "{name}, {status}");
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
