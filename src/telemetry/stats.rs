//! What one invocation counts. One table says for each number what it is called in the log and which
//! metric it becomes.

use std::time::Duration;

use tracing::info;

macro_rules! stats {
    ($($(#[$doc:meta])* $field:ident: $type:ty $(=> $metric:literal)?;)*) => {
        /// The numbers of one invocation, named as in its log line.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub struct Stats {
            $($(#[$doc])* pub $field: $type,)*
            /// What a reconcile's chain of runs has found, with its last run: the log line tells of each
            /// run, and the metrics of the chain. `None` where they are no metrics: before the last
            /// run, of one account, of a preview, or of a dry run.
            pub chain_findings: Option<Box<Stats>>,
        }

        impl Stats {
            /// Every number that is a metric, under its name in CloudWatch.
            pub fn of_this_run(&self) -> Vec<(&'static str, Value)> {
                vec![$($(($metric, self.$field.clone().into()),)?)*]
            }

            pub fn log(&self, source: &str, outcome: &str, reconcile: ReconcileRun<'_>) {
                let ReconcileRun { apply, system_account_id, complete } = reconcile;
                info!(
                    source,
                    outcome,
                    apply,
                    system_account_id,
                    complete,
                    $($field = logged(self.$field.clone()),)*
                    "invocation"
                );
            }
        }
    };
}

stats! {
    records: u64;
    /// Removals too.
    exported: u64 => "RecordsExported";
    superseded: u64 => "RecordsSuperseded";
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
    desired: Option<u64>;
    listed: Option<u64>;
    foreign: Option<u64>;
    missing: Option<u64>;
    stale: Option<u64>;
    orphaned: Option<u64>;
    /// Missing, stale and orphaned.
    drifted_keys: Option<u64> => "DriftedKeys";
    /// Deletes and rewrites that a repair did not begin because of its brakes.
    repair_refused: Option<u64> => "RepairRefused";
    /// Stale keys that a repair has rewritten.
    keys_rewritten: Option<u64> => "KeysRewritten";
    /// The chain's share of the desired keys, in percent: of the namespace that has more. 0 up to 100 keys.
    keys_rewritten_percent: Option<u64> => "KeysRewrittenPercent";
    keys_failed: Option<u64> => "ReconcileKeysFailed";
    /// Of the namespace that has more.
    keys_missing_percent: Option<u64> => "KeysMissingPercent";
    items_rejected: Option<u64> => "ItemsRejected";
    /// Of the namespace that has more.
    items_rejected_percent: Option<u64> => "ItemsRejectedPercent";
    keys_conflicting: Option<u64> => "KeysConflicting";
    keys_withheld: Option<u64> => "KeysWithheld";
    dangling_aliases: Option<u64> => "DanglingAliases";
    /// From the table's change to KV's confirmation, of each exported record of an index item.
    settings_lag_ms: Vec<Duration> => "SettingsLag";
    query_config_lag_ms: Vec<Duration> => "QueryConfigLag";
    duration_ms: Duration;
    kv_requests: u64 => "CloudflareKvRequests";
    /// Those that do not wait for their turn: the stream's, a re-export's and explain's.
    kv_requests_unpaced: u64 => "CloudflareKvRequestsUnpaced";
    kv_retries: u64 => "CloudflareKvRetries";
    /// The sum over all requests, as below: those that overlap count each.
    kv_ms: Duration => "CloudflareKvDuration";
    api_keys_requests: u64;
    api_keys_retries: u64 => "ApiKeysRetries";
    api_keys_ms: Duration => "ApiKeysDuration";
    table_requests: u64;
    table_ms: Duration => "SettingsTableDuration";
    /// Since the invocation before, or since the start.
    secrets_requests: u64;
    secrets_ms: Duration => "SecretsManagerDuration";
}

/// Findings that are metrics of each run: nobody waits for the end of a chain to hear of them.
const AT_ONCE: [&str; 3] = ["RepairRefused", "KeysRewritten", "KeysRewrittenPercent"];

impl Stats {
    /// The metrics to report: this run's numbers, but the findings of the whole chain.
    pub fn metrics(&self) -> Vec<(&'static str, Value)> {
        let is_of_the_chain = |(name, value): &(&str, Value)| {
            matches!(value, Value::Finding(_)) && !AT_ONCE.contains(name)
        };
        let mut metrics = self.of_this_run();
        metrics.retain(|metric| !is_of_the_chain(metric));
        if let Some(chain) = &self.chain_findings {
            metrics.extend(chain.of_this_run().into_iter().filter(is_of_the_chain));
        }
        metrics
    }
}

/// What a reconcile's log line says of the run; nothing for other invocations.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReconcileRun<'a> {
    pub apply: Option<bool>,
    pub system_account_id: Option<&'a str>,
    pub complete: Option<bool>,
}

/// A number in its kind, from which follows how it is logged and measured.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Zero is no metric.
    Count(u64),
    /// A metric even when it is zero: no drift is news, too.
    Finding(Option<u64>),
    /// Zero is no metric.
    Time(Duration),
    /// Ascending. Each is measured, and the longest logged.
    Times(Vec<Duration>),
}

fn logged(number: impl Into<Value>) -> Option<u64> {
    let millis = |time: Duration| u64::try_from(time.as_millis()).ok();
    match number.into() {
        Value::Count(count) => Some(count),
        Value::Finding(count) => count,
        Value::Time(time) => millis(time),
        Value::Times(times) => times.last().copied().and_then(millis),
    }
}

macro_rules! kinds {
    ($($type:ty => $kind:ident;)*) => {$(
        impl From<$type> for Value {
            fn from(number: $type) -> Self {
                Self::$kind(number)
            }
        }
    )*};
}

kinds! {
    u64 => Count;
    Option<u64> => Finding;
    Duration => Time;
    Vec<Duration> => Times;
}

/// The embedded metric format takes 100 values of a metric in a line.
const MAX_VALUES: usize = 100;

/// Times in ascending order: all of them, or of more than 100 the longest of each hundredth.
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
    fn a_number_is_logged_by_its_kind() {
        assert_eq!(logged(0), Some(0));
        assert_eq!((logged(None), logged(Some(0))), (None, Some(0)));
        let second = Duration::from_secs(1);
        assert_eq!(logged(second), Some(1000));
        assert_eq!(logged(at_most_100([second, Duration::ZERO])), Some(1000));
        assert_eq!(logged(Vec::new()), None);
    }

    #[test]
    fn findings_are_metrics_of_the_whole_chain_and_what_is_urgent_of_each_run() {
        let run = Stats {
            drifted_keys: Some(1),
            repair_refused: Some(2),
            settings_written: 3,
            ..Stats::default()
        };
        let chain = Stats { drifted_keys: Some(8), settings_written: 9, ..Stats::default() };
        let last = Stats { chain_findings: Some(Box::new(chain)), ..run.clone() };
        for (stats, drift) in [(run, None), (last, Some(8))] {
            let value = |name: &str| {
                stats.metrics().into_iter().find(|metric| metric.0 == name).map(|metric| metric.1)
            };
            assert_eq!(value("DriftedKeys"), drift.map(|drift| Value::Finding(Some(drift))));
            assert_eq!(value("RepairRefused"), Some(Value::Finding(Some(2))));
            assert_eq!(value("SettingsKeysWritten"), Some(Value::Count(3)));
        }
    }

    #[test]
    fn no_two_metrics_have_one_name() {
        let mut names: Vec<_> =
            Stats::default().of_this_run().into_iter().map(|metric| metric.0).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
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
