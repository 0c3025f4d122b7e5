//! How an event source mapping is set up.

use std::str::FromStr;
use std::time::Duration;

use super::filter::Filter;
use crate::clock::Clock;
use crate::stream::StartingPosition;

const TEMPLATE: &str = include_str!("../../../../template.yaml");

#[derive(Debug, Clone)]
pub struct PollerOptions {
    pub batch_size: usize,
    /// How long a batch may wait for more records.
    pub window: Duration,
    pub filter: Filter,
    /// Retries of a batch; `None` for any number.
    pub maximum_retry_attempts: Option<u32>,
    /// How old a record may become before it is given up.
    pub maximum_record_age: Duration,
    /// Whether a batch that failed is split.
    pub bisect: bool,
    pub starting_position: StartingPosition,
    pub retry_delay: Duration,
    /// The clock that says how old a record is.
    pub clock: Clock,
}

impl Default for PollerOptions {
    /// The template's mapping, without its window.
    fn default() -> Self {
        let patterns = patterns().map(|json| serde_json::from_str(&json));
        let patterns = patterns.collect::<Result<_, _>>().expect("the patterns should be JSON");
        Self {
            batch_size: property("BatchSize"),
            window: Duration::ZERO,
            filter: Filter::new(patterns).expect("the template's filter should be known here"),
            maximum_retry_attempts: u32::try_from(property::<i64>("MaximumRetryAttempts")).ok(),
            maximum_record_age: Duration::from_secs(property("MaximumRecordAgeInSeconds")),
            bisect: property("BisectBatchOnFunctionError"),
            starting_position: StartingPosition::Latest,
            retry_delay: Duration::from_millis(100),
            clock: Clock::default(),
        }
    }
}

fn mapping() -> &'static str {
    let resource = TEMPLATE.split_once("\n  ExporterStream:\n").map(|(_, rest)| rest);
    let resource = resource.expect("the template should have the mapping");
    resource.split_once("\n\n").map_or(resource, |(mapping, _)| mapping)
}

fn property<T: FromStr>(name: &str) -> T {
    let value =
        mapping().lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
    let value = value.and_then(|value| value.parse().ok());
    value.unwrap_or_else(|| panic!("the template's mapping should have {name}"))
}

/// The filter's patterns. Each is text that goes on as far as it is indented.
fn patterns() -> impl Iterator<Item = String> {
    const INDENT: &str = "              ";
    mapping().split("- Pattern: >-\n").skip(1).map(|rest| {
        rest.lines().map_while(|line| line.strip_prefix(INDENT)).collect::<Vec<_>>().join(" ")
    })
}
