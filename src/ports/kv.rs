//! Cloudflare KV's REST API.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::{Cause, Retry, Retryable, in_words};
use crate::kv::{Metadata, Namespace, Pair, StoredValue};

pub trait KvStore {
    /// Writes up to 10,000 pairs of distinct keys.
    async fn put(&self, namespace: Namespace, pairs: &[Pair]) -> Result<BulkReply, KvError>;
    /// Deletes up to 10,000 keys. A key that isn't there succeeds.
    async fn delete(&self, namespace: Namespace, keys: &[String]) -> Result<BulkReply, KvError>;
    /// Reads up to 100 keys with their metadata. A key that isn't there is absent from the result.
    async fn get(
        &self,
        namespace: Namespace,
        keys: &[String],
    ) -> Result<BTreeMap<String, StoredValue>, KvError>;
    /// Lists up to 1,000 keys, from the start or from a cursor.
    async fn list(
        &self,
        namespace: Namespace,
        prefix: &str,
        cursor: Option<&str>,
    ) -> Result<ListPage, KvError>;
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BulkReply {
    /// Keys to send again. They may be partly written or deleted.
    pub unsuccessful: BTreeSet<String>,
    pub retry_after: Option<Duration>,
    /// Whether the request was refused, and not only some storage failed.
    pub is_refusal: bool,
}

#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// Names in ascending order. Each has its metadata, if that names an account and an index.
    pub keys: Vec<(String, Option<Metadata>)>,
    /// Where the next page begins; `None` at the end.
    pub cursor: Option<String>,
}

/// Why a request failed. Parts of it may have been carried out all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// Trying the same again may help.
    #[error("Cloudflare KV")]
    Transient(#[source] Cause),
    /// 429: too many requests, or writes to a key.
    #[error("Cloudflare KV")]
    RateLimited(#[source] Cause),
    /// A time-out or 524. Halves may get through.
    #[error("Cloudflare KV")]
    TimedOut(#[source] Cause),
    /// 401 or 403, also after the token was read again.
    #[error(
        "CloudflareAuthRejected: Cloudflare refuses the API token; check the secret and that the token may edit Workers KV Storage of this account"
    )]
    AuthRejected(#[source] Cause),
    #[error("Cloudflare API token")]
    NoToken(#[source] Cause),
    /// The same request would be refused again.
    #[error("Cloudflare KV refuses the request")]
    Refused(#[source] Cause),
    /// Something in the request is refused. Halves find out which pair or key.
    #[error("Cloudflare KV refuses the request")]
    RefusedContent(#[source] Cause),
    #[error("Cloudflare KV lists the key as unsuccessful after all tries{}", in_words(*retry_after))]
    Unsuccessful { retry_after: Option<Duration>, is_refusal: bool },
    #[error("the invocation's time is up")]
    OutOfTime,
}

impl KvError {
    /// Returns whether something in the request is refused. Halves find out which pair or key.
    pub fn is_refusal(&self) -> bool {
        matches!(self, Self::RefusedContent(_) | Self::Unsuccessful { is_refusal: true, .. })
    }

    /// Returns whether a request that ended like this may have been carried out.
    pub fn may_be_done(&self) -> bool {
        use KvError::{AuthRejected, NoToken, RateLimited, Refused, RefusedContent};
        let is_refused = matches!(
            self,
            RateLimited(_) | AuthRejected(_) | NoToken(_) | Refused(_) | RefusedContent(_)
        );
        !is_refused
    }
}

impl Retryable for KvError {
    fn retry(&self) -> Option<Retry> {
        let (after_whole_back_off, asked_wait) = match self {
            Self::Transient(cause) | Self::TimedOut(cause) => (false, cause.asked_wait),
            // KV takes one write a second to a key.
            Self::RateLimited(cause) => (true, cause.asked_wait),
            Self::Unsuccessful { retry_after, .. } => (true, *retry_after),
            _ => return None,
        };
        Some(Retry { after_whole_back_off, asked_wait })
    }
}
