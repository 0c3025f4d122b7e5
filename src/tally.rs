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
    /// Index ids that aliases point at and nobody serves, found by reconcile.
    pub dangling_aliases: Option<u64>,
    /// From the table's change to KV's confirmation: the longest of the batch.
    pub propagation_lag: Option<Duration>,
    /// Calls to the services.
    pub calls: Calls,
    /// The first calls one by one, for tracing.
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
    /// Whether an answer came in time.
    pub answered: bool,
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
