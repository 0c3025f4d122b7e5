//! Metrics in CloudWatch's embedded format: one line on standard output an invocation.
//!
//! No account and no index is a dimension: they would make a metric each. They are fields of the
//! log.

use std::time::Duration;

use ecom_settings_exporter::tally::{ServiceCalls, Tally};
use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};
use metrics_cloudwatch_embedded::Collector;

/// The metrics' namespace in CloudWatch.
const NAMESPACE: &str = "EcomSettingsExporter";

/// Where metrics are gathered until an invocation ends.
pub struct Metrics {
    collector: &'static Collector,
}

impl Metrics {
    /// Installs the collector; the one dimension is the environment.
    pub fn install(environment: &str) -> Result<Self, metrics_cloudwatch_embedded::Error> {
        let collector = metrics_cloudwatch_embedded::Builder::new()
            .cloudwatch_namespace(NAMESPACE)
            .with_dimension("Environment", environment.to_owned())
            .init()?;
        for name in COUNTERS {
            describe_counter!(*name, Unit::Count, "");
        }
        for name in FINDINGS {
            describe_histogram!(*name, Unit::Count, "");
        }
        for name in DURATIONS {
            describe_histogram!(*name, Unit::Milliseconds, "");
        }
        counter!("ColdStarts").increment(1);
        Ok(Self { collector })
    }

    /// Writes one invocation's metrics.
    pub fn flush(&self, request_id: &str, tally: &Tally) {
        record(tally);
        self.collector.set_property("requestId", request_id.to_owned());
        // Nothing can be done about standard output that is closed.
        let _ = self.collector.flush(std::io::stdout().lock());
    }
}

/// Counted where they are not zero.
const COUNTERS: &[&str] = &[
    "ColdStarts",
    "RecordsExported",
    "RecordsSuperseded",
    "RecordsSkipped",
    "RecordsFailed",
    "RecordsRejected",
    "SettingsKeysWritten",
    "SettingsKeysDeleted",
    "QueryConfigKeysWritten",
    "QueryConfigKeysDeleted",
    "DeletesWithheld",
    "DeletesRestored",
    "ApiKeysReused",
    "CloudflareKvRetries",
    "ApiKeysRetries",
];

/// What a reconcile found, told even when it is zero: no drift is news, too.
const FINDINGS: &[&str] = &["DriftedKeys", "DanglingAliases", "ReconcileKeysFailed"];

const DURATIONS: &[&str] = &[
    "PropagationLag",
    "CloudflareKvDuration",
    "ApiKeysDuration",
    "SettingsTableDuration",
    "SecretsManagerDuration",
];

fn record(tally: &Tally) {
    let counts = [
        ("RecordsExported", tally.records.exported),
        ("RecordsSuperseded", tally.records.superseded),
        ("RecordsSkipped", tally.records.skipped),
        ("RecordsFailed", tally.records.failed),
        ("RecordsRejected", tally.records.rejected),
        ("SettingsKeysWritten", tally.settings.written),
        ("SettingsKeysDeleted", tally.settings.deleted),
        ("QueryConfigKeysWritten", tally.query_configs.written),
        ("QueryConfigKeysDeleted", tally.query_configs.deleted),
        ("DeletesWithheld", tally.deletes_withheld),
        ("DeletesRestored", tally.deletes_restored),
        ("ApiKeysReused", tally.api_keys_reused),
        ("CloudflareKvRetries", tally.calls.kv.retries),
        ("ApiKeysRetries", tally.calls.api_keys.retries),
    ];
    for (name, count) in counts {
        counter!(name).increment(count);
    }
    let findings = [
        ("DriftedKeys", tally.drifted_keys),
        ("DanglingAliases", tally.dangling_aliases),
        ("ReconcileKeysFailed", tally.keys_failed),
    ];
    for (name, count) in findings {
        if let Some(count) = count {
            histogram!(name).record(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
        }
    }
    if let Some(lag) = tally.propagation_lag {
        histogram!("PropagationLag").record(millis(lag));
    }
    let services = [
        ("CloudflareKvDuration", tally.calls.kv),
        ("ApiKeysDuration", tally.calls.api_keys),
        ("SettingsTableDuration", tally.calls.table),
        ("SecretsManagerDuration", tally.calls.secrets),
    ];
    for (name, ServiceCalls { requests, duration, .. }) in services {
        if requests > 0 {
            histogram!(name).record(millis(duration));
        }
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
