//! Bounds the rate of a reconcile's requests to Cloudflare.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::kv::Source;

/// Cloudflare's API takes 1,200 requests of a user in 5 minutes, and past that refuses everything
/// for 5 minutes. A reconcile takes half; the rest is the stream's.
const MAX_REQUESTS: usize = 600;
const WINDOW: Duration = Duration::from_secs(300);

/// Lets at most [`MAX_REQUESTS`] through in any [`WINDOW`].
#[derive(Default)]
pub struct RateLimiter {
    /// When the latest requests were made.
    latest: RefCell<VecDeque<Instant>>,
}

impl RateLimiter {
    /// The limiter for what is done on behalf of `source`. The stream's requests are few and never
    /// wait; re-exports are made one by one, by hand.
    pub fn of(source: Source) -> Option<Self> {
        (source == Source::Reconcile).then(Self::default)
    }

    /// When the next request may be made; counts it.
    pub fn next_turn(&self) -> Instant {
        let mut latest = self.latest.borrow_mut();
        let oldest = if latest.len() == MAX_REQUESTS { latest.pop_front() } else { None };
        let now = Instant::now();
        let turn = oldest.map_or(now, |oldest| now.max(oldest + WINDOW));
        latest.push_back(turn);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_601st_request_of_a_reconcile_within_five_minutes_waits() {
        let limiter = RateLimiter::of(Source::Reconcile).unwrap();
        let start = Instant::now();
        for request in 0..600_u64 {
            assert_eq!(limiter.next_turn(), Instant::now(), "request {request}");
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert_eq!(limiter.next_turn(), start + WINDOW);
        assert_eq!(limiter.next_turn(), start + WINDOW + Duration::from_millis(100));
        tokio::time::advance(WINDOW * 2).await;
        assert_eq!(limiter.next_turn(), Instant::now(), "after a pause nothing waits");
    }

    #[tokio::test(start_paused = true)]
    async fn no_five_minutes_hold_more_than_600_requests() {
        let limiter = RateLimiter::of(Source::Reconcile).unwrap();
        let mut turns = Vec::new();
        for request in 0..3_000_u64 {
            // Bursts with breaks between them.
            tokio::time::advance(Duration::from_secs(request % 7 / 6 * 2)).await;
            let turn = limiter.next_turn();
            tokio::time::sleep_until(turn).await;
            turns.push(turn);
        }
        for within in turns.windows(601) {
            assert!(within[600] - within[0] >= Duration::from_secs(300));
        }
    }

    #[test]
    fn the_stream_and_re_exports_are_never_paced() {
        assert!(RateLimiter::of(Source::Stream).is_none());
        assert!(RateLimiter::of(Source::ReExport).is_none());
    }
}
