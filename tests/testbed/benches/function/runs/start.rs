//! The size of the binary, and how it starts.

use std::time::Instant;

use testbed::stack::{Stack, StackOptions};

use crate::exporter::{binary, function, invoke};
use crate::report::{Outcome, median, megabytes, millis, row};
use crate::workload::{event, typical};

pub fn size() -> Outcome {
    let bytes = std::fs::metadata(binary()?)?.len();
    row("binary", &megabytes(bytes));
    Ok(())
}

pub async fn cold_start() -> Outcome {
    let stack = Stack::start(StackOptions::default()).await?;
    let mut starts = Vec::new();
    let mut memory = 0;
    for _ in 0..21 {
        let function = function(&stack).await?;
        starts.extend(function.warm().await?);
        memory = function.usage().await?.peak_memory;
        function.stop().await;
    }
    row("cold start, spawn → first poll", &millis(median(starts)));
    row("resident after it", &megabytes(memory));
    Ok(())
}

/// Without latencies: the time that the function itself takes.
pub async fn first_invocation() -> Outcome {
    let stack = Stack::start(StackOptions::default()).await?;
    let payload = event(1, 1, typical);
    let mut times = Vec::new();
    for _ in 0..11 {
        let function = function(&stack).await?;
        let started = Instant::now();
        invoke(&function, &payload).await?;
        times.push(started.elapsed());
        function.stop().await;
    }
    row("spawn → first answer, no latencies", &millis(median(times)));
    Ok(())
}
