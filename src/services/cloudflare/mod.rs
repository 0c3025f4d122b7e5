//! Cloudflare KV over HTTP. One call is one request, but for a token that turns out to be old.

mod error_codes;
pub mod token;
pub mod wire;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Method, RequestBuilder, StatusCode};
use secrecy::ExposeSecret;
use url::form_urlencoded::Serializer;

use self::token::CloudflareToken;
use self::wire::Reply;
use crate::kv::limits::MAX_LIST_KEYS;
use crate::kv::{Pair, StoredValue};
use crate::ports::{BulkReply, Cause, KvError, KvStore, ListPage, Namespace, RateLimit};
use crate::services::http::{LostAnswer, rate_limit, read_body, retry_after};

/// The longest answer that is read: 25 MB of values, which JSON may make twice as long.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;
const _: () = assert!(MAX_ANSWER_BYTES > 2 * 25_000_000);

pub struct CloudflareKv {
    http: reqwest::Client,
    /// `None` in a dry run: everything happens but the requests.
    target: Option<Target>,
    rate_limit: Cell<Option<RateLimit>>,
}

/// Where and as whom KV is written.
pub struct Target {
    /// Of the two namespaces.
    pub settings_url: String,
    pub query_configs_url: String,
    pub token: Arc<CloudflareToken>,
}

impl CloudflareKv {
    pub fn new(http: reqwest::Client, target: Option<Target>) -> Self {
        Self { http, target, rate_limit: Cell::new(None) }
    }

    pub fn take_token_readings(&self) -> Vec<Duration> {
        self.target.as_ref().map(|target| target.token.take_readings()).unwrap_or_default()
    }

    /// Sends a request; a refused token is read again, and the request repeated once.
    async fn send<T: Default>(
        &self,
        method: Method,
        namespace: Namespace,
        path: &str,
        body: Option<Bytes>,
        read: impl Fn(&Reply<'_>) -> Result<T, KvError>,
    ) -> Result<T, KvError> {
        let Some(target) = &self.target else { return Ok(T::default()) };
        let url = match namespace {
            Namespace::Settings => &target.settings_url,
            Namespace::QueryConfigs => &target.query_configs_url,
        };
        let url = format!("{url}/{path}");
        let mut refused = None;
        loop {
            let token = target.token.get(refused.as_ref()).await;
            let token = token.map_err(|error| KvError::NoToken(Cause::new(error)))?;
            let mut request = self.http.request(method.clone(), &url);
            if let Some(body) = body.clone() {
                request = request.header(CONTENT_TYPE, "application/json").body(body);
            }
            match self.attempt(request.bearer_auth(token.expose_secret()), &read).await {
                Err(KvError::AuthRejected(_)) if refused.is_none() => refused = Some(token),
                answer => return answer,
            }
        }
    }

    async fn attempt<T>(
        &self,
        request: RequestBuilder,
        read: impl Fn(&Reply<'_>) -> Result<T, KvError>,
    ) -> Result<T, KvError> {
        let response = request.send().await.map_err(|error| lost(error.into()))?;
        let (status, retry_after) = (response.status(), retry_after(response.headers()));
        self.rate_limit.set(rate_limit(response.headers()));
        let body = read_body(response, MAX_ANSWER_BYTES).await.map_err(lost)?;
        let reply = Reply { status, retry_after, body: &body };
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(wire::failure(&reply)),
            _ => read(&reply),
        }
    }
}

/// A request without a whole answer: it may have been carried out.
fn lost(error: LostAnswer) -> KvError {
    match error {
        LostAnswer::TimeOut => KvError::TooMuch(Cause::new(error)),
        LostAnswer::Broken(_) | LostAnswer::TooLong(_) => KvError::Transient(Cause::new(error)),
    }
}

impl KvStore for CloudflareKv {
    async fn put(&self, namespace: Namespace, pairs: &[Pair]) -> Result<BulkReply, KvError> {
        let read = |reply: &Reply<'_>| wire::bulk_reply(reply, pairs.len());
        self.send(Method::PUT, namespace, "bulk", Some(wire::body(pairs)), read).await
    }

    async fn delete(&self, namespace: Namespace, keys: &[String]) -> Result<BulkReply, KvError> {
        let read = |reply: &Reply<'_>| wire::bulk_reply(reply, keys.len());
        self.send(Method::POST, namespace, "bulk/delete", Some(wire::body(keys)), read).await
    }

    async fn get(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BTreeMap<String, StoredValue>, KvError> {
        let body = wire::get_body(keys);
        self.send(Method::POST, namespace, "bulk/get", Some(body), wire::get_reply).await
    }

    async fn list(
        &self,
        namespace: Namespace,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<ListPage, KvError> {
        let path = Serializer::new(format!("keys?limit={MAX_LIST_KEYS}"))
            .extend_pairs((!prefix.is_empty()).then_some(("prefix", prefix)))
            .extend_pairs(cursor.map(|cursor| ("cursor", cursor)))
            .finish();
        self.send(Method::GET, namespace, &path, None, wire::list_reply).await
    }

    fn rate_limit(&self) -> Option<RateLimit> {
        self.rate_limit.get()
    }
}
