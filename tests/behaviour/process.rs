//! The real binary as a function of a stack.

use serde_json::Value;
use testbed::lambda::{Function, Invocation, LogLine};
use testbed::stack::Stack;
use testbed::table::StreamView;

use crate::helpers::CheckedStack;

/// The binary that is deployed.
pub const BINARY: &str = env!("CARGO_BIN_EXE_bootstrap");

/// Stand-ins with the stream of production.
pub async fn stack() -> CheckedStack {
    CheckedStack::start(StreamView::NewImage).await
}

/// The same, and the binary on it.
pub async fn start() -> (CheckedStack, Function) {
    let stack = stack().await;
    let function = function(&stack, &[]).await;
    (stack, function)
}

/// The binary on a stack, with quick retries.
pub async fn function(stack: &Stack, more: &[(&str, &str)]) -> Function {
    let quick = [("HTTP_RETRY_BASE_MS", "1"), ("AWS_MAX_ATTEMPTS", "2")];
    stack.function(BINARY, quick.into_iter().chain(more.iter().copied())).await.unwrap()
}

/// Invokes the binary. Panics if it does not start.
pub async fn invoke(function: &Function, payload: &Value) -> Invocation {
    function.invoke(payload).await.unwrap_or_else(|error| panic!("{error}"))
}

/// Everything that was printed, in one text.
pub fn text(lines: &[LogLine]) -> String {
    lines.iter().map(|line| format!("{}\n", line.text)).collect()
}
