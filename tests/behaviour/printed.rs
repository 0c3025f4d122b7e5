//! What the binary prints, parsed: its log lines and its metrics.

use std::collections::BTreeMap;

use serde_json::Value;
use testbed::lambda::{Invocation, LogLine, Stream};

/// The lines of one invocation, or of a process's start.
#[derive(Default)]
pub struct Printed {
    pub lines: Vec<Value>,
    pub metrics: BTreeMap<String, Value>,
}

/// Every metric of the function that is a count.
pub const COUNTS: &[&str] = &[
    "ColdStarts",
    "RecordsExported",
    "RecordsSkipped",
    "RecordsFailed",
    "RecordsRejected",
    "RecordsParked",
    "RemovalsHeld",
    "SettingsKeysWritten",
    "SettingsKeysDeleted",
    "QueryConfigKeysWritten",
    "QueryConfigKeysDeleted",
    "DeletesWithheld",
    "DeletesRestored",
    "PutBacksFailed",
    "ApiKeysReused",
    "CloudflareKvRequests",
    "CloudflareKvRetries",
    "ApiKeysRetries",
    "DriftedKeys",
    "RepairRefused",
    "KeysRewritten",
    "ReconcileKeysFailed",
    "KeysMissing",
    "KeysDesired",
    "ItemsRejected",
    "KeysConflicting",
    "KeysWithheld",
    "DanglingAliases",
];

/// Every metric of the function that is a duration.
pub const DURATIONS: &[&str] = &[
    "SettingsLag",
    "QueryConfigLag",
    "CloudflareKvDuration",
    "ApiKeysDuration",
    "SettingsTableDuration",
];

impl Printed {
    /// Parses an invocation's lines, which must be JSON, one of them its counts and at most one its
    /// metrics. Leaves out the line of the process's start, and the receipts, which
    /// `stream/receipts.rs` tests.
    pub fn by(invocation: &Invocation) -> Self {
        let mut printed = Self::default();
        for line in &invocation.logs {
            printed.read(line);
        }
        assert_eq!(printed.with("invocation").len(), 1, "{:?}", printed.lines);
        printed
    }

    fn read(&mut self, LogLine { stream, text, .. }: &LogLine) {
        assert_eq!(*stream, Stream::Stdout, "{text}");
        let line: Value =
            serde_json::from_str(text).unwrap_or_else(|why| panic!("{why} in {text}"));
        if line.get("_aws").is_some() {
            assert!(self.metrics.is_empty(), "one line of metrics");
            self.metrics = metrics(&line);
            return;
        }
        assert!(["timestamp", "message"].iter().all(|field| line[*field].is_string()), "{line}");
        assert!(["INFO", "WARN", "ERROR"].iter().any(|level| line["level"] == *level), "{line}");
        if !["start", "exported", "removed"].iter().any(|message| line["message"] == *message) {
            self.lines.push(line);
        }
    }

    pub fn with(&self, message: &str) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["message"] == message).collect()
    }

    pub fn at(&self, level: &str) -> Vec<&Value> {
        self.lines.iter().filter(|line| line["level"] == level).collect()
    }

    /// The line that tells what the invocation did.
    pub fn invocation(&self) -> &Value {
        self.with("invocation")[0]
    }

    /// The names and values of the metrics that are counts.
    pub fn counts(&self) -> BTreeMap<&str, f64> {
        let only = |value: &Value| value.get(0).unwrap_or(value).as_f64().unwrap();
        let count = |name: &&'static str| Some((*name, only(self.metrics.get(*name)?)));
        COUNTS.iter().filter_map(count).collect()
    }
}

/// The metrics of a line, whose format the unit tests check.
fn metrics(line: &Value) -> BTreeMap<String, Value> {
    let mut metrics: BTreeMap<String, Value> = serde_json::from_value(line.clone()).unwrap();
    let directive = &metrics.remove("_aws").unwrap()["CloudWatchMetrics"][0];
    assert_eq!(metrics.remove("Environment").unwrap(), "local");
    metrics.remove("requestId");
    let defined = directive["Metrics"].as_array().unwrap();
    assert_eq!(defined.len(), metrics.len(), "{line}");
    for metric in defined {
        let name = metric["Name"].as_str().unwrap();
        let known = if metric["Unit"] == "Count" { COUNTS } else { DURATIONS };
        assert!(known.contains(&name) && metrics.contains_key(name), "{metric}");
    }
    metrics
}
