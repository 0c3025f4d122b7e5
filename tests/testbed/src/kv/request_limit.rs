//! Cloudflare's limit of requests, which all clients of a user or account share.

use std::time::{Duration, Instant};

use super::wire::{RATE_LIMIT, Refusal};
use crate::http::Reply;

/// So many requests in each window; past it every request is refused until the next one.
#[derive(Debug, Clone, Copy)]
pub struct RequestLimit {
    requests: u64,
    window: Duration,
    began: Instant,
    used: u64,
}

impl RequestLimit {
    pub fn new(requests: u64, window: Duration) -> Self {
        Self { requests, window, began: Instant::now(), used: 0 }
    }

    pub fn used(&mut self, requests: u64) {
        self.used += requests;
    }

    /// Counts a request. Answers with its refusal, if it is refused.
    pub fn refuse(&mut self) -> Option<Reply> {
        if self.began.elapsed() >= self.window {
            *self = Self::new(self.requests, self.window);
        }
        self.used += 1;
        if self.used <= self.requests {
            return None;
        }
        let refusal = Refusal::new(429, RATE_LIMIT, "Please wait and consider throttling");
        Some(refusal.reply().with("retry-after", &self.seconds_left().to_string()))
    }

    pub fn announce(&self, reply: Reply) -> Reply {
        let left = self.requests.saturating_sub(self.used);
        let header = format!("\"default\";r={left};t={}", self.seconds_left());
        reply.with("ratelimit", &header)
    }

    fn seconds_left(&self) -> u64 {
        let left = self.window.saturating_sub(self.began.elapsed());
        left.as_secs() + u64::from(left.subsec_nanos() > 0)
    }
}
