//! One invocation: the services, its budget, what it counts.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::time::{Duration, SystemTime};

use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;

use crate::config::ExporterConfig;
use crate::index::IndexRef;
use crate::kv::{Metadata, Source};
use crate::ports::{Service, ServiceError, Services};
use crate::telemetry::Stats;

pub struct Invocation<'a, S> {
    pub services: &'a S,
    pub config: &'a ExporterConfig,
    /// When it began, by the wall clock.
    pub began: SystemTime,
    pub budget: Budget,
    /// Why entries are written, as their metadata says it.
    pub source: Source,
    stats: RefCell<Stats>,
    /// When a reconcile may make its next request to Cloudflare.
    next_turn: Cell<Instant>,
}

/// How long an invocation and its parts may take. A request may have a budget of its own.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// When everything has to be answered. A request that has not succeeded then has failed.
    pub deadline: Instant,
    /// When a batch's writes end: an item that KV has not confirmed then has failed. All other requests may take until
    /// the deadline, but after this time they grant no `Retry-After`: a batch that is refused for minutes answers each
    /// minute.
    pub writes_until: Instant,
    /// The longest wait that a service may ask for.
    pub longest_wait: Duration,
    /// How long API keys are asked for, in all.
    pub api_keys: Duration,
    /// How long the first read of the items may take.
    pub first_read: Duration,
}

impl Budget {
    /// Returns a budget that only the deadline bounds.
    pub fn until(deadline: Instant) -> Self {
        let all = Duration::MAX;
        Self { deadline, writes_until: deadline, longest_wait: all, api_keys: all, first_read: all }
    }
}

/// Requests to Cloudflare that a reconcile makes without a pace.
const REQUESTS_AT_ONCE: u64 = 100;
/// The time between the requests after them. Cloudflare takes 1,200 requests of a user in five minutes: half of
/// them stay for changes.
const PACE: Duration = Duration::from_millis(500);
const _: () = assert!(300_000 / PACE.as_millis() == 600);

impl<'a, S: Services> Invocation<'a, S> {
    pub fn new(
        services: &'a S,
        config: &'a ExporterConfig,
        budget: Budget,
        source: Source,
    ) -> Self {
        let began = services.now();
        let next_turn = Cell::new(Instant::now());
        Self { services, config, began, budget, source, stats: RefCell::default(), next_turn }
    }

    /// Makes one call that has to end by `until`, and returns its response. The call is boxed because the
    /// futures of the use cases would nest deeper than the compiler follows.
    pub fn call<'f, T: 'f>(
        &'f self,
        service: Service,
        until: Instant,
        call: impl Future<Output = Result<T, ServiceError>> + 'f,
    ) -> impl Future<Output = Result<T, ServiceError>> + 'f {
        let call: LocalBoxFuture<'f, Result<T, ServiceError>> = Box::pin(call);
        async move {
            let turn = self.turn(service);
            if turn >= until {
                return Err(ServiceError::out_of_time(service, false));
            }
            tokio::time::sleep_until(turn).await;
            let started = Instant::now();
            let response = tokio::time::timeout_at(until, call).await;
            let is_made = service != Service::Kv || !self.config.dry_run;
            self.count(|stats| {
                let (requests, duration) = match service {
                    Service::Kv => (&mut stats.kv_requests, &mut stats.kv_ms),
                    Service::ApiKeys => (&mut stats.api_keys_requests, &mut stats.api_keys_ms),
                    Service::Table => (&mut stats.table_requests, &mut stats.table_ms),
                };
                *requests += u64::from(is_made);
                *duration += started.elapsed();
            });
            response.unwrap_or_else(|_| Err(ServiceError::out_of_time(service, true)))
        }
    }

    /// Returns when the next request to a service may be made. The requests of a reconcile to Cloudflare are spread,
    /// so that changes have their share.
    fn turn(&self, service: Service) -> Instant {
        let now = Instant::now();
        let is_paced = service == Service::Kv && self.source == Source::Reconcile;
        if !is_paced || self.stats.borrow().kv_requests < REQUESTS_AT_ONCE {
            return now;
        }
        let turn = self.next_turn.get().max(now);
        self.next_turn.set(turn + PACE);
        turn
    }

    pub fn time_left(&self) -> Duration {
        self.budget.deadline.saturating_duration_since(Instant::now())
    }

    /// Returns the metadata of a value of `index` that is written now.
    pub fn metadata(&self, index: &IndexRef, changed_at: Option<String>) -> Metadata {
        let now = self.services.now();
        Metadata {
            index: index.clone(),
            environment: Some(self.config.environment.clone()),
            digest: None,
            exported_at: Some(humantime::format_rfc3339_millis(now).to_string()),
            changed_at,
            source: Some(self.source),
        }
    }

    pub fn count(&self, change: impl FnOnce(&mut Stats)) {
        change(&mut self.stats.borrow_mut());
    }

    /// Counts a call that repeats an earlier one. Calls to the table don't count: the SDK repeats most of them
    /// unseen.
    pub fn count_retry(&self, service: Service) {
        self.count(|stats| match service {
            Service::Kv => stats.kv_retries += 1,
            Service::ApiKeys => stats.api_keys_retries += 1,
            Service::Table => {}
        });
    }

    pub fn stats(&self) -> Stats {
        self.stats.borrow().clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::Fakes;

    #[tokio::test(start_paused = true)]
    async fn only_a_reconciles_requests_to_kv_are_paced() {
        for (source, service, is_paced) in [
            (Source::Reconcile, Service::Kv, true),
            (Source::Reconcile, Service::Table, false),
            (Source::Reconcile, Service::ApiKeys, false),
            (Source::Stream, Service::Kv, false),
        ] {
            let (fakes, began) = (Fakes::new(), Instant::now());
            let invocation = fakes.invocation(source);
            let until = invocation.budget.deadline;
            let calls = [vec![Service::Kv; 100], vec![service; 3]].concat();
            for service in calls {
                invocation.call(service, until, async { Ok(()) }).await.unwrap();
            }
            let waited = if is_paced { 2 * PACE } else { Duration::ZERO };
            assert_eq!(began.elapsed(), waited, "{source:?}, {service:?}");
        }
    }
}
