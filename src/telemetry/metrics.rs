//! Metrics in CloudWatch's embedded format: one line on standard output an invocation.
//! Neither account nor index is a dimension: each would be a metric of its own.

use std::time::Duration;

use metrics::{Unit, counter, describe_counter, describe_histogram, histogram};
use metrics_cloudwatch_embedded::Collector;

use super::stats::{Stats, Value};

const NAMESPACE: &str = "EcomSettingsExporter";
const COLD_STARTS: &str = "ColdStarts";

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
        for (name, value) in Stats::default().metrics() {
            match value {
                Value::Count(_) => describe_counter!(name, Unit::Count, ""),
                Value::Finding(_) => describe_histogram!(name, Unit::Count, ""),
                Value::Time(_) | Value::Times(_) => {
                    describe_histogram!(name, Unit::Milliseconds, "");
                }
            }
        }
        describe_counter!(COLD_STARTS, Unit::Count, "");
        counter!(COLD_STARTS).increment(1);
        Ok(Self { collector })
    }

    pub fn flush(&self, request_id: &str, stats: &Stats) {
        for (name, value) in stats.metrics() {
            match value {
                Value::Count(count) => counter!(name).increment(count),
                Value::Finding(Some(count)) => {
                    histogram!(name).record(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
                }
                Value::Time(time) if !time.is_zero() => histogram!(name).record(millis(time)),
                Value::Times(times) => {
                    times.into_iter().for_each(|time| histogram!(name).record(millis(time)));
                }
                Value::Finding(None) | Value::Time(_) => {}
            }
        }
        self.collector.set_property("requestId", request_id.to_owned());
        // Nothing can be done about standard output that is closed.
        let _ = self.collector.flush(std::io::stdout().lock());
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
