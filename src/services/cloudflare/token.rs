//! The Cloudflare API token: read once per cold start, and again when Cloudflare refuses it.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_secretsmanager::Client;
use secrecy::SecretString;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::config::TokenSource;
use crate::kv::stored::fits_a_header;
use crate::ports::{ErrorKind, Service, ServiceError};
use crate::services::aws;
use crate::services::held_secrets::hold_credential;

/// How long the early reading may take. The first request waits for it, and then reads anew.
const EARLY_READING: Duration = Duration::from_secs(3);

pub struct CloudflareToken {
    source: TokenSource,
    client: Client,
    /// Locked while the token is read, so that all requests wait for one reading. A request that gives up
    /// drops the lock together with the reading.
    token: Mutex<Option<Arc<SecretString>>>,
}

impl CloudflareToken {
    pub fn new(source: TokenSource, client: Client) -> Self {
        Self { source, client, token: Mutex::default() }
    }

    /// Begins to read the token.
    pub fn read_early(self: &Arc<Self>) -> AbortHandle {
        let token = self.clone();
        let reading = async move { timeout(EARLY_READING, token.get(None)).await.is_ok() };
        tokio::spawn(reading).abort_handle()
    }

    /// Returns the token. Reads it where none is known, or only the `refused` one.
    pub async fn get(
        &self,
        refused: Option<&Arc<SecretString>>,
    ) -> Result<Arc<SecretString>, ServiceError> {
        let mut token = self.token.lock().await;
        match &*token {
            Some(token) if !refused.is_some_and(|refused| Arc::ptr_eq(token, refused)) => {
                Ok(token.clone())
            }
            _ => Ok(token.insert(Arc::new(self.read().await?)).clone()),
        }
    }

    async fn read(&self) -> Result<SecretString, ServiceError> {
        let token = match &self.source {
            TokenSource::Given(token) => token.clone(),
            TokenSource::SecretId(id) => {
                let no_token = |reason: String| {
                    let reason = format!("API token: secret {id:?} {reason}");
                    ServiceError::new(Service::Kv, ErrorKind::NoToken, reason)
                };
                let response = self.client.get_secret_value().secret_id(id).send().await;
                let response = response
                    .map_err(|error| no_token(format!("can't be read: {}", aws::reason(error))))?;
                let token = response.secret_string().and_then(parse_secret);
                token.ok_or_else(|| {
                    no_token(
                        "must be the token itself or a JSON object with the string field \"token\""
                            .to_owned(),
                    )
                })?
            }
        };
        hold_credential(&token);
        Ok(token)
    }
}

/// Returns the plain string, or the field `token` of a JSON object.
fn parse_secret(text: &str) -> Option<SecretString> {
    let token = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(object)) => object.get("token")?.as_str()?.to_owned(),
        _ => text.to_owned(),
    };
    let token = token.trim();
    fits_a_header(token).then(|| token.to_owned().into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::scripted_aws::{Scripted, sdk};
    use secrecy::ExposeSecret;
    use serde_json::json;
    use std::sync::Mutex as StdMutex;
    use tokio::time::Instant;

    /// A token whose readings get what `script` says of their number, and the count of readings.
    fn token(
        script: impl Fn(usize) -> Scripted + Send + Sync + 'static,
    ) -> (Arc<CloudflareToken>, Arc<StdMutex<usize>>) {
        let (sdk, readings) = sdk(move |reading, _| script(reading));
        let source = TokenSource::SecretId("prod/token".into());
        (Arc::new(CloudflareToken::new(source, Client::new(&sdk))), readings)
    }

    /// The token of a reading, by its number.
    fn numbered(reading: usize) -> Scripted {
        Some((200, json!({"SecretString": format!("token-{reading}")})))
    }

    async fn text(token: &CloudflareToken) -> String {
        token.get(None).await.unwrap().expose_secret().to_owned()
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_gives_up_or_is_aborted_leaves_nothing_locked() {
        let second = Duration::from_secs(1);
        for (name, at_most) in [("early", EARLY_READING), ("aborted", second), ("other", second)] {
            let (token, _) = token(|reading| numbered(reading).filter(|_| reading > 0));
            let began = Instant::now();
            if name == "other" {
                assert!(timeout(second / 2, token.get(None)).await.is_err());
            } else {
                let early_reading = token.read_early();
                tokio::task::yield_now().await;
                if name == "aborted" {
                    early_reading.abort();
                }
            }
            assert_eq!(text(&token).await, "token-1", "{name}");
            assert!(began.elapsed() <= at_most, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_requests_with_a_refused_token_wait_for_one_reading() {
        let (token, readings) = token(numbered);
        let refused = token.get(None).await.unwrap();
        let again = || token.get(Some(&refused));
        let (one, other) = tokio::join!(again(), again());
        assert_eq!(one.unwrap().expose_secret(), "token-1");
        assert_eq!(other.unwrap().expose_secret(), "token-1");
        assert_eq!(*readings.lock().unwrap(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn secrets_manager_is_not_asked_for_a_token_that_is_given() {
        let (sdk, readings) = sdk(|_, _| None);
        let source = TokenSource::Given("given".into());
        let token = CloudflareToken::new(source, Client::new(&sdk));
        assert_eq!(text(&token).await, "given");
        assert_eq!(*readings.lock().unwrap(), 0);
    }

    #[test]
    fn a_secret_is_the_token_or_an_object_with_it() {
        for (text, token) in [
            ("abc", Some("abc")),
            (" abc\n", Some("abc")),
            (r#"{"token":"abc"}"#, Some("abc")),
            (r#"{"token":"abc","other":1}"#, Some("abc")),
            ("12345", Some("12345")),
            (r#"{"token":7}"#, None),
            (r#"{"other":"abc"}"#, None),
            ("", None),
            ("a b", None),
            ("a\r\nX-Injected: 1", None),
        ] {
            let parsed = parse_secret(text);
            assert_eq!(parsed.as_ref().map(|token| token.expose_secret()), token, "{text}");
        }
    }
}
