//! The API keys service: one GET an account.

use std::time::Duration;

use reqwest::StatusCode;
use secrecy::SecretString;
use serde::Deserialize;
use url::Url;

use super::http::{LostAnswer, is_transient, read_body, retry_after};
use crate::json::from_object;
use crate::kv::stored::usable_api_key;
use crate::ports::{ApiKeyError, ApiKeyService, Cause, fits_a_url};

/// The longest answer that is read: one API key, and room for what a gateway adds.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

pub struct ApiKeysClient {
    pub http: reqwest::Client,
    /// A URL with `{cell}` and `{system_account_id}`.
    pub template: String,
}

/// An answer without an API key.
#[derive(Debug, thiserror::Error)]
enum WrongAnswer {
    #[error("status {0}")]
    Status(StatusCode),
    #[error("200 without a usable api_key")]
    NoUsableKey,
}

impl ApiKeyService for ApiKeysClient {
    async fn fetch(&self, cell: &str, account: &str) -> Result<SecretString, ApiKeyError> {
        let url = url(&self.template, cell, account)?;
        let lost = |error: LostAnswer| ApiKeyError::Silent(Cause::new(error));
        let response = self.http.get(url).send().await.map_err(|error| lost(error.into()))?;
        let (status, wait) = (response.status(), retry_after(response.headers()));
        if status != StatusCode::OK {
            return Err(refused(status, wait));
        }
        let body = read_body(response, MAX_ANSWER_BYTES).await.map_err(lost)?;
        usable_key(&body).ok_or_else(|| ApiKeyError::Silent(Cause::new(WrongAnswer::NoUsableKey)))
    }
}

fn refused(status: StatusCode, asked_wait: Option<Duration>) -> ApiKeyError {
    let cause = Cause::new(WrongAnswer::Status(status));
    match status {
        StatusCode::NOT_FOUND => ApiKeyError::NotFound,
        _ if is_transient(status) => ApiKeyError::Silent(Cause { asked_wait, ..cause }),
        _ => ApiKeyError::Refused(cause),
    }
}

fn url(template: &str, cell: &str, account: &str) -> Result<Url, ApiKeyError> {
    for (path, name) in [("cell", cell), ("system_account_id", account)] {
        if !fits_a_url(name) {
            return Err(ApiKeyError::BadName { path });
        }
    }
    let filled = template
        .replace("{cell}", &percent_encoded(cell))
        .replace("{system_account_id}", &percent_encoded(account));
    Url::parse(&filled).map_err(|_| ApiKeyError::BadName { path: "cell" })
}

/// Everything but RFC 3986's unreserved characters is encoded, so that a name can't leave its
/// place in the URL.
fn percent_encoded(name: &str) -> String {
    use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
    const RESERVED: &AsciiSet =
        &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(name, RESERVED).to_string()
}

fn usable_key(body: &[u8]) -> Option<SecretString> {
    #[derive(Deserialize)]
    struct Answer {
        api_key: String,
    }
    let Answer { api_key } = from_object(std::str::from_utf8(body).ok()?).ok()?;
    usable_api_key(api_key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ports::{Retry, Retryable};
    use proptest::prelude::*;
    use secrecy::ExposeSecret;

    const TEMPLATE: &str = "http://127.0.0.1:1/{cell}/accounts/{system_account_id}/key";

    #[test]
    fn names_are_percent_encoded() {
        let url = url(TEMPLATE, "c/1?x", "a b%#ä/../..").unwrap();
        assert_eq!(
            url.as_str(),
            "http://127.0.0.1:1/c%2F1%3Fx/accounts/a%20b%25%23%C3%A4%2F..%2F../key"
        );
    }

    #[test]
    fn names_that_would_step_up_the_path_are_refused() {
        assert_eq!(
            url(TEMPLATE, "cell-1", "..").unwrap_err(),
            ApiKeyError::BadName { path: "system_account_id" }
        );
        assert_eq!(url(TEMPLATE, ".", "a").unwrap_err(), ApiKeyError::BadName { path: "cell" });
    }

    #[test]
    fn statuses_and_bodies_have_their_verdicts() {
        assert_eq!(refused(StatusCode::NOT_FOUND, None), ApiKeyError::NotFound);
        let retried = |status| refused(status, None).retry() != Retry::Never;
        for status in [429, 500, 502, 503, 504] {
            assert!(retried(StatusCode::from_u16(status).unwrap()), "{status}");
        }
        for status in [301, 400, 401, 403, 410] {
            assert!(!retried(StatusCode::from_u16(status).unwrap()), "{status}");
        }
        let key = usable_key(br#"{"api_key":"k-1","created_at":"x"}"#).unwrap();
        assert_eq!(key.expose_secret(), "k-1");
        for unusable in [
            &br#"{"api_key":""}"#[..],
            br#"{"api_key":"  "}"#,
            br#"{"api_key":null}"#,
            br#"{"api_key":7}"#,
            br#"{"api_key":"a\nb"}"#,
            "{\"api_key\":\"schlüssel\"}".as_bytes(),
            br#"{}"#,
            br#"["k-1"]"#,
            b"<html>",
            b"",
        ] {
            assert!(usable_key(unusable).is_none());
        }
    }

    proptest! {
        #[test]
        fn no_name_leaves_its_place_in_the_url(cell in ".{1,20}", account in ".{1,20}") {
            if let Ok(url) = url(TEMPLATE, &cell, &account) {
                let segments: Vec<&str> = url.path_segments().unwrap().collect();
                prop_assert_eq!(segments.len(), 4);
                prop_assert_eq!((segments[1], segments[3]), ("accounts", "key"));
                prop_assert_eq!(url.host_str(), Some("127.0.0.1"));
                prop_assert!(url.query().is_none() && url.fragment().is_none());
            }
        }
    }
}
