//! Errors of a function, as the function reports them or as Lambda words them.

use serde::{Deserialize, Serialize};

use super::logs::LogLine;

/// A Lambda error, as the function reported it or as Lambda words it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    #[serde(default)]
    pub error_type: String,
    #[serde(default)]
    pub error_message: String,
}

impl Failure {
    pub(super) fn new(error_type: &str, error_message: impl Into<String>) -> Self {
        Self { error_type: error_type.to_owned(), error_message: error_message.into() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.error_type, self.error_message)
    }
}

/// Why an invocation did not reach the function: its binary cannot be run, ended, or took too long, before it
/// asked for an invocation.
#[derive(Debug)]
pub struct StartError {
    /// How it ended.
    pub failure: Failure,
    pub logs: Vec<LogLine>,
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "the function did not start: {}", self.failure)?;
        self.logs.iter().try_for_each(|line| write!(f, "\n  {}", line.text))
    }
}

impl std::error::Error for StartError {}
