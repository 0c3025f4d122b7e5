//! Cloudflare KV's bulk API.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::{Cause, Retry, Retryable, asked_wait};
use crate::kv::{Metadata, Namespace, Pair, StoredValue};

#[expect(async_fn_in_trait, reason = "the function runs on one thread: no future needs Send")]
pub trait KvStore {
    /// Writes up to 10,000 pairs of distinct keys.
    async fn put(&self, namespace: Namespace, pairs: &[Pair]) -> Result<BulkReply, KvError>;
    /// Deletes up to 10,000 keys; those that aren't there succeed.
    async fn delete(&self, namespace: Namespace, keys: &[String]) -> Result<BulkReply, KvError>;
    /// Reads up to 100 keys with their metadata; those that aren't there are absent.
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
    /// By the latest answer; `None` where it does not say.
    fn rate_limit(&self) -> Option<RateLimit>;
}

/// What is left of the API's limit of requests, which all of a user's or account's clients share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    pub left: u64,
    /// When all of them are there again.
    pub resets_at: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BulkReply {
    /// Keys that have to be sent again; they may be partly done.
    pub unsuccessful: BTreeSet<String>,
    pub retry_after: Option<Duration>,
}

#[derive(Debug, Clone, Default)]
pub struct ListPage {
    /// Names in ascending order, each with its metadata where that is ours.
    pub keys: Vec<(String, Option<Metadata>)>,
    /// Where to go on; `None` at the end.
    pub cursor: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// Trying the same again may help.
    #[error("Cloudflare KV")]
    Transient(#[source] Cause),
    /// 429: too many requests, or writes to a key.
    #[error("Cloudflare KV")]
    RateLimited(#[source] Cause),
    /// Too much at once: a time-out or 524. Halves may get through.
    #[error("Cloudflare KV")]
    TooMuch(#[source] Cause),
    /// 401 or 403, also after the token was read again.
    #[error(
        "CloudflareAuthRejected: Cloudflare refuses the API token; check the secret and that the token may edit Workers KV Storage of this account"
    )]
    AuthRejected(#[source] Cause),
    #[error("Cloudflare API token")]
    NoToken(#[source] Cause),
    /// The token was refused or there was none any more, and an earlier try may have been done.
    #[error("an earlier try may have been done; the last one failed")]
    AfterLostTry(#[source] Box<Self>),
    /// The request is refused; the same again would be too.
    #[error("Cloudflare KV refuses the request")]
    Refused(#[source] Cause),
    /// Something in the request is refused: halves find out which pair or key that is.
    #[error("Cloudflare KV refuses the request")]
    RefusedContent(#[source] Cause),
    #[error("Cloudflare KV lists the key as unsuccessful after all tries{}", asked_wait(*retry_after))]
    Unsuccessful { retry_after: Option<Duration> },
    #[error("the invocation's time is up")]
    OutOfTime,
    /// The time was up before the request was sent: nothing was done.
    #[error("the invocation's time was up before the request was sent")]
    NotSent,
}

impl Retryable for KvError {
    fn retry(&self) -> Retry {
        match self {
            Self::Transient(cause) | Self::TooMuch(cause) => Retry::After(cause.asked_wait),
            // KV takes one write a second to a key: a put-back may come too soon after its delete.
            Self::RateLimited(Cause { asked_wait: wait, .. })
            | Self::Unsuccessful { retry_after: wait } => Retry::AfterWholeBackOff(*wait),
            Self::AuthRejected(_)
            | Self::NoToken(_)
            | Self::AfterLostTry(_)
            | Self::Refused(_)
            | Self::RefusedContent(_)
            | Self::OutOfTime
            | Self::NotSent => Retry::Never,
        }
    }
}

impl KvError {
    /// Whether the request certainly changed nothing: its token was refused, there was none, or it was
    /// never sent.
    pub fn changed_nothing(&self) -> bool {
        self.concerns_every_request() || matches!(self, Self::NotSent)
    }

    /// The error of a request that is refused for what it holds, but not for one pair or key alone.
    pub fn of_several(self) -> Self {
        if let Self::RefusedContent(cause) = self { Self::Refused(cause) } else { self }
    }

    /// The error of a request that was tried before, with an answer that said nothing for certain.
    pub fn after_lost_try(self) -> Self {
        if self.changed_nothing() { Self::AfterLostTry(Box::new(self)) } else { self }
    }

    /// Cloudflare's refusal of the token, if that is the cause.
    pub fn auth_rejected(&self) -> Option<&Self> {
        match self {
            Self::AuthRejected(_) => Some(self),
            Self::AfterLostTry(error) => error.auth_rejected(),
            _ => None,
        }
    }

    /// Whether every other request would fail likewise: each would read the token again.
    pub fn concerns_every_request(&self) -> bool {
        matches!(self, Self::AuthRejected(_) | Self::NoToken(_))
    }
}
