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
            /// The metrics, those without a value in this invocation too.
            pub fn metrics(&self) -> impl Iterator<Item = Metric> {
                let metrics =
                    [$($(Metric { name: $metric, value: self.$field.measured() },)?)*];
                let chain = self.chain_findings.as_deref();
                let chain = chain.map(|chain| [$($(Metric { name: $metric, value: chain.$field.measured() },)?)*]);
                metrics.into_iter().enumerate().map(move |(place, metric)| match metric.value {
                    Value::Finding(_) if !AT_ONCE.contains(&metric.name) => Metric {
                        value: chain.as_ref().map_or(Value::Finding(None), |chain| chain[place].value.clone()),
                        ..metric
                    },
                    _ => metric,
                })
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
    /// Records of the batch.
    records: u64;
    /// Records that are done, removals too.
    exported: u64 => "RecordsExported";
    /// Records that a later record of the same item replaces.
    superseded: u64 => "RecordsSuperseded";
    /// Records of items that aren't ours.
    skipped: u64 => "RecordsSkipped";
    /// Records that are to be sent again.
    failed: u64 => "RecordsFailed";
    /// Records that can't be exported, each logged.
    rejected: u64 => "RecordsRejected";
    /// Late records that only lack their account's API key: left to reconcile, each logged.
    parked: u64 => "RecordsParked";
    /// Removals that were not begun because a flood of them is held, each logged.
    removals_held: u64 => "RemovalsHeld";
    /// Confirmed writes to the settings namespace.
    settings_written: u64 => "SettingsKeysWritten";
    /// Confirmed deletes from the settings namespace.
    settings_deleted: u64 => "SettingsKeysDeleted";
    /// Confirmed writes to the query-config namespace.
    query_configs_written: u64 => "QueryConfigKeysWritten";
    /// Confirmed deletes from the query-config namespace.
    query_configs_deleted: u64 => "QueryConfigKeysDeleted";
    /// Keys that stay because an active alias points at what they hold.
    deletes_withheld: u64 => "DeletesWithheld";
    /// Keys that were deleted and put back.
    deletes_restored: u64 => "DeletesRestored";
    /// Keys that were deleted, are needed, and could not be put back.
    put_backs_failed: u64 => "PutBacksFailed";
    /// Indexes whose API key was taken from what KV holds.
    api_keys_reused: u64 => "ApiKeysReused";
    /// Keys that the table asks a reconcile for.
    desired: Option<u64>;
    /// Keys that a reconcile has listed or read.
    listed: Option<u64>;
    /// A reconcile's keys that are not the exporter's and that no item asks for.
    foreign: Option<u64>;
    /// A reconcile's keys that KV lacks.
    missing: Option<u64>;
    /// A reconcile's keys whose value is another than the table asks for.
    stale: Option<u64>;
    /// A reconcile's keys that no item asks for.
    orphaned: Option<u64>;
    /// A reconcile's keys that differ from the table: missing, stale and orphaned.
    drifted_keys: Option<u64> => "DriftedKeys";
    /// Deletes and rewrites that a repair did not begin because of its brakes.
    repair_refused: Option<u64> => "RepairRefused";
    /// Stale keys that a repair has rewritten.
    keys_rewritten: Option<u64> => "KeysRewritten";
    /// The chain's share of the desired keys, in percent: of the namespace that has more. 0 up to 100 keys.
    keys_rewritten_percent: Option<u64> => "KeysRewrittenPercent";
    /// Keys that a reconcile could not compare or repair.
    keys_failed: Option<u64> => "ReconcileKeysFailed";
    /// The share of the keys that a reconcile found missing, in percent: of the namespace that has more.
    keys_missing_percent: Option<u64> => "KeysMissingPercent";
    /// Items that a reconcile found not exportable.
    items_rejected: Option<u64> => "ItemsRejected";
    /// Their share, in percent: of the namespace that has more.
    items_rejected_percent: Option<u64> => "ItemsRejectedPercent";
    /// Keys that several items ask for, or that another environment has.
    keys_conflicting: Option<u64> => "KeysConflicting";
    /// Keys that no item asks for and that an active alias protects.
    keys_withheld: Option<u64> => "KeysWithheld";
    /// Index ids that aliases point at and that have neither an item nor a key.
    dangling_aliases: Option<u64> => "DanglingAliases";
    /// From the table's change to KV's confirmation, of each exported record of an index item.
    settings_lag_ms: Lags => "SettingsLag";
    /// The same of each exported record of a query config.
    query_config_lag_ms: Lags => "QueryConfigLag";
    /// The whole invocation.
    duration_ms: Duration;
    /// Requests to Cloudflare KV.
    kv_requests: u64 => "CloudflareKvRequests";
    /// Those of them that do not wait for their turn: the stream's, a re-export's and explain's.
    kv_requests_unpaced: u64 => "CloudflareKvRequestsUnpaced";
    /// Requests to Cloudflare KV that repeated an earlier one.
    kv_retries: u64 => "CloudflareKvRetries";
    /// The durations of all requests to Cloudflare KV; those that overlap count each.
    kv_ms: Duration => "CloudflareKvDuration";
    /// Requests to the API keys service.
    api_keys_requests: u64;
    /// Requests to the API keys service that repeated an earlier one.
    api_keys_retries: u64 => "ApiKeysRetries";
    /// The durations of all requests to the API keys service.
    api_keys_ms: Duration => "ApiKeysDuration";
    /// Calls to the settings table.
    table_requests: u64;
    /// The durations of all calls to the settings table.
    table_ms: Duration => "SettingsTableDuration";
    /// Calls to Secrets Manager since the invocation before, or since the start.
    secrets_requests: u64;
    /// Their durations.
    secrets_ms: Duration => "SecretsManagerDuration";
}

/// Findings that are metrics of each run: nobody waits for the end of a chain to hear of them.
const AT_ONCE: [&str; 3] = ["RepairRefused", "KeysRewritten", "KeysRewrittenPercent"];

/// What a reconcile's log line says of the run; nothing for other invocations.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReconcileRun<'a> {
    /// Whether it was asked to repair.
    pub apply: Option<bool>,
    /// The one account that it was limited to.
    pub system_account_id: Option<&'a str>,
    /// Whether the run came to its end, and no brake refused a repair anything.
    pub complete: Option<bool>,
}

/// A number for CloudWatch.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name in CloudWatch.
    pub name: &'static str,
    /// Its value and unit.
    pub value: Value,
}

/// A metric's value. `None`, no duration and a count of zero are not reported.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// How many times something happened.
    Count(u64),
    /// What was found. Reported even when it is zero: no drift is news, too.
    Finding(Option<u64>),
    /// How long something took, or each of several things.
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
        Some(whole_millis(*self))
    }

    fn measured(&self) -> Value {
        let some_time = Some(self).filter(|duration| !duration.is_zero());
        Value::Milliseconds(some_time.map(millis).into_iter().collect())
    }
}

/// Logged is the longest.
impl Counted for Lags {
    fn logged(&self) -> Option<u64> {
        self.longest().map(whole_millis)
    }

    fn measured(&self) -> Value {
        Value::Milliseconds(self.values().iter().map(millis).collect())
    }
}

fn millis(duration: &Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

fn whole_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
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
                stats.metrics().find(|metric| metric.name == name).map(|metric| metric.value)
            };
            assert_eq!(value("DriftedKeys"), Some(Value::Finding(drift)));
            assert_eq!(value("RepairRefused"), Some(Value::Finding(Some(2))));
            assert_eq!(value("SettingsKeysWritten"), Some(Value::Count(3)));
        }
    }

    #[test]
    fn no_two_metrics_have_one_name() {
        let mut names: Vec<_> = Stats::default().metrics().map(|metric| metric.name).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
    }
}
