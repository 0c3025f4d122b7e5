//! Cloudflare's limit of requests: 1,200 in windows of five minutes, whoever makes them.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::time::Duration;

use ecom_settings_exporter::ports::{Cause, KvError, RateLimit};
use tokio::time::Instant;

/// Requests in a window.
pub const REQUESTS: u64 = 1_200;
const WINDOW: Duration = Duration::from_secs(300);

/// The limit that all clients of one user share.
pub struct Limit {
    began: Instant,
    window: Cell<u64>,
    used: Cell<u64>,
    /// Requests past the limit, by who made them.
    pub refused: RefCell<BTreeMap<&'static str, u64>>,
    /// The most requests that any window has seen.
    pub most: Cell<u64>,
}

impl Limit {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            window: Cell::new(0),
            used: Cell::new(0),
            refused: RefCell::default(),
            most: Cell::new(0),
        }
    }

    /// Takes a request of `who`, or refuses it.
    pub fn take(&self, who: &'static str) -> Result<RateLimit, KvError> {
        let window = self.began.elapsed().as_secs() / WINDOW.as_secs();
        if window != self.window.replace(window) {
            self.used.set(0);
        }
        let used = self.used.get() + 1;
        self.used.set(used);
        self.most.set(self.most.get().max(used));
        let end = Duration::from_secs((window + 1) * WINDOW.as_secs());
        let until_reset = end.saturating_sub(self.began.elapsed());
        let Some(left) = REQUESTS.checked_sub(used) else {
            *self.refused.borrow_mut().entry(who).or_default() += 1;
            let cause = Cause::new("the limit of requests is used up");
            return Err(KvError::Transient(Cause { asked_wait: Some(until_reset), ..cause }));
        };
        // The header has whole seconds.
        let whole = Duration::from_secs(until_reset.as_millis().div_ceil(1_000) as u64);
        Ok(RateLimit { left, resets_at: Instant::now() + whole })
    }

    /// Uses up requests as somebody else's dashboard would.
    pub fn use_up(&self, requests: u64) {
        self.used.set(self.used.get() + requests);
    }
}
