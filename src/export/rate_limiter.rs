//! Bounds the rate of a reconcile's requests to Cloudflare, so that the stream's writes are never
//! refused for it.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::ports::RateLimit;

/// Cloudflare's API takes 1,200 requests of a user in 5 minutes, and past that refuses everything
/// for 5 minutes. Half of them is for whoever can't wait: the stream, re-exports, other stacks.
const RESERVED_REQUESTS: u64 = 600;
/// What a reconcile makes at most in a [`WINDOW`] where Cloudflare does not say what is left.
const MAX_REQUESTS: usize = 600;
const WINDOW: Duration = Duration::from_secs(300);

#[derive(Default)]
pub struct RateLimiter {
    /// When the requests of the last [`WINDOW`] were made.
    made: RefCell<VecDeque<Instant>>,
}

impl RateLimiter {
    pub fn count(&self) {
        self.count_earlier(1, Duration::ZERO);
    }

    /// Counts requests that an earlier run of the chain made, the last of them `ago`.
    pub fn count_earlier(&self, requests: usize, ago: Duration) {
        let Some(at) = Instant::now().checked_sub(ago) else { return };
        let mut made = self.made.borrow_mut();
        made.extend(std::iter::repeat_n(at, requests.min(MAX_REQUESTS)));
    }

    /// How many requests were made in the last [`WINDOW`].
    pub fn recent(&self) -> usize {
        let mut made = self.made.borrow_mut();
        while made.front().is_some_and(|at| at.elapsed() >= WINDOW) {
            made.pop_front();
        }
        made.len()
    }

    /// When the next `requests` may be made, by what Cloudflare last said is left.
    pub fn turn(&self, requests: usize, limit: Option<RateLimit>) -> Instant {
        let now = Instant::now();
        let Some(limit) = limit else { return self.turn_by_count(requests, now) };
        let after_them = limit.left.saturating_sub(u64::try_from(requests).unwrap_or(u64::MAX));
        // The last of them is made while `RESERVED_REQUESTS` are left. What is left after a reset is known
        // from the first answer.
        if after_them + 1 >= RESERVED_REQUESTS { now } else { limit.resets_at.max(now) }
    }

    fn turn_by_count(&self, requests: usize, now: Instant) -> Instant {
        let requests = requests.min(MAX_REQUESTS);
        let too_many = (self.recent() + requests).saturating_sub(MAX_REQUESTS);
        let made = self.made.borrow();
        match too_many.checked_sub(1).and_then(|last| made.get(last)) {
            Some(at) => *at + WINDOW,
            None => now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_601st_request_within_five_minutes_waits_where_cloudflare_says_nothing() {
        let limiter = RateLimiter::default();
        let start = Instant::now();
        for request in 0..600_u64 {
            assert_eq!(limiter.turn(1, None), Instant::now(), "request {request}");
            limiter.count();
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert_eq!(limiter.turn(1, None), start + WINDOW);
        assert_eq!(limiter.turn(2, None), start + WINDOW + Duration::from_millis(100));
        tokio::time::advance(WINDOW * 2).await;
        assert_eq!(limiter.turn(600, None), Instant::now(), "after a pause nothing waits");
    }

    #[tokio::test(start_paused = true)]
    async fn no_five_minutes_hold_more_than_600_requests() {
        let limiter = RateLimiter::default();
        let mut made = Vec::new();
        for request in 0..3_000_u64 {
            // Bursts with breaks between them.
            tokio::time::advance(Duration::from_secs(request % 7 / 6 * 2)).await;
            tokio::time::sleep_until(limiter.turn(1, None)).await;
            limiter.count();
            made.push(Instant::now());
        }
        for within in made.windows(601) {
            assert!(within[600] - within[0] >= Duration::from_secs(300));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_requests_of_the_run_before_count() {
        let limiter = RateLimiter::default();
        let ago = Duration::from_secs(100);
        tokio::time::advance(ago).await;
        limiter.count_earlier(600, ago);
        assert_eq!(limiter.turn(1, None), Instant::now() + WINDOW - ago);
    }

    #[tokio::test(start_paused = true)]
    async fn where_cloudflare_says_what_is_left_600_stay_for_the_others_until_the_reset() {
        let limiter = RateLimiter::default();
        let now = Instant::now();
        let reset = now + Duration::from_secs(30);
        let turn =
            |requests, left| limiter.turn(requests, Some(RateLimit { left, resets_at: reset }));
        assert_eq!((turn(1, 600), turn(1, 599)), (now, reset));
        assert_eq!((turn(10, 609), turn(10, 608)), (now, reset));
        assert_eq!(turn(1, 0), reset);
        limiter.count_earlier(600, Duration::ZERO);
        assert_eq!(turn(1, 1_000), now, "other requests than these count too");
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(turn(1, 0), Instant::now(), "after the reset");
    }
}
