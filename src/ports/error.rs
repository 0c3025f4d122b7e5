//! Why a request to a service failed, and what that means for the next try.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Kv,
    ApiKeys,
    Table,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kv => "Cloudflare KV",
            Self::ApiKeys => "API keys service",
            Self::Table => "settings table",
        })
    }
}

/// A request that failed. Parts of it may have been carried out all the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{service}: {reason}{}", in_words(*asked_wait))]
pub struct ServiceError {
    pub service: Service,
    pub kind: ErrorKind,
    /// In words, without anything secret.
    pub reason: Arc<str>,
    /// The shortest wait that the service asks for.
    pub asked_wait: Option<Duration>,
}

/// Returns the end of an error's sentence.
fn in_words(wait: Option<Duration>) -> String {
    wait.map(|wait| format!("; it asks to wait {} s", wait.as_secs())).unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorKind {
    /// The same request may succeed: there was no connection, a 5xx, or a response that can't be read.
    Transient,
    /// A time-out or 524. KV may take halves of the request.
    TimedOut,
    /// Too many requests, or writes to a key.
    RateLimited,
    /// The API keys service responds 200 without a usable key.
    Unusable,
    /// KV lists the key as unsuccessful.
    Unsuccessful {
        /// Whether the request was refused, and not only some storage failed.
        is_refusal: bool,
    },
    /// The same request would fail again, whatever is in it.
    Refused,
    /// Cloudflare refuses something in the request. Halves find out which pair or key.
    RefusedContent,
    /// 401 or 403, also after the token was read again.
    AuthRejected,
    /// There is no token for the request.
    NoToken,
    /// The API keys service says that the account has none.
    NotFound,
    /// With these names, there is no URL to ask.
    NoUrl,
    /// The time for the request is up.
    OutOfTime {
        /// Whether it was begun before, so that it may have been carried out.
        is_sent: bool,
    },
}

/// How long to wait before the same request is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackOff {
    /// A random part of the back-off.
    Jittered,
    /// All of it: KV takes one write a second to a key.
    Whole,
}

impl ServiceError {
    pub fn new(service: Service, kind: ErrorKind, reason: impl Into<Arc<str>>) -> Self {
        Self { service, kind, reason: reason.into(), asked_wait: None }
    }

    pub fn out_of_time(service: Service, is_sent: bool) -> Self {
        Self::new(service, ErrorKind::OutOfTime { is_sent }, "no response in time")
    }

    /// Returns `None` if the same request would fail again.
    pub fn back_off(&self) -> Option<BackOff> {
        match self.kind {
            ErrorKind::Transient | ErrorKind::TimedOut => Some(BackOff::Jittered),
            ErrorKind::RateLimited | ErrorKind::Unusable | ErrorKind::Unsuccessful { .. } => {
                Some(BackOff::Whole)
            }
            _ => None,
        }
    }

    /// Returns whether Cloudflare refuses something in the request, and not the request as such.
    pub fn is_refusal(&self) -> bool {
        let refusal_of_a_key = ErrorKind::Unsuccessful { is_refusal: true };
        self.kind == ErrorKind::RefusedContent || self.kind == refusal_of_a_key
    }

    /// Returns the error without the claim that this very key is refused.
    pub fn without_fault(mut self) -> Self {
        self.kind = match self.kind {
            ErrorKind::RefusedContent => ErrorKind::Refused,
            ErrorKind::Unsuccessful { .. } => ErrorKind::Unsuccessful { is_refusal: false },
            kind => kind,
        };
        self
    }

    /// Returns whether the request may have been carried out.
    pub fn may_be_done(&self) -> bool {
        match self.kind {
            ErrorKind::OutOfTime { is_sent } => is_sent,
            ErrorKind::Transient | ErrorKind::TimedOut | ErrorKind::Unsuccessful { .. } => true,
            _ => false,
        }
    }
}
