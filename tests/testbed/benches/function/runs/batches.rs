//! Batches of the stream: without latencies, with them, and the largest.

use std::time::Duration;

use serde_json::Value;
use testbed::kv::KvVerb;
use testbed::stack::{Stack, StackOptions};

use crate::exporter::{function, invoke};
use crate::report::{Outcome, median, megabytes, millis, row};
use crate::workload::{ACCOUNTS, event, minimal, typical};

const API_KEYS_LATENCY: Duration = Duration::from_millis(20);
const KV_LATENCY: Duration = Duration::from_millis(80);
const SECRETS_LATENCY: Duration = Duration::from_millis(30);

/// 10,000 typical records are more than Lambda delivers.
fn image(records: usize) -> fn(usize) -> Value {
    if records == 10_000 { minimal } else { typical }
}

pub async fn warm() -> Outcome {
    for (records, accounts, repeats) in
        [(1, 1, 51), (100, 50, 31), (1_000, ACCOUNTS, 15), (10_000, ACCOUNTS, 7)]
    {
        let stack = Stack::start(StackOptions::default()).await?;
        stack.kv.discard(true);
        let function = function(&stack).await?;
        let payload = event(records, accounts, image(records));
        invoke(&function, &payload).await?;
        stack.kv.clear_log();
        stack.api_keys.clear_log();
        let before = function.usage().await?.cpu;
        let mut times = Vec::new();
        for _ in 0..repeats {
            times.push(invoke(&function, &payload).await?.1);
        }
        let cpu = (function.usage().await?.cpu - before) / u32::try_from(repeats)?;
        let puts = stack.kv.log_of(KvVerb::PutBulk).len() / repeats;
        let keys = stack.api_keys.log().len() / repeats;
        let others = stack.kv.log().len() / repeats - puts + stack.table.log().len();
        row(
            &format!("warm, {records} records of {accounts} accounts, no latencies"),
            &format!(
                "{}, CPU {}; {puts} PUT, {keys} key requests, {others} others",
                millis(median(times)),
                millis(cpu)
            ),
        );
        function.stop().await;
    }
    Ok(())
}

/// With latencies, against the critical path: the token and the API keys together, then the PUT.
pub async fn latencies() -> Outcome {
    let stack = Stack::start(StackOptions::default()).await?;
    stack.kv.discard(true);
    stack.kv.faults().set_latency(KV_LATENCY);
    stack.api_keys.faults().set_latency(API_KEYS_LATENCY);
    stack.secrets.faults().set_latency(SECRETS_LATENCY);
    let payload = event(1, 1, typical);
    let mut times = Vec::new();
    for _ in 0..7 {
        let function = function(&stack).await?;
        function.warm().await?;
        times.push(invoke(&function, &payload).await?.1);
        function.stop().await;
    }
    let path = SECRETS_LATENCY.max(API_KEYS_LATENCY) + KV_LATENCY;
    row(
        "first invocation after a cold start",
        &format!("{} for a path of {}", millis(median(times)), millis(path)),
    );
    let function = function(&stack).await?;
    let path = API_KEYS_LATENCY + KV_LATENCY;
    for (records, accounts) in [(1, 1), (100, 50), (1_000, ACCOUNTS), (10_000, ACCOUNTS)] {
        let payload = event(records, accounts, image(records));
        invoke(&function, &payload).await?;
        let mut times = Vec::new();
        for _ in 0..7 {
            times.push(invoke(&function, &payload).await?.1);
        }
        let time = median(times);
        let over = (time.as_secs_f64() / path.as_secs_f64() - 1.0) * 100.0;
        row(
            &format!("warm, {records} records, latencies"),
            &format!("{} for a path of {} (+{over:.0} %)", millis(time), millis(path)),
        );
    }
    Ok(())
}

/// A batch as large as Lambda's 6 MB.
pub async fn memory() -> Outcome {
    let stack = Stack::start(StackOptions::default()).await?;
    stack.kv.discard(true);
    let function = function(&stack).await?;
    let one = event(1, 1, typical).len();
    let payload = event(6_000_000 / one, ACCOUNTS, typical);
    for _ in 0..5 {
        invoke(&function, &payload).await?;
    }
    let memory = function.usage().await?.peak_memory;
    row("peak memory, 6 MB batch", &megabytes(memory));
    Ok(())
}
