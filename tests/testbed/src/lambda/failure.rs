//! Errors of a function, as the function reports them or as Lambda words them.

use std::io;
use std::path::PathBuf;

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

impl From<&StartError> for Failure {
    /// What an invoker sees of a function that does not start.
    fn from(error: &StartError) -> Self {
        match error {
            StartError::Init { failure, .. } => failure.clone(),
            StartError::Spawn(..) => Self::new("Runtime.InvalidEntrypoint", error.to_string()),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.error_type, self.error_message)
    }
}

/// Why an invocation did not reach the function.
#[derive(Debug)]
pub enum StartError {
    /// The binary cannot be run.
    Spawn(PathBuf, io::Error),
    /// It ended, or took too long, before it asked for an invocation.
    Init {
        /// What it reported, else how it ended.
        failure: Failure,
        logs: Vec<LogLine>,
    },
}

impl std::fmt::Display for StartError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Spawn(binary, error) => write!(f, "{} cannot be run: {error}", binary.display()),
            Self::Init { failure, logs } => {
                write!(f, "the function did not start: {failure}")?;
                logs.iter().try_for_each(|line| write!(f, "\n  {}", line.text))
            }
        }
    }
}

impl std::error::Error for StartError {}
