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
            /// Whether a reconcile's findings are those of one account, or of a dry run: they are
            /// logged, and are no metrics.
            pub partial_findings: bool,
            /// What the runs before this one of a reconcile's chain have found: the metrics are of
            /// all of them, the log line is of this one.
            pub found_before: Option<Box<Stats>>,
        }

        impl Stats {
            /// The metrics, those without a value in this invocation too.
            pub fn metrics(&self) -> impl Iterator<Item = Metric> {
                let metrics =
                    [$($(Metric { name: $metric, value: self.$field.measured() },)?)*];
                let before = self.found_before.as_deref();
                let before = before.map(|before| [$($(Metric { name: $metric, value: before.$field.measured() },)?)*]);
                metrics
                    .map(|metric| self.without_partial_findings(metric))
                    .into_iter()
                    .enumerate()
                    .map(move |(place, metric)| match &before {
                        Some(before) => metric.with(&before[place]),
                        None => metric,
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
    /// Stale keys that the repairs of a chain have rewritten.
    keys_rewritten: Option<u64> => "KeysRewritten";
    /// Their share of the desired keys, in percent: of the namespace that has more. 0 up to 100 keys.
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

impl Stats {
    fn without_partial_findings(&self, metric: Metric) -> Metric {
        match metric.value {
            Value::Finding(_) if self.partial_findings => {
                Metric { value: Value::Finding(None), ..metric }
            }
            _ => metric,
        }
    }
}

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

impl Metric {
    /// The same with what was found before.
    fn with(self, before: &Self) -> Self {
        match (self.value, &before.value) {
            (Value::Finding(Some(found)), Value::Finding(Some(before))) => {
                Self { name: self.name, value: Value::Finding(Some(found + before)) }
            }
            (value, _) => Self { name: self.name, value },
        }
    }
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
    fn the_findings_of_a_part_are_no_metrics() {
        let drift = |partial_findings| {
            let stats = Stats { drifted_keys: Some(7), partial_findings, ..Stats::default() };
            stats.metrics().find(|metric| metric.name == "DriftedKeys").map(|metric| metric.value)
        };
        assert_eq!(drift(false), Some(Value::Finding(Some(7))));
        assert_eq!(drift(true), Some(Value::Finding(None)));
    }

    #[test]
    fn the_metrics_of_a_run_are_of_its_chain_so_far() {
        let before = Stats { drifted_keys: Some(7), settings_written: 5, ..Stats::default() };
        let stats = Stats {
            drifted_keys: Some(1),
            settings_written: 2,
            keys_missing_percent: Some(3),
            found_before: Some(Box::new(before)),
            ..Stats::default()
        };
        let value = |name: &str| {
            stats.metrics().find(|metric| metric.name == name).map(|metric| metric.value)
        };
        assert_eq!(value("DriftedKeys"), Some(Value::Finding(Some(8))));
        assert_eq!(value("SettingsKeysWritten"), Some(Value::Count(2)));
        assert_eq!(value("KeysMissingPercent"), Some(Value::Finding(Some(3))));
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
