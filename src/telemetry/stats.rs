//! What an invocation counts. One table names each number in the log, and the metric that it becomes.

use std::cell::Cell;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tracing::info;

macro_rules! stats {
    ($($(#[$doc:meta])* $field:ident: $type:ty $(=> $metric:literal)?;)*) => {
        /// The numbers of an invocation, named as in its log line.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $field: $type,)*
        }

        impl Stats {
            /// Returns the name, unit and value or values of each metric that has any.
            pub fn metrics(&self) -> Vec<(&'static str, &'static str, Value)> {
                let metrics = [$($(self.$field.told().1.map(|(unit, value)| ($metric, unit, value)),)?)*];
                metrics.into_iter().flatten().collect()
            }

            /// Logs them. `apply` and `complete` are a reconcile's.
            pub fn log(
                &self,
                source: &str,
                outcome: &str,
                apply: Option<bool>,
                system_account_id: Option<&str>,
                complete: Option<bool>,
            ) {
                info!(
                    source,
                    outcome,
                    apply,
                    system_account_id,
                    complete,
                    $($field = self.$field.told().0,)*
                    "invocation"
                );
            }
        }
    };
}

stats! {
    records: u64;
    /// Removals included.
    exported: u64 => "RecordsExported";
    skipped: u64 => "RecordsSkipped";
    failed: u64 => "RecordsFailed";
    rejected: u64 => "RecordsRejected";
    parked: u64 => "RecordsParked";
    removals_held: u64 => "RemovalsHeld";
    settings_written: u64 => "SettingsKeysWritten";
    settings_deleted: u64 => "SettingsKeysDeleted";
    query_configs_written: u64 => "QueryConfigKeysWritten";
    query_configs_deleted: u64 => "QueryConfigKeysDeleted";
    deletes_withheld: u64 => "DeletesWithheld";
    deletes_restored: u64 => "DeletesRestored";
    /// Keys that were deleted, are needed, and could not be put back.
    put_backs_failed: u64 => "PutBacksFailed";
    /// Of indexes, not of accounts.
    api_keys_reused: u64 => "ApiKeysReused";
    // What a reconcile's chain has found, set with its last run. `None` makes no metric.
    desired: Option<u64> => "KeysDesired";
    listed: Option<u64>;
    foreign: Option<u64>;
    missing: Option<u64> => "KeysMissing";
    stale: Option<u64>;
    orphaned: Option<u64>;
    /// Missing, stale and orphaned.
    drifted_keys: Option<u64> => "DriftedKeys";
    items_rejected: Option<u64> => "ItemsRejected";
    keys_conflicting: Option<u64> => "KeysConflicting";
    keys_withheld: Option<u64> => "KeysWithheld";
    dangling_aliases: Option<u64> => "DanglingAliases";
    keys_failed: Option<u64> => "ReconcileKeysFailed";
    /// Stale keys that a repair has rewritten, as KV confirmed.
    keys_rewritten: Option<u64> => "KeysRewritten";
    /// Deletes and rewrites that a repair's brakes refused.
    repair_refused: Option<u64> => "RepairRefused";
    /// From the table's change until the batch is done with its settings, for each exported index.
    settings_lag_ms: Vec<Duration> => "SettingsLag";
    query_config_lag_ms: Vec<Duration> => "QueryConfigLag";
    duration_ms: Duration;
    kv_requests: u64 => "CloudflareKvRequests";
    kv_retries: u64 => "CloudflareKvRetries";
    /// The sum over all requests, as below; requests that overlap each count in full.
    kv_ms: Duration => "CloudflareKvDuration";
    api_keys_requests: u64;
    api_keys_retries: u64 => "ApiKeysRetries";
    api_keys_ms: Duration => "ApiKeysDuration";
    table_requests: u64;
    table_ms: Duration => "SettingsTableDuration";
}

/// A number as the log has it, and the unit and value or values of its metric.
type Told = (Option<u64>, Option<(&'static str, Value)>);

trait Number {
    fn told(&self) -> Told;
}

/// A count. Zero is no metric.
impl Number for u64 {
    fn told(&self) -> Told {
        (Some(*self), (*self > 0).then(|| ("Count", json!(self))))
    }
}

/// A finding. Zero is a metric too: no drift is news.
impl Number for Option<u64> {
    fn told(&self) -> Told {
        (*self, self.map(|count| ("Count", json!(count))))
    }
}

/// Zero is no metric.
impl Number for Duration {
    fn told(&self) -> Told {
        let metric = (!self.is_zero()).then(|| ("Milliseconds", json!(millis(self))));
        (u64::try_from(self.as_millis()).ok(), metric)
    }
}

/// Times in ascending order. Each is measured, and the longest is logged.
impl Number for Vec<Duration> {
    fn told(&self) -> Told {
        let times: Vec<f64> = self.iter().map(millis).collect();
        let metric = (!times.is_empty()).then(|| ("Milliseconds", json!(times)));
        (self.last().and_then(|longest| longest.told().0), metric)
    }
}

fn millis(time: &Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

/// The embedded metric format takes 100 values of a metric in a line.
const MAX_VALUES: usize = 100;

/// Returns times in ascending order: all of up to 100, or the longest of each hundredth.
pub fn at_most_100(times: impl IntoIterator<Item = Duration>) -> Vec<Duration> {
    let mut times: Vec<Duration> = times.into_iter().collect();
    times.sort_unstable();
    if times.len() <= MAX_VALUES {
        return times;
    }
    let last_of = |hundredth: usize| (hundredth * times.len()).div_ceil(MAX_VALUES) - 1;
    (1..=MAX_VALUES).map(|hundredth| times[last_of(hundredth)]).collect()
}

/// Prints the metrics of an environment's invocations in CloudWatch's embedded metric format, one line of standard
/// output each. Neither account nor index is a dimension, because each would be a metric of its own.
pub struct Metrics {
    environment: String,
    is_cold: Cell<bool>,
}

impl Metrics {
    pub fn new(environment: &str) -> Self {
        Self { environment: environment.to_owned(), is_cold: Cell::new(true) }
    }

    pub fn print(&self, request_id: &str, stats: &Stats) {
        let line = self.line(request_id, stats, SystemTime::now());
        // Nothing can be done about standard output that is closed.
        let _ = writeln!(std::io::stdout().lock(), "{line}");
    }

    fn line(&self, request_id: &str, stats: &Stats, now: SystemTime) -> Value {
        let cold_start = self.is_cold.take().then_some(("ColdStarts", "Count", json!(1)));
        let mut line = json!({"Environment": self.environment, "requestId": request_id});
        let mut definitions = Vec::new();
        for (name, unit, value) in stats.metrics().into_iter().chain(cold_start) {
            definitions.push(json!({"Name": name, "Unit": unit}));
            line[name] = value;
        }
        line["_aws"] = json!({
            "Timestamp": now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis(),
            "CloudWatchMetrics": [{
                "Namespace": "EcomSettingsExporter",
                "Dimensions": [["Environment"]],
                "Metrics": definitions,
            }],
        });
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_logged_and_measured_by_its_kind() {
        let count = |count: u64| Some(("Count", json!(count)));
        let times = |times: Value| Some(("Milliseconds", times));
        let second = Duration::from_secs(1);
        for (told, logged, metric) in [
            (0.told(), Some(0), None),
            (2.told(), Some(2), count(2)),
            (None.told(), None, None),
            (Some(0).told(), Some(0), count(0)),
            (Duration::ZERO.told(), Some(0), None),
            (second.told(), Some(1_000), times(json!(1_000.0))),
            (Vec::new().told(), None, None),
            (vec![Duration::ZERO, second].told(), Some(1_000), times(json!([0.0, 1_000.0]))),
        ] {
            assert_eq!(told, (logged, metric));
        }
    }

    #[test]
    fn up_to_a_hundred_records_have_a_value_each_and_more_share_them() {
        let seconds = |seconds: &mut dyn Iterator<Item = u64>| -> Vec<Duration> {
            seconds.map(Duration::from_secs).collect()
        };
        let shown = |of: std::ops::RangeInclusive<u64>| at_most_100(seconds(&mut of.rev()));
        assert_eq!(shown(1..=3), seconds(&mut (1..=3)));
        assert_eq!(shown(1..=100), seconds(&mut (1..=100)));
        assert_eq!(shown(1..=1_000), seconds(&mut (1..=100).map(|hundredth| hundredth * 10)));
        let of_101 = shown(1..=101);
        assert_eq!((of_101.len(), of_101.last()), (100, Some(&Duration::from_secs(101))));
    }

    #[test]
    fn a_line_has_its_metrics_in_the_embedded_metric_format_and_the_first_a_cold_start() {
        let metrics = Metrics::new("prod");
        let kv_ms = Duration::from_micros(1_500);
        let stats = Stats { records: 3, exported: 2, foreign: Some(1), kv_ms, ..Stats::default() };
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let expected = json!({
            "_aws": {"Timestamp": 1_000_000, "CloudWatchMetrics": [{
                "Namespace": "EcomSettingsExporter",
                "Dimensions": [["Environment"]],
                "Metrics": [
                    {"Name": "RecordsExported", "Unit": "Count"},
                    {"Name": "CloudflareKvDuration", "Unit": "Milliseconds"},
                    {"Name": "ColdStarts", "Unit": "Count"},
                ],
            }]},
            "Environment": "prod",
            "requestId": "r-1",
            "RecordsExported": 2,
            "CloudflareKvDuration": 1.5,
            "ColdStarts": 1,
        });
        assert_eq!(metrics.line("r-1", &stats, now), expected);
        assert!(metrics.line("r-2", &stats, now).get("ColdStarts").is_none());
    }
}
