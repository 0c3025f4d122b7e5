//! Metrics in CloudWatch's embedded metric format: one line on standard output for each invocation.
//! Neither account nor index is a dimension, because each would be a metric of its own.

use std::cell::Cell;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};

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
        let mut values = Map::new();
        let mut definitions = Vec::new();
        let cold_start = self.is_cold.take().then_some(("ColdStarts", "Count", json!(1)));
        for (name, unit, value) in stats.metrics().into_iter().chain(cold_start) {
            definitions.push(json!({"Name": name, "Unit": unit}));
            values.insert(name.to_owned(), value);
        }
        values.insert("Environment".to_owned(), json!(self.environment));
        values.insert("requestId".to_owned(), json!(request_id));
        let directive = json!({
            "Namespace": NAMESPACE,
            "Dimensions": [["Environment"]],
            "Metrics": definitions,
        });
        let aws = json!({"Timestamp": millis, "CloudWatchMetrics": [directive]});
        values.insert("_aws".to_owned(), aws);
        Value::Object(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_line_defines_its_metrics_by_the_embedded_metric_format() {
        let metrics = Metrics::new("prod");
        let stats = Stats {
            records: 3,
            exported: 2,
            drifted_keys: Some(0),
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
    }

    #[test]
    fn only_the_first_invocation_of_a_process_is_a_cold_start() {
        let metrics = Metrics::new("prod");
        let line = || metrics.line("r-1", &Stats::default(), UNIX_EPOCH);
        assert_eq!(line()["ColdStarts"], 1);
        assert!(line().get("ColdStarts").is_none());
    }
}
