//! What an invocation counts. One table names each number in the log, and the metric that it becomes.

use std::time::Duration;

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
                let metrics = [$($(self.$field.metric().map(|(unit, value)| ($metric, unit, value)),)?)*];
                metrics.into_iter().flatten().collect()
            }

            pub fn log(&self, source: &str, outcome: &str, run: ReconcileRun<'_>) {
                info!(
                    source,
                    outcome,
                    apply = run.apply,
                    system_account_id = run.system_account_id,
                    complete = run.complete,
                    $($field = self.$field.logged(),)*
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
    /// From the table's change to KV's confirmation, for each exported record of an index item.
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

/// What the log line says about a reconcile. Empty for other invocations.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReconcileRun<'a> {
    pub apply: Option<bool>,
    pub system_account_id: Option<&'a str>,
    pub complete: Option<bool>,
}

/// How a kind of number is logged, and measured.
trait Number {
    fn logged(&self) -> Option<u64>;
    /// Returns the unit, and the value or values.
    fn metric(&self) -> Option<(&'static str, Value)>;
}

/// A count. Zero is no metric.
impl Number for u64 {
    fn logged(&self) -> Option<u64> {
        Some(*self)
    }

    fn metric(&self) -> Option<(&'static str, Value)> {
        (*self > 0).then(|| ("Count", json!(self)))
    }
}

/// A finding. Zero is a metric too: no drift is news.
impl Number for Option<u64> {
    fn logged(&self) -> Option<u64> {
        *self
    }

    fn metric(&self) -> Option<(&'static str, Value)> {
        self.map(|count| ("Count", json!(count)))
    }
}

/// Zero is no metric.
impl Number for Duration {
    fn logged(&self) -> Option<u64> {
        u64::try_from(self.as_millis()).ok()
    }

    fn metric(&self) -> Option<(&'static str, Value)> {
        (!self.is_zero()).then(|| ("Milliseconds", json!(millis(self))))
    }
}

/// Times in ascending order. Each is measured, and the longest is logged.
impl Number for Vec<Duration> {
    fn logged(&self) -> Option<u64> {
        self.last()?.logged()
    }

    fn metric(&self) -> Option<(&'static str, Value)> {
        let times: Vec<f64> = self.iter().map(millis).collect();
        (!times.is_empty()).then(|| ("Milliseconds", json!(times)))
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
    if times.len() > MAX_VALUES {
        let last_of = |hundredth: usize| ((hundredth + 1) * times.len()).div_ceil(MAX_VALUES) - 1;
        times = (0..MAX_VALUES).map(|hundredth| times[last_of(hundredth)]).collect();
    }
    times
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_logged_and_measured_by_its_kind() {
        let second = Duration::from_secs(1);
        assert_eq!((0.logged(), 0.metric()), (Some(0), None));
        assert_eq!((2.logged(), 2.metric()), (Some(2), Some(("Count", json!(2)))));
        assert_eq!((None.logged(), None.metric()), (None, None));
        assert_eq!((Some(0).logged(), Some(0).metric()), (Some(0), Some(("Count", json!(0)))));
        assert_eq!((Duration::ZERO.logged(), Duration::ZERO.metric()), (Some(0), None));
        assert_eq!(second.logged(), Some(1_000));
        assert_eq!(second.metric(), Some(("Milliseconds", json!(1_000.0))));
        let times = at_most_100([second, Duration::ZERO]);
        assert_eq!(times.logged(), Some(1_000));
        assert_eq!(times.metric(), Some(("Milliseconds", json!([0.0, 1_000.0]))));
        assert_eq!((Vec::new().logged(), Vec::new().metric()), (None, None));
    }

    #[test]
    fn findings_are_metrics_where_they_are_set() {
        let names =
            |stats: Stats| stats.metrics().into_iter().map(|metric| metric.0).collect::<Vec<_>>();
        assert_eq!(names(Stats::default()), [""; 0]);
        let stats =
            Stats { missing: Some(0), desired: Some(7), listed: Some(7), ..Stats::default() };
        assert_eq!(names(stats), ["KeysDesired", "KeysMissing"]);
    }

    fn seconds(seconds: impl IntoIterator<Item = u64>) -> Vec<Duration> {
        seconds.into_iter().map(Duration::from_secs).collect()
    }

    #[test]
    fn up_to_a_hundred_records_have_a_value_each() {
        assert_eq!(at_most_100(seconds([3, 1, 2])), seconds([1, 2, 3]));
        assert_eq!(at_most_100(seconds(0..100)).len(), 100);
    }

    #[test]
    fn more_records_are_told_by_a_hundred_values_that_include_the_longest() {
        let of_1000 = at_most_100(seconds(1..=1_000));
        assert_eq!(of_1000, seconds((1..=100).map(|hundredth| hundredth * 10)));
        let of_101 = at_most_100(seconds(1..=101));
        assert_eq!((of_101.len(), of_101.last()), (100, Some(&Duration::from_secs(101))));
    }
}
