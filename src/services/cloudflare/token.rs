//! The Cloudflare API token: read once per cold start, and again when Cloudflare refuses it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_sdk_secretsmanager::Client;
use secrecy::SecretString;
use tokio::sync::Mutex;

use crate::config::TokenSource;
use crate::kv::stored::fits_a_header;
use crate::services::aws::AwsError;
use crate::services::held_secrets::hold;

pub struct CloudflareToken {
    source: TokenSource,
    client: Client,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    token: Option<Arc<SecretString>>,
    readings: Vec<Duration>,
}

impl CloudflareToken {
    /// `client` is asked where the source is a secret.
    pub fn new(source: TokenSource, client: Client) -> Self {
        Self { source, client, state: Mutex::default() }
    }

    /// The token, read if there is none but the `refused` one. All callers wait for one reading.
    pub async fn get(
        &self,
        refused: Option<&Arc<SecretString>>,
    ) -> Result<Arc<SecretString>, TokenError> {
        let mut state = self.state.lock().await;
        let is_refused = |token: &_| refused.is_some_and(|refused| Arc::ptr_eq(token, refused));
        let token = match state.token.take() {
            Some(token) if !is_refused(&token) => token,
            _ => Arc::new(self.read(&mut state.readings).await?),
        };
        Ok(state.token.insert(token).clone())
    }

    /// How long the readings of the secret took that ended since this was last called.
    pub fn take_readings(&self) -> Vec<Duration> {
        // While a reading is under way, those before it wait for the next call.
        self.state
            .try_lock()
            .map(|mut state| std::mem::take(&mut state.readings))
            .unwrap_or_default()
    }

    async fn read(&self, readings: &mut Vec<Duration>) -> Result<SecretString, TokenError> {
        let id = match &self.source {
            TokenSource::Given(token) => {
                hold(token);
                return Ok(token.clone());
            }
            TokenSource::SecretId(id) => id,
        };
        let _reading = Reading { began: Instant::now(), readings };
        let answer = self.client.get_secret_value().secret_id(id).send().await;
        let unreadable = |error| TokenError::Unreadable { id: id.clone(), error };
        let answer = answer.map_err(AwsError::from).map_err(unreadable)?;
        let token = answer.secret_string().and_then(parse_secret);
        let token = token.ok_or_else(|| TokenError::NotAToken { id: id.clone() })?;
        hold(&token);
        Ok(token)
    }
}

/// Noted when it ends, also where the invocation's time is up and the call is dropped.
struct Reading<'a> {
    began: Instant,
    readings: &'a mut Vec<Duration>,
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.readings.push(self.began.elapsed());
    }
}

#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    #[error("secret {id:?} can't be read")]
    Unreadable {
        id: String,
        #[source]
        error: AwsError,
    },
    #[error(
        "secret {id:?} must be the token itself or a JSON object with the string field \"token\""
    )]
    NotAToken { id: String },
}

/// The plain string, or the field `token` of a JSON object.
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
    use secrecy::ExposeSecret;

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
