//! KV's two limits of rate: a write a second to each key, and requests in a window of time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use super::wire::{RATE_LIMIT, Refusal};
use crate::http::Reply;

/// How often one key may be written.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// How a write is refused whose key was written within the last second. The documentation has a 429 for
/// the key, and a list of keys to be sent again in the replies to bulk requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RapidWrites {
    /// Only the key is refused, with this status: it is one of `unsuccessful_keys`.
    RefusedByKey {
        /// 429 or 200.
        status: u16,
        /// Whether the reply carries `Retry-After`.
        retry_after: bool,
    },
    RefusedWhole {
        /// Whether the reply carries `Retry-After`.
        retry_after: bool,
    },
    Allowed,
}

/// When keys were written, for a second.
#[derive(Default)]
pub struct Written(BTreeMap<String, SystemTime>);

impl Written {
    /// Whether a key was written within the last second.
    pub fn is_recent(&self, key: &str, now: SystemTime) -> bool {
        self.0.get(key).is_some_and(|at| is_recent(*at, now))
    }

    pub fn note<'a>(&mut self, keys: impl Iterator<Item = &'a String>, now: SystemTime) {
        self.0.retain(|_, at| is_recent(*at, now));
        self.0.extend(keys.map(|key| (key.clone(), now)));
    }
}

fn is_recent(at: SystemTime, now: SystemTime) -> bool {
    now.duration_since(at).unwrap_or_default() < WRITE_INTERVAL
}

/// A number of requests in each window; past it every request is refused until the next one.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimit {
    requests: u64,
    window: Duration,
    began: Instant,
    pub used: u64,
}

impl RequestLimit {
    pub fn new(requests: u64, window: Duration) -> Self {
        Self { requests, window, began: Instant::now(), used: 0 }
    }

    /// Counts a request. Returns its refusal, if it is refused.
    pub fn refuse(&mut self) -> Option<Reply> {
        if self.began.elapsed() >= self.window {
            *self = Self::new(self.requests, self.window);
        }
        self.used += 1;
        if self.used <= self.requests {
            return None;
        }
        let left = self.window.saturating_sub(self.began.elapsed()).as_secs_f64().ceil();
        let refusal = Refusal::new(429, RATE_LIMIT, "Please wait and consider throttling");
        Some(refusal.reply().with("retry-after", &left.to_string()))
    }
}
