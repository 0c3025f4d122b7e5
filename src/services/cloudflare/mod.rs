//! Cloudflare KV over HTTP. A call is one request, which is repeated once where the token is refused.

pub mod token;
pub mod wire;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use enum_map::EnumMap;
use reqwest::Method;
use reqwest::header::CONTENT_TYPE;
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use tokio::task::AbortHandle;
use url::form_urlencoded::Serializer;

use self::token::CloudflareToken;
use crate::config::CloudflareConfig;
use crate::kv::limits::MAX_LIST_KEYS;
use crate::kv::{Namespace, Pair, StoredValue};
use crate::ports::{BulkReply, ErrorKind, KvStore, ListPage, Service, ServiceError};
use crate::services::held_secrets::hold_api_key;
use crate::services::http::{Response, send};

/// The longest response that is read: 25 MB of values, which JSON may make twice as long.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;
const _: () = assert!(MAX_RESPONSE_BYTES > 2 * 25_000_000);

pub struct CloudflareKv {
    http: reqwest::Client,
    /// `None` in a dry run, in which no request is made.
    target: Option<Target>,
}

struct Target {
    urls: EnumMap<Namespace, String>,
    token: Arc<CloudflareToken>,
}

impl CloudflareKv {
    /// Reads the token with `secrets_manager` where it is a secret.
    pub fn new(
        http: reqwest::Client,
        config: Option<CloudflareConfig>,
        secrets_manager: aws_sdk_secretsmanager::Client,
    ) -> Self {
        let target = config.map(|CloudflareConfig { urls, token }| Target {
            urls,
            token: Arc::new(CloudflareToken::new(token, secrets_manager)),
        });
        Self { http, target }
    }

    /// Begins to read the token while the rest starts. A failure shows when the token is needed.
    pub fn read_token_early(&self) -> Option<AbortHandle> {
        Some(self.target.as_ref()?.token.read_early())
    }

    /// Sends a request. A refused token is read again, and the request repeated once.
    async fn send<T: Default>(
        &self,
        method: Method,
        namespace: Namespace,
        path: &str,
        body: Option<Bytes>,
        read: impl Fn(&Response) -> Result<T, ServiceError>,
    ) -> Result<T, ServiceError> {
        let Some(target) = &self.target else { return Ok(T::default()) };
        let url = format!("{}/{path}", target.urls[namespace]);
        let attempt = async |token: &SecretString| {
            let mut request = self.http.request(method.clone(), &url);
            if let Some(body) = body.clone() {
                request = request.header(CONTENT_TYPE, "application/json").body(body);
            }
            let request = request.bearer_auth(token.expose_secret());
            let response = send(request, MAX_RESPONSE_BYTES).await;
            let response = response
                .map_err(|error| ServiceError::new(Service::Kv, error.kind, error.reason))?;
            read(&response)
        };
        let token = target.token.get(None).await?;
        match attempt(&token).await {
            Err(refusal) if refusal.kind == ErrorKind::AuthRejected => {
                match target.token.get(Some(&token)).await {
                    Ok(token) => attempt(&token).await,
                    Err(unread) => {
                        let reason = format!("{}; {}", refusal.reason, unread.reason).into();
                        Err(ServiceError { reason, ..refusal })
                    }
                }
            }
            result => result,
        }
    }
}

impl KvStore for CloudflareKv {
    async fn put(&self, namespace: Namespace, pairs: &[Pair]) -> Result<BulkReply, ServiceError> {
        let read = |response: &Response| wire::bulk_reply(response, pairs.len());
        self.send(Method::PUT, namespace, "bulk", Some(wire::body(pairs)), read).await
    }

    async fn delete(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BulkReply, ServiceError> {
        let read = |response: &Response| wire::bulk_reply(response, keys.len());
        self.send(Method::POST, namespace, "bulk/delete", Some(wire::body(keys)), read).await
    }

    async fn get(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BTreeMap<String, StoredValue>, ServiceError> {
        let body = wire::body(&json!({"keys": keys, "type": "text", "withMetadata": true}));
        let values =
            self.send(Method::POST, namespace, "bulk/get", Some(body), wire::get_reply).await?;
        let api_keys = values.values().filter_map(|value| value.settings()?.api_key);
        api_keys.for_each(|api_key| hold_api_key(&api_key));
        Ok(values)
    }

    async fn list(
        &self,
        namespace: Namespace,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<ListPage, ServiceError> {
        let path = Serializer::new(format!("keys?limit={MAX_LIST_KEYS}"))
            .extend_pairs((!prefix.is_empty()).then_some(("prefix", prefix)))
            .extend_pairs(cursor.map(|cursor| ("cursor", cursor)))
            .finish();
        self.send(Method::GET, namespace, &path, None, wire::list_reply).await
    }
}
