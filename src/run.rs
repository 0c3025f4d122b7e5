//! One invocation: the services, the deadline, what it counts.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use aws_sdk_dynamodb::primitives::{DateTime, DateTimeFormat};
use tokio::time::Instant;

use crate::entry::Source;
use crate::ports::{Namespace, Services, World};
use crate::tally::{CallSpan, KeyCounts, MAX_SPANS, ServiceCalls, Tally};

/// What the core needs to know of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// The cell of records that name none.
    pub default_cell: Option<String>,
    /// The most pairs in one bulk request, 1 to 10,000.
    pub bulk_max_pairs: usize,
    /// How long one HTTP request may take.
    pub http_timeout: Duration,
    /// The first back-off.
    pub retry_base: Duration,
    /// Whether Cloudflare is left alone.
    pub dry_run: bool,
}

/// One invocation.
pub struct Run<'a, S> {
    /// The services.
    pub services: &'a S,
    /// The configuration.
    pub limits: &'a Limits,
    /// When everything has to be answered.
    pub deadline: Instant,
    /// What KV entries are marked with.
    pub source: Source,
    tally: RefCell<Tally>,
    /// Whether anything was left out because the time is up.
    out_of_time: Cell<bool>,
    pace: Option<Pace>,
}

/// Bounds the rate of requests to Cloudflare.
#[derive(Default)]
struct Pace {
    /// When the latest ones were made.
    latest: RefCell<VecDeque<Instant>>,
}

/// Cloudflare's API takes 1,200 requests in 5 minutes of a token, and refuses everything for 5
/// minutes past that. Paced work takes half, the rest is the stream's.
const PACED_REQUESTS: usize = 600;
const PACED_WINDOW: Duration = Duration::from_secs(300);

/// The invocation's time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the invocation's time is up")]
pub struct OutOfTime;

/// Which service a call goes to, for the counts.
#[derive(Debug, Clone, Copy)]
pub enum Service {
    /// Cloudflare KV.
    Kv,
    /// The API keys service.
    ApiKeys,
    /// The settings table.
    Table,
}

impl Service {
    fn name(self) -> &'static str {
        match self {
            Self::Kv => "Cloudflare KV",
            Self::ApiKeys => "API keys service",
            Self::Table => "Settings table",
        }
    }
}

impl<'a, S: Services> Run<'a, S> {
    /// An invocation that has to answer by `deadline`.
    pub fn new(services: &'a S, limits: &'a Limits, deadline: Instant, source: Source) -> Self {
        Self {
            services,
            limits,
            deadline,
            source,
            tally: RefCell::default(),
            out_of_time: Cell::new(false),
            pace: Pace::of(source),
        }
    }

    /// Makes one call, unless the time is up before it answers.
    pub async fn call<T>(
        &self,
        service: Service,
        call: impl Future<Output = T>,
    ) -> Result<T, OutOfTime> {
        self.call_until(service, self.deadline, call).await
    }

    /// Makes one call that has to answer by `until`.
    pub async fn call_until<T>(
        &self,
        service: Service,
        until: Instant,
        call: impl Future<Output = T>,
    ) -> Result<T, OutOfTime> {
        if let (Service::Kv, Some(pace)) = (service, &self.pace) {
            let turn = pace.next_turn();
            if turn >= self.deadline {
                return Err(self.out_of_time(self.deadline));
            }
            tokio::time::sleep_until(turn).await;
        }
        if Instant::now() >= until {
            return Err(self.out_of_time(until));
        }
        let started = Instant::now();
        let started_at = self.services.world().now();
        let answer = tokio::time::timeout_at(until, call).await;
        let duration = started.elapsed();
        self.count_call(service, |calls| {
            calls.requests += 1;
            calls.duration += duration;
        });
        self.count(|tally| {
            if tally.spans.len() < MAX_SPANS {
                tally.spans.push(CallSpan {
                    service: service.name(),
                    started: started_at,
                    duration,
                    answered: answer.is_ok(),
                });
            }
        });
        answer.map_err(|_| self.out_of_time(until))
    }

    /// Waits before a further try, unless the time is up before that.
    pub async fn pause(
        &self,
        service: Service,
        delay: Duration,
        until: Instant,
    ) -> Result<(), OutOfTime> {
        let end = Instant::now() + delay;
        if end >= until {
            return Err(self.out_of_time(until));
        }
        self.count_call(service, |calls| calls.retries += 1);
        tokio::time::sleep_until(end).await;
        Ok(())
    }

    /// Whether anything was left out because the invocation's time is up.
    pub fn is_out_of_time(&self) -> bool {
        self.out_of_time.get()
    }

    /// Bounds before the deadline are the caller's own, and no end of the invocation.
    fn out_of_time(&self, until: Instant) -> OutOfTime {
        if until >= self.deadline {
            self.out_of_time.set(true);
        }
        OutOfTime
    }

    /// The wall clock's time as RFC 3339, UTC, to the millisecond.
    pub fn exported_at(&self) -> String {
        let since_epoch =
            self.services.world().now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let millis = i64::try_from(since_epoch.as_millis()).unwrap_or_default();
        let text = DateTime::from_millis(millis).fmt(DateTimeFormat::DateTime).unwrap_or_default();
        with_millis(text)
    }

    /// Changes the counts.
    pub fn count(&self, change: impl FnOnce(&mut Tally)) {
        change(&mut self.tally.borrow_mut());
    }

    /// Changes the counts of a namespace's keys.
    pub fn count_keys(&self, namespace: Namespace, change: impl FnOnce(&mut KeyCounts)) {
        self.count(|tally| {
            change(match namespace {
                Namespace::Settings => &mut tally.settings,
                Namespace::QueryConfigs => &mut tally.query_configs,
            });
        });
    }

    /// The counts so far.
    pub fn tally(&self) -> Tally {
        self.tally.borrow().clone()
    }

    fn count_call(&self, service: Service, change: impl FnOnce(&mut ServiceCalls)) {
        self.count(|tally| {
            change(match service {
                Service::Kv => &mut tally.calls.kv,
                Service::ApiKeys => &mut tally.calls.api_keys,
                Service::Table => &mut tally.calls.table,
            });
        });
    }
}

impl Pace {
    /// The stream's requests are few and never wait; re-exports are made one by one, by hand.
    fn of(source: Source) -> Option<Self> {
        (source == Source::Reconcile).then(Self::default)
    }

    /// When the next request may be made; counts it.
    fn next_turn(&self) -> Instant {
        let mut latest = self.latest.borrow_mut();
        let oldest = if latest.len() == PACED_REQUESTS { latest.pop_front() } else { None };
        let now = Instant::now();
        let turn = oldest.map_or(now, |oldest| now.max(oldest + PACED_WINDOW));
        latest.push_back(turn);
        turn
    }
}

/// Gives every time the same length: the formatter leaves out milliseconds that are zero.
fn with_millis(text: String) -> String {
    let Some(seconds) = text.strip_suffix('Z') else { return text };
    let (seconds, fraction) = seconds.split_once('.').unwrap_or((seconds, ""));
    format!("{seconds}.{fraction:0<3}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_601st_request_of_a_reconcile_within_five_minutes_waits() {
        let pace = Pace::of(Source::Reconcile).unwrap();
        let start = Instant::now();
        for request in 0..600_u64 {
            assert_eq!(pace.next_turn(), Instant::now(), "request {request}");
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        assert_eq!(pace.next_turn(), start + PACED_WINDOW);
        assert_eq!(pace.next_turn(), start + PACED_WINDOW + Duration::from_millis(100));
        tokio::time::advance(PACED_WINDOW * 2).await;
        assert_eq!(pace.next_turn(), Instant::now(), "after a pause nothing waits");
    }

    #[tokio::test(start_paused = true)]
    async fn no_five_minutes_hold_more_than_600_requests() {
        let pace = Pace::of(Source::Reconcile).unwrap();
        let mut turns = Vec::new();
        for request in 0..3_000_u64 {
            // Bursts with breaks between them.
            tokio::time::advance(Duration::from_secs(request % 7 / 6 * 2)).await;
            let turn = pace.next_turn();
            tokio::time::sleep_until(turn).await;
            turns.push(turn);
        }
        for within in turns.windows(601) {
            assert!(within[600] - within[0] >= Duration::from_secs(300));
        }
    }

    #[test]
    fn the_stream_and_re_exports_are_never_paced() {
        assert!(Pace::of(Source::Stream).is_none());
        assert!(Pace::of(Source::ReExport).is_none());
    }

    #[test]
    fn times_are_of_one_length() {
        assert_eq!(with_millis("2026-11-21T10:00:00Z".into()), "2026-11-21T10:00:00.000Z");
        assert_eq!(with_millis("2026-11-21T10:00:00.1Z".into()), "2026-11-21T10:00:00.100Z");
        assert_eq!(with_millis("2026-11-21T10:00:00.123Z".into()), "2026-11-21T10:00:00.123Z");
    }
}
