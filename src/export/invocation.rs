//! One invocation: the services, the deadline, what it counts.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::future::Future;
use std::panic::Location;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;
use tracing::warn;

use super::rate_limiter::RateLimiter;
use super::receipt::Receipts;
use crate::config::ExporterConfig;
use crate::index::ItemName;
use crate::kv::{Entry, Source, Stamp};
use crate::ports::{Clock, KvStore, Namespace, Services};
use crate::telemetry::Stats;
use crate::telemetry::logging::note_call;

pub struct Invocation<'a, S> {
    pub services: &'a S,
    pub config: &'a ExporterConfig,
    /// When it began, by the wall clock.
    pub began: SystemTime,
    /// When everything has to be answered.
    pub deadline: Instant,
    /// When nothing is written any more but what settling decides.
    pub writes_until: Instant,
    /// The longest wait that a service may ask for.
    pub longest_wait: Duration,
    /// Why entries are written, as their metadata says it.
    pub source: Source,
    pub receipts: Receipts,
    stats: RefCell<Stats>,
    /// Whether anything was left out because the time is up.
    out_of_time: Cell<bool>,
    rate_limiter: Option<RateLimiter>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the invocation's time is up")]
pub struct OutOfTime;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Kv,
    ApiKeys,
    Table,
}

/// A longer wait is logged: people wonder what an invocation does meanwhile.
const SHORT_WAIT: Duration = Duration::from_secs(5);

/// Waits for a service, and says so where that takes long.
pub async fn wait_until(service: Service, end: Instant, reason: &impl Display) {
    let wait = end.saturating_duration_since(Instant::now());
    if wait > SHORT_WAIT {
        let service = match service {
            Service::Kv => "Cloudflare KV",
            Service::ApiKeys => "API keys service",
            Service::Table => "settings table",
        };
        let seconds = (wait + Duration::from_millis(500)).as_secs();
        warn!(service, seconds, %reason, "a service makes the invocation wait");
    }
    tokio::time::sleep_until(end).await;
}

impl<'a, S: Services> Invocation<'a, S> {
    pub fn new(
        services: &'a S,
        config: &'a ExporterConfig,
        deadline: Instant,
        source: Source,
    ) -> Self {
        Self {
            services,
            config,
            began: services.clock().now(),
            deadline,
            writes_until: deadline,
            longest_wait: Duration::MAX,
            source,
            receipts: Receipts::default(),
            stats: RefCell::default(),
            out_of_time: Cell::new(false),
            rate_limiter: None,
        }
    }

    #[must_use]
    pub fn writing_for(self, time: Duration) -> Self {
        Self { writes_until: self.deadline.min(Instant::now() + time), ..self }
    }

    #[must_use]
    pub fn waiting_at_most(self, longest_wait: Duration) -> Self {
        Self { longest_wait, ..self }
    }

    /// The same, making requests to Cloudflare at a rate that leaves the others theirs.
    #[must_use]
    pub fn paced(self) -> Self {
        Self { rate_limiter: Some(RateLimiter::default()), ..self }
    }

    /// Makes one call that has to answer by `until`.
    #[track_caller]
    pub fn call<T>(
        &self,
        service: Service,
        until: Instant,
        call: impl Future<Output = T>,
    ) -> impl Future<Output = Result<T, OutOfTime>> {
        note_call(Location::caller());
        async move {
            let started = Instant::now();
            if started >= until {
                return Err(self.out_of_time(until));
            }
            if let (Service::Kv, Some(rate_limiter)) = (service, &self.rate_limiter) {
                rate_limiter.count();
            }
            let answer = tokio::time::timeout_at(until, call).await;
            self.count_call(service, started.elapsed());
            answer.map_err(|_| self.out_of_time(until))
        }
    }

    /// Waits until so many requests to Cloudflare may be made, unless that is after `until`. Paced work
    /// waits here, before it reads what it is about to write or delete, so that nothing lies between the
    /// two.
    pub async fn wait_for_turn(&self, requests: usize, until: Instant) -> Result<(), OutOfTime> {
        let Some(rate_limiter) = &self.rate_limiter else { return Ok(()) };
        let turn = rate_limiter.turn(requests, self.services.kv().rate_limit());
        if turn >= until.min(self.deadline) {
            return Err(self.out_of_time(until));
        }
        tokio::time::sleep_until(turn).await;
        Ok(())
    }

    /// Whether one more request may be made without a wait.
    pub fn has_turn(&self) -> bool {
        let limit = self.services.kv().rate_limit();
        self.rate_limiter.as_ref().is_none_or(|limiter| limiter.turn(1, limit) <= Instant::now())
    }

    pub fn elapsed(&self) -> Duration {
        self.services.clock().now().duration_since(self.began).unwrap_or_default()
    }

    pub fn rate_limiter(&self) -> Option<&RateLimiter> {
        self.rate_limiter.as_ref()
    }

    pub fn is_out_of_time(&self) -> bool {
        self.out_of_time.get()
    }

    pub fn note_out_of_time(&self) {
        self.out_of_time.set(true);
    }

    /// Only the deadline ends the invocation; an earlier bound ends one caller's work.
    pub fn out_of_time(&self, until: Instant) -> OutOfTime {
        if until >= self.deadline {
            self.note_out_of_time();
        }
        OutOfTime
    }

    /// What the entries that are written now are marked with.
    pub fn stamp(&self) -> Stamp {
        let now = self.services.clock().now();
        let exported_at = humantime::format_rfc3339_millis(now).to_string();
        let environment = self.config.environment.clone();
        Stamp { exported_at, source: self.source, environment, changed_at: None }
    }

    pub fn write_receipts(&self, namespace: Namespace) {
        self.receipts.write(namespace, self.source);
    }

    pub fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.stats.borrow_mut());
    }

    /// Notes what KV has confirmed of a key of this item: its entry, or none where it is gone.
    pub fn note_confirmed(
        &self,
        namespace: Namespace,
        key: String,
        item: Option<ItemName>,
        entry: Option<&Entry>,
    ) {
        self.count(|stats| match (namespace, entry) {
            (Namespace::Settings, Some(_)) => stats.settings_written += 1,
            (Namespace::Settings, None) => stats.settings_deleted += 1,
            (Namespace::QueryConfigs, Some(_)) => stats.query_configs_written += 1,
            (Namespace::QueryConfigs, None) => stats.query_configs_deleted += 1,
        });
        if !self.config.dry_run {
            self.receipts.note(namespace, key, item, entry);
        }
    }

    /// Counts a call that repeats an earlier one. Calls to the table are left out, because the SDK repeats
    /// most of them unseen.
    pub fn count_retry(&self, service: Service) {
        self.count(|stats| match service {
            Service::Kv => stats.kv_retries += 1,
            Service::ApiKeys => stats.api_keys_retries += 1,
            Service::Table => {}
        });
    }

    fn count_call(&self, service: Service, took: Duration) {
        self.count(|stats| {
            let (requests, duration) = match service {
                Service::Kv => (&mut stats.kv_requests, &mut stats.kv_ms),
                Service::ApiKeys => (&mut stats.api_keys_requests, &mut stats.api_keys_ms),
                Service::Table => (&mut stats.table_requests, &mut stats.table_ms),
            };
            *requests += 1;
            *duration += took;
            if matches!(service, Service::Kv) && self.rate_limiter.is_none() {
                stats.kv_requests_unpaced += 1;
            }
        });
    }

    pub fn stats(&self) -> Stats {
        self.stats.borrow().clone()
    }
}
