//! The Cloudflare API token: read once per cold start, and again when Cloudflare refuses it.

use std::sync::{Mutex as StdMutex, PoisonError};
use std::time::Instant;

use aws_sdk_secretsmanager::Client;
use secrecy::SecretString;
use tokio::sync::Mutex;

use crate::config::TokenSource;
use crate::ports::ServiceCalls;
use crate::services::aws::describe;
use crate::services::held_secrets::hold;

/// The token and where it comes from.
pub struct CloudflareToken {
    source: Source,
    state: Mutex<State>,
    /// The calls that ended since they were last taken.
    calls: StdMutex<ServiceCalls>,
}

enum Source {
    Given(SecretString),
    Secret { client: Client, id: String },
}

#[derive(Default)]
struct State {
    token: Option<SecretString>,
    generation: u64,
}

/// A token, and which reading of the secret it is from.
#[derive(Clone)]
pub struct Token {
    /// The token.
    pub secret: SecretString,
    generation: u64,
}

impl CloudflareToken {
    /// A token from `source`; `client` is used for a secret alone.
    pub fn new(source: TokenSource, client: impl FnOnce() -> Client) -> Self {
        let source = match source {
            TokenSource::Given(token) => Source::Given(token),
            TokenSource::SecretId(id) => Source::Secret { client: client(), id },
        };
        Self { source, state: Mutex::default(), calls: StdMutex::default() }
    }

    /// The token, read if it hasn't been. Callers at the same time wait for one reading.
    pub async fn current(&self) -> Result<Token, TokenError> {
        let mut state = self.state.lock().await;
        self.fill(&mut state).await
    }

    /// The token after `refused`: read again, unless somebody else has done that already.
    pub async fn after(&self, refused: &Token) -> Result<Token, TokenError> {
        let mut state = self.state.lock().await;
        if state.generation == refused.generation {
            state.token = None;
        }
        self.fill(&mut state).await
    }

    /// The calls to Secrets Manager that ended since this was last called.
    pub fn take_calls(&self) -> ServiceCalls {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    async fn fill(&self, state: &mut State) -> Result<Token, TokenError> {
        let secret = match &state.token {
            Some(token) => token.clone(),
            None => {
                let token = self.read().await?;
                hold(&token);
                state.generation += 1;
                state.token.insert(token).clone()
            }
        };
        Ok(Token { secret, generation: state.generation })
    }

    async fn read(&self) -> Result<SecretString, TokenError> {
        let (client, id) = match &self.source {
            Source::Given(token) => return Ok(token.clone()),
            Source::Secret { client, id } => (client, id),
        };
        let started = Instant::now();
        // Counted when it ends, also where the invocation's time is up and the call is dropped.
        let _count = CountWhenDropped { calls: &self.calls, started };
        let answer = client.get_secret_value().secret_id(id).send().await;
        let answer = answer
            .map_err(|error| TokenError::Unreadable { id: id.clone(), reason: describe(&error) })?;
        answer
            .secret_string()
            .and_then(parse_secret)
            .ok_or_else(|| TokenError::NotAToken { id: id.clone() })
    }
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Secrets Manager does not give the secret.
    #[error("secret {id:?} can't be read: {reason}")]
    Unreadable {
        /// The secret.
        id: String,
        /// What Secrets Manager says.
        reason: String,
    },
    /// The secret is something else.
    #[error(
        "secret {id:?} must be the token itself or a JSON object with the string field \"token\""
    )]
    NotAToken {
        /// The secret.
        id: String,
    },
}

struct CountWhenDropped<'a> {
    calls: &'a StdMutex<ServiceCalls>,
    started: Instant,
}

impl Drop for CountWhenDropped<'_> {
    fn drop(&mut self) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.requests += 1;
        calls.duration += self.started.elapsed();
    }
}

/// The plain string, or the field `token` of a JSON object.
fn parse_secret(text: &str) -> Option<SecretString> {
    let token = match serde_json::from_str::<serde_json::Value>(text) {
        Ok(serde_json::Value::Object(mut object)) => match object.remove("token") {
            Some(serde_json::Value::String(token)) => token,
            _ => return None,
        },
        _ => text.to_owned(),
    };
    let token = token.trim();
    // What can't stand in a header can't be a token.
    let usable = !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic());
    usable.then(|| token.to_owned().into())
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
