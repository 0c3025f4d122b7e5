//! The release binary as a function.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use testbed::lambda::{Function, FunctionOptions};
use testbed::stack::Stack;

use crate::report::Outcome;

/// The release binary, which `cargo build --release` puts into the folder above this program's.
pub fn binary() -> Outcome<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.parent().and_then(Path::parent).ok_or("no target folder")?;
    Ok(folder.join("bootstrap"))
}

/// The function with the stack's environment and Lambda's longest time-out.
pub async fn function(stack: &Stack) -> Outcome<Function> {
    let mut options = FunctionOptions::new(binary()?, stack.env());
    options.timeout = Duration::from_secs(900);
    Ok(Function::start(options).await?)
}

/// Invokes the function. Returns its answer and how long that took.
pub async fn invoke(
    function: &Function,
    payload: impl std::fmt::Display,
) -> Outcome<(Value, Duration)> {
    let invocation = function.invoke_text(payload.to_string()).await?;
    let answer = invocation.result.map_err(|failure| format!("{failure:?}"))?;
    Ok((answer, invocation.duration))
}
