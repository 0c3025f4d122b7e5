//! How often and after how long a request is tried again.

use std::fmt::Display;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::invocation::{Budget, Invocation, Service};
use crate::error_chain::Chain;
use crate::ports::{Retry, Retryable, Services};

/// Tries after the first one.
const MAX_RETRIES: u32 = 3;

#[derive(Debug, Clone, Copy, Default)]
pub struct Retries {
    used: u32,
}

impl Retries {
    pub fn are_used_up(self) -> bool {
        self.used == MAX_RETRIES
    }

    /// Returns when to try again: after an exponential back-off with full jitter, so that functions that failed
    /// together don't come back together, and no earlier than the service asks for. Returns `None` where no
    /// try is left, or where the service asks for a longer wait than the use case takes.
    fn next<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        longest_wait: Duration,
        error: &impl Retryable,
    ) -> Option<Instant> {
        let is_whole = match error.retry() {
            Retry::Never => return None,
            Retry::After(_) => false,
            Retry::AfterWholeBackOff(_) => true,
        };
        let asked = error.retry().asked_wait().unwrap_or_default();
        if self.are_used_up() || asked > longest_wait {
            return None;
        }
        let ceiling = invocation.config.retry_base * 2_u32.pow(self.used);
        self.used += 1;
        let jitter = invocation.services.jitter().clamp(0.0, 1.0);
        let back_off = if is_whole { ceiling } else { ceiling.mul_f64(jitter) };
        Instant::now().checked_add(back_off.max(asked))
    }

    /// Waits before the next try. Returns false where there is none, or no time for it. Where the service asks for
    /// a longer wait than fits, it still waits as long as `writes_until` allows, and then fails: if it failed at
    /// once, Lambda would deliver the batch again at once, and the service would refuse it again.
    pub async fn wait<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        service: Service,
        Budget { deadline, writes_until, longest_wait, .. }: Budget,
        error: &impl Retryable,
    ) -> bool {
        let asked = error.retry().asked_wait();
        let until = if asked.is_some() { deadline.min(writes_until) } else { deadline };
        if let Some(end) = self.next(invocation, longest_wait, error).filter(|end| *end < until) {
            wait_until(service, end, &Chain(error)).await;
            invocation.count_retry(service);
            return true;
        }
        let does_not_fit = asked.is_some_and(|wait| Instant::now() + wait >= writes_until);
        if does_not_fit && writes_until < invocation.budget.deadline {
            wait_until(service, writes_until, &Chain(error)).await;
        }
        false
    }
}

/// The longest wait that is logged at debug. A longer one is a warning: people wonder what the invocation does.
const SHORT_WAIT: Duration = Duration::from_secs(5);

/// Waits for a service, and logs that.
async fn wait_until(service: Service, end: Instant, reason: &impl Display) {
    let wait = end.saturating_duration_since(Instant::now());
    let service = match service {
        Service::Kv => "Cloudflare KV",
        Service::ApiKeys => "API keys service",
        Service::Table => "settings table",
    };
    if wait > SHORT_WAIT {
        let seconds = (wait + Duration::from_millis(500)).as_secs();
        warn!(service, seconds, %reason, "a service makes the invocation wait");
    } else {
        debug!(service, ?wait, %reason, "retry");
    }
    tokio::time::sleep_until(end).await;
}

/// Makes a request, and repeats it while its error, the tries and the time before `until` allow that. Returns the
/// last result.
pub async fn with_retries<S: Services, T, E: Retryable>(
    invocation: &Invocation<'_, S>,
    service: Service,
    until: Instant,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, E> {
    // Only bulk requests wait no longer than writes may take.
    let writes_until = invocation.budget.deadline;
    let budget = Budget { deadline: until, writes_until, ..invocation.budget };
    let mut retries = Retries::default();
    loop {
        let error = match attempt().await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        if !retries.wait(invocation, service, budget, &error).await {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::Fakes;
    use crate::kv::Source;
    use crate::ports::{Cause, KvError};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn when_a_request_is_tried_again() {
        let start = Instant::now();
        let transient = |wait| KvError::Transient(Cause { asked_wait: wait, ..Cause::new("x") });
        let limited = |wait| KvError::RateLimited(Cause { asked_wait: wait, ..Cause::new("x") });
        let [half, one, two, three, four] = [1, 2, 4, 6, 8].map(|halves| halves * SECOND / 2);
        let rows: [(_, KvError, &[Duration]); 7] = [
            ("a part of each ceiling", transient(None), &[half, one, two]),
            ("whole ceilings", limited(None), &[one, two, four]),
            ("a longer wait is asked for", transient(Some(7 * SECOND)), &[7 * SECOND; 3]),
            ("a shorter wait is asked for", limited(Some(three)), &[three, three, four]),
            ("a wait that is too long", transient(Some(21 * SECOND)), &[]),
            ("a wait without an end", transient(Some(Duration::MAX)), &[]),
            ("never", KvError::Refused(Cause::new("x")), &[]),
        ];
        let fakes = Fakes::new();
        let invocation = fakes.invocation(Source::ReExport);
        for (name, error, expected) in rows {
            let mut retries = Retries::default();
            let mut next = || retries.next(&invocation, 20 * SECOND, &error);
            let waits = std::iter::from_fn(|| Some(next()? - start));
            assert_eq!(waits.collect::<Vec<_>>(), expected, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_ends_too_late_is_not_begun() {
        let fakes = Fakes::new();
        let invocation = fakes.invocation(Source::Stream);
        let (start, error) = (Instant::now(), KvError::RateLimited(Cause::new("scripted")));
        for (time, waits) in [(SECOND, false), (SECOND * 3 / 2, true)] {
            let mut retries = Retries::default();
            let budget = Budget::until(start + time);
            let waited = retries.wait(&invocation, Service::Kv, budget, &error).await;
            assert_eq!((waited, start.elapsed() == SECOND), (waits, waits));
        }
        assert_eq!(invocation.stats().kv_retries, 1);
    }
}
