//! Cloudflare KV over HTTP. One call is one request, but for a token that turns out to be old.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, StatusCode};
use secrecy::ExposeSecret;
use tokio::time::Instant;
use url::Url;

use super::token::{CloudflareToken, Token, TokenError};
use super::wire::{self, Reply};
use crate::kv::limits::MAX_LIST_KEYS;
use crate::kv::{Pair, StoredValue};
use crate::ports::{BulkReply, KvError, KvStore, ListPage, Namespace, RateLimit};
use crate::services::http::{LostAnswer, rate_limit, read_body, retry_after};

/// The longest answer that is read. A bulk read gives up to 25 MB of values, which JSON may make
/// twice as long.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A client of Cloudflare KV.
pub struct CloudflareKv {
    http: reqwest::Client,
    token: Arc<CloudflareToken>,
    settings_url: String,
    query_configs_url: String,
    rate_limit: Cell<Option<RateLimit>>,
}

impl CloudflareKv {
    /// A client for the namespaces at these URLs.
    pub fn new(
        http: reqwest::Client,
        token: Arc<CloudflareToken>,
        settings_url: String,
        query_configs_url: String,
    ) -> Self {
        Self { http, token, settings_url, query_configs_url, rate_limit: Cell::new(None) }
    }

    fn url(&self, namespace: Namespace, path: &str) -> String {
        let base = match namespace {
            Namespace::Settings => &self.settings_url,
            Namespace::QueryConfigs => &self.query_configs_url,
        };
        format!("{base}/{path}")
    }

    /// Sends a request; a refused token is read again, and the request repeated once.
    async fn send<T>(
        &self,
        method: Method,
        url: &str,
        body: Option<bytes::Bytes>,
        read: impl Fn(&Reply<'_>) -> Result<T, KvError>,
    ) -> Result<T, KvError> {
        let no_token = |error: TokenError| KvError::NoToken { reason: error.to_string() };
        let token = self.token.current().await.map_err(no_token)?;
        let first = self.attempt(method.clone(), url, body.clone(), &token, &read).await?;
        let Attempt::AuthRefused(_) = first else { return first.answer() };
        let token = self.token.after(&token).await.map_err(no_token)?;
        self.attempt(method, url, body, &token, &read).await?.answer()
    }

    async fn attempt<T>(
        &self,
        method: Method,
        url: &str,
        body: Option<bytes::Bytes>,
        token: &Token,
        read: impl Fn(&Reply<'_>) -> Result<T, KvError>,
    ) -> Result<Attempt<T>, KvError> {
        let mut request = self.http.request(method, url).header(AUTHORIZATION, bearer(token)?);
        if let Some(body) = body {
            request = request.header(CONTENT_TYPE, "application/json").body(body);
        }
        let response = request.send().await.map_err(|error| lost(error.into()))?;
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let rate_limit = rate_limit(response.headers());
        self.rate_limit.set(rate_limit.map(|(left, until_reset)| RateLimit {
            left,
            resets_at: Instant::now() + until_reset,
        }));
        let body = read_body(response, MAX_ANSWER_BYTES).await.map_err(lost)?;
        let reply = Reply { status, retry_after, body: &body };
        if status == StatusCode::UNAUTHORIZED || status == StatusCode::FORBIDDEN {
            return Ok(Attempt::AuthRefused(wire::reason(&reply)));
        }
        read(&reply).map(Attempt::Answered)
    }
}

enum Attempt<T> {
    Answered(T),
    AuthRefused(String),
}

impl<T> Attempt<T> {
    fn answer(self) -> Result<T, KvError> {
        match self {
            Self::Answered(answer) => Ok(answer),
            Self::AuthRefused(reason) => Err(KvError::AuthRejected { reason }),
        }
    }
}

fn bearer(token: &Token) -> Result<HeaderValue, KvError> {
    let text = format!("Bearer {}", token.secret.expose_secret());
    let mut value = HeaderValue::from_str(&text).map_err(|_| KvError::NoToken {
        reason: "the token can't be sent in a header".to_owned(),
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A request without a whole answer: it may have been carried out.
fn lost(error: LostAnswer) -> KvError {
    let reason = error.to_string();
    match error {
        LostAnswer::TimeOut => KvError::TooMuch { reason },
        LostAnswer::Broken(_) | LostAnswer::TooLong(_) => {
            KvError::Transient { reason, retry_after: None }
        }
    }
}

impl KvStore for CloudflareKv {
    async fn put(&self, namespace: Namespace, pairs: &[Pair]) -> Result<BulkReply, KvError> {
        let body = wire::put_body(pairs).into();
        let url = self.url(namespace, "bulk");
        let read = |reply: &Reply<'_>| wire::bulk_reply(reply, pairs.len());
        self.send(Method::PUT, &url, Some(body), read).await
    }

    async fn delete(&self, namespace: Namespace, keys: &[String]) -> Result<BulkReply, KvError> {
        let url = self.url(namespace, "bulk/delete");
        let body = wire::delete_body(keys).into();
        let read = |reply: &Reply<'_>| wire::bulk_reply(reply, keys.len());
        self.send(Method::POST, &url, Some(body), read).await
    }

    async fn get(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BTreeMap<String, StoredValue>, KvError> {
        let url = self.url(namespace, "bulk/get");
        let body = wire::get_body(keys).into();
        self.send(Method::POST, &url, Some(body), wire::get_reply).await
    }

    async fn list(
        &self,
        namespace: Namespace,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<ListPage, KvError> {
        let mut url = Url::parse(&self.url(namespace, "keys")).map_err(|_| KvError::Refused {
            reason: "CLOUDFLARE_KV_URL is not a URL".to_owned(),
        })?;
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("limit", &MAX_LIST_KEYS.to_string());
            if !prefix.is_empty() {
                query.append_pair("prefix", prefix);
            }
            if let Some(cursor) = cursor {
                query.append_pair("cursor", cursor);
            }
        }
        self.send(Method::GET, url.as_str(), None, wire::list_reply).await
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.rate_limit.get()
    }
}
