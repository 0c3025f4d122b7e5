//! What one invocation did, in numbers: for its log line, its metrics and its report.

use std::time::{Duration, SystemTime};

/// Counts of one invocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Records of the batch, by outcome.
    pub records: RecordCounts,
    /// Keys written to and deleted from the settings namespace.
    pub settings: KeyCounts,
    /// Keys written to and deleted from the query-config namespace.
    pub query_configs: KeyCounts,
    /// Keys that stay because something points at what they hold.
    pub deletes_withheld: u64,
    /// Keys that were deleted and put back.
    pub deletes_restored: u64,
    /// Indexes whose API key was taken from what KV holds.
    pub api_keys_reused: u64,
    /// Keys that differ from the table, found by reconcile.
    pub drifted_keys: Option<u64>,
    /// Keys that a reconcile could not judge or repair.
    pub keys_failed: Option<u64>,
    /// Index ids that aliases point at and nobody serves, found by reconcile.
    pub dangling_aliases: Option<u64>,
    /// From the table's change to KV's confirmation: the longest of the batch.
    pub propagation_lag: Option<Duration>,
    /// Calls to the services.
    pub calls: Calls,
    /// The first calls one by one, for tracing; readings of the secret before all others.
    pub spans: Vec<CallSpan>,
}

/// How many calls of an invocation are traced one by one.
pub const MAX_SPANS: usize = 100;

/// One call to a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSpan {
    /// The service's name.
    pub service: &'static str,
    /// When it began.
    pub started: SystemTime,
    /// How long it took.
    pub duration: Duration,
    /// Whether an answer came in time; of Secrets Manager, whether that was a secret.
    pub answered: bool,
}

impl CallSpan {
    /// What an invocation that began at `begun` had of it: all of it, the rest of what was under
    /// way, or nothing of what had ended.
    pub fn since(self, begun: SystemTime) -> Option<Self> {
        let ended = self.started + self.duration;
        if ended <= begun {
            return None;
        }
        let started = self.started.max(begun);
        let duration = ended.duration_since(started).unwrap_or_default();
        Some(Self { started, duration, ..self })
    }
}

/// Records by outcome.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RecordCounts {
    /// In the batch.
    pub received: u64,
    /// Done, removals too.
    pub exported: u64,
    /// Overtaken by a later record of the same item.
    pub superseded: u64,
    /// Not ours.
    pub skipped: u64,
    /// To be sent again.
    pub failed: u64,
    /// Not exportable, logged.
    pub rejected: u64,
}

/// Keys of one namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct KeyCounts {
    /// Confirmed writes.
    pub written: u64,
    /// Confirmed deletes.
    pub deleted: u64,
}

/// Calls by service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    /// Cloudflare KV.
    pub kv: ServiceCalls,
    /// The API keys service.
    pub api_keys: ServiceCalls,
    /// The settings table.
    pub table: ServiceCalls,
    /// Secrets Manager.
    pub secrets: ServiceCalls,
}

/// Readings of the secret with the Cloudflare token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SecretReadings {
    /// How many there were.
    pub calls: ServiceCalls,
    /// The first of them one by one.
    pub spans: Vec<CallSpan>,
}

impl SecretReadings {
    /// Takes in one reading.
    pub fn add(&mut self, span: CallSpan) {
        self.calls.requests += 1;
        self.calls.duration += span.duration;
        if self.spans.len() < MAX_SPANS {
            self.spans.push(span);
        }
    }
}

impl Tally {
    /// Takes in the readings of the secret since the last invocation, of which this one began at
    /// `begun`. All of them count. Those that had ended by then are not traced: this invocation
    /// did not wait for them.
    pub fn take_in(&mut self, readings: SecretReadings, begun: SystemTime) {
        self.calls.secrets = readings.calls;
        let spans = readings.spans.into_iter().filter_map(|span| span.since(begun));
        self.spans.splice(0..0, spans);
        self.spans.truncate(MAX_SPANS);
    }
}

/// Calls to one service.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ServiceCalls {
    /// Attempts.
    pub requests: u64,
    /// Attempts that repeated an earlier one.
    pub retries: u64,
    /// Their durations added up; calls that overlap count each.
    pub duration: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(second)
    }

    fn span(from: u64, to: u64) -> CallSpan {
        CallSpan {
            service: "Secrets Manager",
            started: at(from),
            duration: Duration::from_secs(to - from),
            answered: true,
        }
    }

    #[test]
    fn an_invocation_has_the_part_of_a_call_that_it_may_have_waited_for() {
        for (from, to, part) in [
            (10, 12, Some((10, 12))),
            (5, 9, Some((5, 9))),
            (1, 9, Some((5, 9))),
            (1, 5, None),
            (1, 2, None),
        ] {
            let part = part.map(|(from, to)| span(from, to));
            assert_eq!(span(from, to).since(at(5)), part, "{from} to {to}");
        }
    }

    #[test]
    fn every_reading_counts_and_those_of_the_invocation_are_traced_before_other_calls() {
        let mut readings = SecretReadings::default();
        for (from, to) in [(1, 3), (2, 7), (8, 9)] {
            readings.add(span(from, to));
        }
        let other = CallSpan { service: "Cloudflare KV", ..span(7, 8) };
        let mut tally = Tally { spans: vec![other.clone(); MAX_SPANS], ..Tally::default() };

        tally.take_in(readings, at(5));

        let secrets = tally.calls.secrets;
        assert_eq!((secrets.requests, secrets.duration), (3, Duration::from_secs(8)));
        assert_eq!(tally.spans[..3], [span(5, 7), span(8, 9), other]);
        assert_eq!(tally.spans.len(), MAX_SPANS);
    }

    #[test]
    fn what_is_held_of_readings_is_bounded() {
        let mut readings = SecretReadings::default();
        for _ in 0..MAX_SPANS + 5 {
            readings.add(span(1, 2));
        }
        assert_eq!((readings.spans.len(), readings.calls.requests), (MAX_SPANS, 105));
    }
}
