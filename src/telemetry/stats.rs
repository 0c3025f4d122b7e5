//! What one invocation counts. One table says for each number what it is called in the log and which
//! metric it becomes.

use std::time::Duration;

use tracing::info;

use super::lags::Lags;

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
                vec![$($(($metric, self.$field.measured()),)?)*]
            }

            /// Tells the invocation's whole story in one line.
            pub fn log(&self, source: &str, outcome: &str, reconcile: ReconcileRun<'_>) {
                let ReconcileRun { apply, system_account_id, complete } = reconcile;
                info!(
                    source,
                    outcome,
                    apply,
                    system_account_id,
                    complete,
                    $($field = self.$field.logged(),)*
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
    settings_lag_ms: Lags => "SettingsLag";
    query_config_lag_ms: Lags => "QueryConfigLag";
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

/// A metric's value. `None`, no duration and a count of zero are not reported.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Count(u64),
    /// Reported even when it is zero: no drift is news, too.
    Finding(Option<u64>),
    Milliseconds(Vec<f64>),
}

/// How a type of number is logged and measured.
trait Counted {
    fn logged(&self) -> Option<u64>;
    fn measured(&self) -> Value;
}

impl Counted for u64 {
    fn logged(&self) -> Option<u64> {
        Some(*self)
    }

    fn measured(&self) -> Value {
        Value::Count(*self)
    }
}

impl Counted for Option<u64> {
    fn logged(&self) -> Option<u64> {
        *self
    }

    fn measured(&self) -> Value {
        Value::Finding(*self)
    }
}

impl Counted for Duration {
    fn logged(&self) -> Option<u64> {
        u64::try_from(self.as_millis()).ok()
    }

    fn measured(&self) -> Value {
        let some_time = Some(self).filter(|duration| !duration.is_zero());
        Value::Milliseconds(some_time.map(millis).into_iter().collect())
    }
}

/// Logged is the longest.
impl Counted for Lags {
    fn logged(&self) -> Option<u64> {
        self.longest()?.logged()
    }

    fn measured(&self) -> Value {
        Value::Milliseconds(self.values().iter().map(millis).collect())
    }
}

fn millis(duration: &Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_logged_and_measured_by_its_type() {
        assert_eq!((0_u64.logged(), 0_u64.measured()), (Some(0), Value::Count(0)));
        assert_eq!((None::<u64>.logged(), Some(0_u64).measured()), (None, Value::Finding(Some(0))));
        let second = Duration::from_secs(1);
        assert_eq!(
            (second.logged(), second.measured()),
            (Some(1000), Value::Milliseconds(vec![1000.0]))
        );
        assert_eq!(Duration::ZERO.measured(), Value::Milliseconds(vec![]));
        let lags = Lags::of([second, Duration::ZERO]);
        assert_eq!(
            (lags.logged(), lags.measured()),
            (Some(1000), Value::Milliseconds(vec![0.0, 1000.0]))
        );
        assert_eq!(Lags::default().logged(), None);
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
}
