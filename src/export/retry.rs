//! How often and after how long a request is tried again.

use std::time::Duration;

use tokio::time::Instant;

use super::invocation::{Invocation, Service, wait_until};
use crate::error_chain::Chain;
use crate::ports::{Clock, Retry, Retryable, Services};

/// Tries after the first one.
const MAX_RETRIES: u32 = 3;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retries {
    used: u32,
}

impl Retries {
    pub fn are_left(self) -> bool {
        self.used < MAX_RETRIES
    }

    /// How long to wait before the next try; `None` where there is none left.
    ///
    /// Exponential back-off from `base` with full jitter, so that functions that failed together
    /// don't come back together; at least what the service asks for.
    fn next_delay(
        &mut self,
        base: Duration,
        jitter: f64,
        retry_after: Option<Duration>,
    ) -> Option<Duration> {
        if self.used == MAX_RETRIES {
            return None;
        }
        let ceiling = base * 2_u32.pow(self.used);
        self.used += 1;
        Some(ceiling.mul_f64(jitter.clamp(0.0, 1.0)).max(retry_after.unwrap_or_default()))
    }

    /// Waits before the next try; false where there is none, no time for one before `until`, or where
    /// the service asks for a longer wait than the use case takes.
    pub async fn wait<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        service: Service,
        until: Instant,
        error: &impl Retryable,
    ) -> bool {
        let base = invocation.config.retry_base;
        let at_least = match error.retry() {
            Retry::Never => return false,
            Retry::After(asked) => asked,
            Retry::AfterWholeBackOff(asked) => asked.or(Some(base)),
        };
        if at_least > Some(invocation.longest_wait) {
            return false;
        }
        let jitter = invocation.services.clock().jitter();
        let delay = self.next_delay(base, jitter, at_least);
        let Some(delay) = delay else { return false };
        let Some(end) = Instant::now().checked_add(delay).filter(|end| *end < until) else {
            invocation.out_of_time(until);
            return false;
        };
        wait_until(service, end, &Chain(error)).await;
        invocation.count_retry(service);
        true
    }
}

/// Makes a request, again and again while its error and the tries allow it. `until` is asked anew after
/// each try.
pub async fn with_retries<S: Services, T, E: Retryable>(
    invocation: &Invocation<'_, S>,
    service: Service,
    until: impl Fn() -> Instant,
    mut attempt: impl AsyncFnMut() -> Result<T, E>,
) -> Result<T, E> {
    let mut retries = Retries::default();
    loop {
        let error = match attempt().await {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if !retries.wait(invocation, service, until(), &error).await {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn three_more_tries_with_doubling_ceilings() {
        let mut retries = Retries::default();
        let delays: Vec<_> = std::iter::from_fn(|| retries.next_delay(SECOND, 1.0, None)).collect();
        assert_eq!(delays, [SECOND, 2 * SECOND, 4 * SECOND]);
    }

    #[test]
    fn full_jitter_reaches_down_to_zero_and_retry_after_is_the_least() {
        assert_eq!(Retries::default().next_delay(SECOND, 0.0, None), Some(Duration::ZERO));
        assert_eq!(Retries::default().next_delay(SECOND, 0.5, Some(7 * SECOND)), Some(7 * SECOND));
        assert_eq!(
            Retries::default().next_delay(SECOND, 0.5, Some(Duration::from_millis(1))),
            Some(SECOND / 2)
        );
    }
}
