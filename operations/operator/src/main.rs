//! `operator`: the commands of whoever is on call for the settings exporter.
//!
//! It works on a deployed stack through the AWS CLI, and on the local one over HTTP. Progress and errors
//! go to standard error. Reports go to standard output: for people, or as JSON with `RAW=true`.

mod aws;
mod commands;
mod execution;
mod explain;
mod history;
mod local;
mod place;
mod reconcile;
mod report;
mod status;
mod terminal;
mod words;

use std::fmt::Display;
use std::process::ExitCode;

/// How a command ends that did not succeed: the exit code, which scripts go by, and why.
struct Failure {
    code: u8,
    why: String,
}

/// It was not done.
fn failed(why: impl Display) -> Failure {
    Failure { code: 1, why: why.to_string() }
}

/// It was not begun: what it was given makes no sense.
fn wrong_use(why: impl Display) -> Failure {
    Failure { code: 2, why: why.to_string() }
}

/// Turns an error into a failure that says what it happened to.
fn at<E: Display>(what: impl Display) -> impl FnOnce(E) -> Failure {
    move |error| failed(format_args!("{what}: {error}"))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let variable = |name: &str| {
        let value = std::env::var_os(name)?.into_string().ok()?;
        (!value.is_empty()).then_some(value)
    };
    match commands::run(&arguments, &variable) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure { code, why }) => {
            terminal::say(&why);
            ExitCode::from(code)
        }
    }
}
