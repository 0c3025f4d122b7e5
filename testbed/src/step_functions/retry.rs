//! Which errors a task tries again after, and when.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

/// One entry of `Retry`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Retrier {
    #[serde(deserialize_with = "errors")]
    error_equals: Vec<String>,
    interval_seconds: u32,
    backoff_rate: f64,
    max_attempts: u32,
}

impl Retrier {
    /// The wait before the try after `tries` retries; none if there is no further try.
    pub fn wait(&self, error: &str, tries: u32, second: Duration) -> Option<Duration> {
        if tries >= self.max_attempts || !names(&self.error_equals, error) {
            return None;
        }
        let seconds = f64::from(self.interval_seconds) * self.backoff_rate.powf(f64::from(tries));
        Some(second.mul_f64(seconds))
    }
}

/// Whether a list of errors names this one.
pub fn names(list: &[String], error: &str) -> bool {
    list.iter().any(|name| name == error || name == ALL)
}

const ALL: &str = "States.ALL";

/// A list of names of errors.
pub fn errors<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let names: Vec<String> = Vec::deserialize(deserializer)?;
    let known =
        |name: &str| !name.starts_with("States.") || [ALL, "States.Timeout"].contains(&name);
    match names.iter().find(|name| !known(name)) {
        Some(name) => Err(D::Error::custom(format!("{name}: an error that nothing here ends in"))),
        None => Ok(names),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_until_no_try_is_left_and_only_after_the_errors_named() {
        let retry = r#"{"ErrorEquals": ["Known"], "IntervalSeconds": 60, "BackoffRate": 2,
            "MaxAttempts": 3}"#;
        let retrier: Retrier = serde_json::from_str(retry).unwrap();
        let wait = |error, tries| retrier.wait(error, tries, Duration::from_secs(1));

        let waits: Vec<_> = (0..4).map(|tries| wait("Known", tries)).collect();
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        assert_eq!(waits, [seconds(60), seconds(120), seconds(240), None]);
        assert_eq!(wait("Unknown", 0), None);
    }
}
