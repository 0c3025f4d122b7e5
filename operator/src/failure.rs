//! How a command ends if it does not succeed.

use std::process::ExitCode;

/// Why a command did not succeed.
#[derive(Debug, PartialEq, Eq)]
pub enum Failure {
    /// It was not begun: what it was given makes no sense.
    Usage(String),
    /// It failed. The text says why, if its output has not said it yet.
    Failed(Option<String>),
    /// A repair ended, and did not begin what its brakes refused.
    Refused,
}

impl Failure {
    /// A failure with its reason.
    pub fn because(reason: impl Into<String>) -> Self {
        Self::Failed(Some(reason.into()))
    }

    /// What is left to say.
    pub fn said(&self) -> Option<&str> {
        match self {
            Self::Usage(reason) => Some(reason),
            Self::Failed(reason) => reason.as_deref(),
            Self::Refused => None,
        }
    }

    /// What scripts go by.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Failed(_) => 1,
            Self::Usage(_) => 2,
            Self::Refused => 3,
        })
    }
}
