//! Metrics in CloudWatch's embedded metric format: one line on standard output for each invocation.
//! Neither account nor index is a dimension, because each would be a metric of its own.

use std::cell::Cell;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::stats::Stats;

const NAMESPACE: &str = "EcomSettingsExporter";

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
        let millis = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let cold_start = self.is_cold.take().then_some(("ColdStarts", "Count", json!(1)));
        let metrics: Vec<_> = stats.metrics().into_iter().chain(cold_start).collect();
        let definition = |(name, unit, _): &(_, _, _)| json!({"Name": name, "Unit": unit});
        let directive = json!({
            "Namespace": NAMESPACE,
            "Dimensions": [["Environment"]],
            "Metrics": metrics.iter().map(definition).collect::<Value>(),
        });
        let mut line = json!({
            "_aws": {"Timestamp": millis, "CloudWatchMetrics": [directive]},
            "Environment": self.environment,
            "requestId": request_id,
        });
        for (name, _, value) in metrics {
            line[name] = value;
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_has_its_metrics_in_the_embedded_metric_format_and_the_first_a_cold_start() {
        let metrics = Metrics::new("prod");
        let stats = Stats {
            records: 3,
            exported: 2,
            drifted_keys: Some(0),
            foreign: Some(1),
            kv_ms: Duration::from_micros(1_500),
            settings_lag_ms: vec![Duration::from_secs(1), Duration::from_secs(2)],
            ..Stats::default()
        };
        let now = UNIX_EPOCH + Duration::from_secs(1_000);
        let count = |name| json!({"Name": name, "Unit": "Count"});
        let time = |name| json!({"Name": name, "Unit": "Milliseconds"});
        let expected = json!({
            "_aws": {"Timestamp": 1_000_000, "CloudWatchMetrics": [{
                "Namespace": "EcomSettingsExporter",
                "Dimensions": [["Environment"]],
                "Metrics": [
                    count("RecordsExported"),
                    count("DriftedKeys"),
                    time("SettingsLag"),
                    time("CloudflareKvDuration"),
                    count("ColdStarts"),
                ],
            }]},
            "Environment": "prod",
            "requestId": "r-1",
            "RecordsExported": 2,
            "DriftedKeys": 0,
            "SettingsLag": [1_000.0, 2_000.0],
            "CloudflareKvDuration": 1.5,
            "ColdStarts": 1,
        });
        assert_eq!(metrics.line("r-1", &stats, now), expected);
        assert!(metrics.line("r-2", &stats, now).get("ColdStarts").is_none());
    }
}
