//! How a command ends if it does not succeed.

use std::fmt::Display;
use std::process::ExitCode;

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
    pub fn because(reason: impl Into<String>) -> Self {
        Self::Failed(Some(reason.into()))
    }

    /// An error with what it happened to.
    pub fn of(what: impl Display, error: impl Display) -> Self {
        Self::because(format!("{what}: {error}"))
    }

    pub fn usage(reason: impl Into<String>) -> Self {
        Self::Usage(reason.into())
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

/// The message of a Lambda error, with the error's name, which some messages hold already.
pub fn named(kind: &str, message: &str) -> String {
    let named = format!("{kind}: ");
    if message.contains(&named) { message.to_owned() } else { named + message }
}
