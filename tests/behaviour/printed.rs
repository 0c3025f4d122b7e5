//! What the binary prints, parsed: its log lines and its metrics.

use std::collections::BTreeMap;

use serde_json::Value;
use testbed::lambda::{Invocation, LogLine, Stream};

/// The lines of one invocation, or of a process's start.
pub struct Printed {
    pub lines: Vec<Value>,
    /// The metrics' line, checked against CloudWatch's embedded format.
    pub metrics: BTreeMap<String, Value>,
    /// How many lines of metrics there are.
    pub metric_lines: usize,
}

/// Those units of CloudWatch that this function uses.
const UNITS: [&str; 2] = ["Count", "Milliseconds"];

impl Printed {
    /// Parses every line. Panics at a line that is not JSON.
    pub fn of(lines: &[LogLine]) -> Self {
        let mut printed = Self { lines: Vec::new(), metrics: BTreeMap::new(), metric_lines: 0 };
        for line in lines {
            assert_eq!(line.stream, Stream::Stdout, "{}", line.text);
            let value: Value = serde_json::from_str(&line.text)
                .unwrap_or_else(|error| panic!("{error} in {}", line.text));
            if value.get("_aws").is_some() {
                assert!(line.text.len() <= 256 * 1_024, "a log event holds 256 KB");
                printed.metrics.extend(metrics(&value));
                printed.metric_lines += 1;
            } else {
                check_line(&value);
                printed.lines.push(value);
            }
        }
        printed
    }

    /// The same for an invocation, which must have one line of counts and at most one of metrics.
    pub fn by(invocation: &Invocation) -> Self {
        let mut printed = Self::of(&invocation.logs);
        // Of the process, if the invocation started it; and receipts, which `receipts` tests.
        let beside =
            |line: &Value| ["start", "exported", "removed"].map(|it| line["message"] == it);
        printed.lines.retain(|line| !beside(line).contains(&true));
        assert_eq!(printed.with("invocation").len(), 1, "{:?}", printed.lines);
        assert!(printed.metric_lines <= 1);
        printed
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
        let count = |(name, value): (&'static str, Option<&Value>)| Some((name, number(value?)));
        let names = COUNTS.iter().map(|name| (*name, self.metrics.get(*name)));
        names.filter_map(count).collect()
    }
}

/// Every metric of the function that is a count.
pub const COUNTS: &[&str] = &[
    "ColdStarts",
    "RecordsExported",
    "RecordsSuperseded",
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
    "CloudflareKvRequestsUnpaced",
    "CloudflareKvRetries",
    "ApiKeysRetries",
    "DriftedKeys",
    "RepairRefused",
    "KeysRewritten",
    "KeysRewrittenPercent",
    "ReconcileKeysFailed",
    "KeysMissingPercent",
    "ItemsRejected",
    "ItemsRejectedPercent",
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
    "SecretsManagerDuration",
];

fn check_line(line: &Value) {
    for field in ["timestamp", "level", "message"] {
        assert!(line[field].is_string(), "{field} in {line}");
    }
    let level = line["level"].as_str().unwrap();
    assert!(["INFO", "WARN", "ERROR"].contains(&level), "{line}");
}

/// The only value of a metric.
fn number(value: &Value) -> f64 {
    let only = value.as_array().map_or(value, |values| {
        assert_eq!(values.len(), 1, "one value in an invocation");
        &values[0]
    });
    only.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

/// Checks a line against the specification of the embedded metric format. Returns its metrics.
fn metrics(line: &Value) -> BTreeMap<String, Value> {
    let aws = &line["_aws"];
    let timestamp = aws["Timestamp"].as_u64().expect("milliseconds since the epoch");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    assert!(u128::from(timestamp) <= now && u128::from(timestamp) + 3_600_000 > now, "{timestamp}");
    let directives = aws["CloudWatchMetrics"].as_array().expect("metric directives");
    let [directive] = directives.as_slice() else { panic!("one namespace: {directives:?}") };
    assert_eq!(directive["Namespace"], "EcomSettingsExporter");
    assert_eq!(directive["Dimensions"], serde_json::json!([["Environment"]]));
    assert_eq!(line["Environment"], "local");
    let definitions = directive["Metrics"].as_array().expect("metric definitions");
    assert!((1..=100).contains(&definitions.len()));
    let mut metrics = BTreeMap::new();
    for definition in definitions {
        let name = definition["Name"].as_str().unwrap();
        let unit = definition["Unit"].as_str().unwrap();
        assert!(UNITS.contains(&unit), "{definition}");
        assert_eq!(unit == "Milliseconds", DURATIONS.contains(&name), "{definition}");
        assert!(COUNTS.contains(&name) || DURATIONS.contains(&name), "{name} is not known");
        let value = line.get(name).unwrap_or_else(|| panic!("{name} has no value"));
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        assert!((1..=100).contains(&values.len()), "{name}: {value}");
        assert!(values.iter().all(|value| value.as_f64().is_some_and(f64::is_finite)), "{name}");
        assert!(metrics.insert(name.to_owned(), value.clone()).is_none(), "{name} twice");
    }
    // Nothing else is in the line.
    let known = |name: &str| {
        metrics.contains_key(name) || ["_aws", "Environment", "requestId"].contains(&name)
    };
    assert!(line.as_object().unwrap().keys().all(|name| known(name)), "{line}");
    metrics
}
