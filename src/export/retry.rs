//! How often and after how long a request is tried again.

use std::future::Future;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use super::invocation::{Budget, Invocation};
use crate::ports::{BackOff, Service, ServiceError, Services};

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

    /// Waits before the next try: an exponential back-off with full jitter, so that functions that failed together
    /// don't come back together, and no less than the service asks for. Returns false where no try is left, where
    /// there is no time for it, or where the service asks for a longer wait than the use case takes.
    ///
    /// Where the service asks for a longer wait than fits, it still waits as long as `writes_until` allows, and then
    /// fails: if it failed at once, Lambda would deliver the batch again at once, and the service would refuse it
    /// again.
    pub async fn wait<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        Budget { deadline, writes_until, longest_wait, .. }: Budget,
        error: &ServiceError,
    ) -> bool {
        let Some(back_off) = error.back_off() else { return false };
        let asked_wait = error.asked_wait;
        let ceiling = invocation.config.retry_base * 2_u32.pow(self.used);
        let jitter = invocation.services.jitter();
        let back_off = match back_off {
            BackOff::Jittered => ceiling.mul_f64(jitter),
            BackOff::Whole => ceiling,
        };
        let wait = back_off.max(asked_wait.unwrap_or_default());
        let [until_deadline, until_writes_end] =
            [deadline, writes_until].map(|end| end.saturating_duration_since(Instant::now()));
        let time = match asked_wait {
            None => until_deadline,
            Some(asked) if asked > longest_wait => Duration::ZERO,
            Some(_) => until_deadline.min(until_writes_end),
        };
        if !self.are_used_up() && wait < time {
            self.used += 1;
            wait_for(wait, error).await;
            invocation.count_retry(error.service);
            return true;
        }
        let does_not_fit = asked_wait.is_some_and(|asked| asked >= until_writes_end);
        if does_not_fit && writes_until < invocation.budget.deadline {
            wait_for(until_writes_end, error).await;
        }
        false
    }
}

/// The longest wait that is logged at debug. A longer one is a warning: people wonder what the invocation does.
const SHORT_WAIT: Duration = Duration::from_secs(5);

/// Waits for a service, and logs that.
async fn wait_for(wait: Duration, error: &ServiceError) {
    let service = error.service;
    if wait > SHORT_WAIT {
        let seconds = (wait + Duration::from_millis(500)).as_secs();
        warn!(%service, seconds, reason = %error, "a service makes the invocation wait");
    } else {
        debug!(%service, ?wait, reason = %error, "retry");
    }
    tokio::time::sleep(wait).await;
}

/// Makes a request, and repeats it while its error, the tries and the time before `until` allow that. Returns the
/// last result.
pub async fn with_retries<S: Services, T, F: Future<Output = Result<T, ServiceError>>>(
    invocation: &Invocation<'_, S>,
    service: Service,
    until: Instant,
    attempt: impl Fn() -> F,
) -> Result<T, ServiceError> {
    // The end of writes bounds the waits of bulk requests alone.
    let writes_until = invocation.budget.deadline;
    let budget = Budget { deadline: until, writes_until, ..invocation.budget };
    let mut retries = Retries::default();
    loop {
        match invocation.call(service, until, attempt()).await {
            Err(error) if retries.wait(invocation, budget, &error).await => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::{Fakes, TIME_LEFT, kv_error};
    use crate::kv::Source;
    use crate::ports::ErrorKind;

    #[tokio::test(start_paused = true)]
    async fn when_a_request_is_tried_again() {
        let error = |kind, seconds: Option<u64>| {
            let asked_wait = seconds.map(Duration::from_secs);
            ServiceError { asked_wait, ..kv_error(kind) }
        };
        let transient = |asked| error(ErrorKind::Transient, asked);
        let limited = |asked| error(ErrorKind::RateLimited, asked);
        let all = TIME_LEFT.as_millis() as u64;
        // The error, and the seconds that it asks to wait; the times until the deadline and the end of writes; the
        // waits before each other try, and the one before the request fails. Times are in milliseconds.
        let rows: [(_, ServiceError, [u64; 2], &[u64], u64); 14] = [
            ("a part of each ceiling", transient(None), [all, all], &[500, 1_000, 2_000], 0),
            ("whole ceilings", limited(None), [all, all], &[1_000, 2_000, 4_000], 0),
            ("a longer wait", transient(Some(7)), [all, all], &[7_000; 3], 0),
            ("a shorter wait", limited(Some(3)), [all, all], &[3_000, 3_000, 4_000], 0),
            ("the longest wait", transient(Some(20)), [all, all], &[20_000; 3], 0),
            ("too long a wait", transient(Some(21)), [all, all], &[], 0),
            ("a wait without an end", transient(Some(u64::MAX)), [all, all], &[], 0),
            ("never", error(ErrorKind::Refused, None), [all, all], &[], 0),
            ("a back-off that ends too late", limited(None), [1_000, all], &[], 0),
            ("a back-off that ends in time", limited(None), [1_001, all], &[1_000], 0),
            ("a back-off after writes end", limited(None), [all, 0], &[1_000, 2_000, 4_000], 0),
            ("a wait that fits", transient(Some(7)), [all, 10_000], &[7_000], 3_000),
            ("a wait that does not fit", transient(Some(7)), [all, 7_000], &[], 7_000),
            ("a wait up to the deadline", transient(Some(300)), [all, all], &[], 0),
        ];
        for (name, error, times, waits, last_wait) in rows {
            let (fakes, start) = (Fakes::new(), Instant::now());
            let invocation = fakes.invocation(Source::Stream);
            let [deadline, writes_until] = times.map(|time| start + Duration::from_millis(time));
            let longest_wait = Duration::from_secs(20);
            let budget = Budget { deadline, writes_until, longest_wait, ..invocation.budget };
            let (mut retries, mut told, mut before) = (Retries::default(), Vec::new(), start);
            while retries.wait(&invocation, budget, &error).await {
                told.push(before.elapsed().as_millis() as u64);
                before = Instant::now();
            }
            assert_eq!(told, waits, "{name}");
            assert_eq!(before.elapsed(), Duration::from_millis(last_wait), "{name}");
            assert_eq!(invocation.stats().kv_retries, waits.len() as u64, "{name}");
        }
    }
}
