//! The runs, one for each row of the table or a few.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::kv::KvVerb;
use testbed::lambda::{Function, FunctionOptions};
use testbed::stack::{Stack, StackOptions};
use testbed::table::TableRequest;

use crate::reconcile::{audits, reconcile};
use crate::workload::{event, index_item, minimal, query_config, typical};

const API_KEYS_LATENCY: Duration = Duration::from_millis(20);
const KV_LATENCY: Duration = Duration::from_millis(80);
const SECRETS_LATENCY: Duration = Duration::from_millis(30);
pub const ACCOUNTS: usize = 200;
const MB: f64 = 1_000_000.0;

pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// The runs, in order; the last ones take minutes.
const RUNS: [&str; 10] = [
    "size",
    "start",
    "warm",
    "latencies",
    "memory",
    "re-export",
    "removal",
    "reconcile",
    "million-re-export",
    "million-audit",
];

/// Prints every row, or those of the runs named; the runs of a million where `large`, or by name.
pub async fn all(large: bool, only: &[String]) -> Outcome {
    if let Some(unknown) = only.iter().find(|name| !RUNS.contains(&name.as_str())) {
        return Err(format!("no run {unknown:?}; there are {}", RUNS.join(", ")).into());
    }
    let chosen = |run: &str| match only {
        [] => large || !run.starts_with("million"),
        only => only.iter().any(|name| name == run),
    };
    for run in RUNS.into_iter().filter(|run| chosen(run)) {
        match run {
            "size" => size()?,
            "start" => {
                cold_start().await?;
                first_invocation().await?;
            }
            "warm" => warm().await?,
            "latencies" => latencies().await?,
            "memory" => memory().await?,
            "re-export" => re_export(100_000).await?,
            "removal" => removal().await?,
            "reconcile" => reconcile(10_000, 100_000).await?,
            "million-re-export" => re_export(1_000_000).await?,
            _ => audits(10_000, 980_000).await?,
        }
    }
    Ok(())
}

/// The deployable, as `cargo build --release` leaves it two folders above this program.
fn binary() -> Outcome<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.parent().and_then(Path::parent).ok_or("no target folder")?;
    Ok(folder.join("bootstrap"))
}

pub fn row(what: &str, figure: &str, target: &str) {
    println!("| {what} | {figure} | {target} |");
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

pub async fn function(stack: &Stack) -> Outcome<Function> {
    function_in(stack.env()).await
}

/// The function with this environment and Lambda's longest time-out.
pub async fn function_in(env: BTreeMap<String, String>) -> Outcome<Function> {
    let mut options = FunctionOptions::new(binary()?, env);
    options.timeout = Duration::from_secs(900);
    Ok(Function::start(options).await?)
}

pub async fn invoke(
    function: &Function,
    payload: impl std::fmt::Display,
) -> Outcome<(Value, Duration)> {
    let invocation = function.invoke_text(payload.to_string()).await?;
    let answer = invocation.result.map_err(|failure| format!("{failure:?}"))?;
    Ok((answer, invocation.duration))
}

fn size() -> Outcome {
    let bytes = std::fs::metadata(binary()?)?.len();
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    let mb = bytes as f64 / MB;
    row("binary", &format!("{mb:.1} MB"), "≤ 6 MB stripped");
    Ok(())
}

async fn cold_start() -> Outcome {
    let stack = Stack::start(StackOptions::default()).await?;
    let mut starts = Vec::new();
    let mut memory = 0;
    for _ in 0..21 {
        let function = function(&stack).await?;
        starts.extend(function.warm().await?);
        memory = function.usage().await?.peak_memory;
        function.stop().await;
    }
    row("cold start, spawn → first poll", &millis(median(starts)), "≤ 12 ms");
    row("resident after it", &megabytes(memory), "");
    Ok(())
}

/// 10,000 typical records would be more than Lambda delivers.
fn image(records: usize) -> fn(usize) -> Value {
    if records == 10_000 { minimal } else { typical }
}

/// Without latency: what the function itself takes.
async fn first_invocation() -> Outcome {
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
    row("spawn → first answer, no latencies", &millis(median(times)), "");
    Ok(())
}

async fn warm() -> Outcome {
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
            if records == 1_000 { "CPU ≤ 12 ms" } else { "" },
        );
        function.stop().await;
    }
    Ok(())
}

/// With latencies, against the critical path: token and API keys side by side, then the PUT.
async fn latencies() -> Outcome {
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
        "path + 10 ms",
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
            "path + 5 %",
        );
    }
    Ok(())
}

/// A batch as large as Lambda's 6 MB.
async fn memory() -> Outcome {
    let stack = Stack::start(StackOptions::default()).await?;
    stack.kv.discard(true);
    let function = function(&stack).await?;
    let one = event(1, 1, typical).len();
    let payload = event(6_000_000 / one, ACCOUNTS, typical);
    for _ in 0..5 {
        invoke(&function, &payload).await?;
    }
    let memory = function.usage().await?.peak_memory;
    row("peak memory, 6 MB batch", &megabytes(memory), "≤ 48 MB");
    Ok(())
}

async fn re_export(configs: usize) -> Outcome {
    let stack = Stack::start(StackOptions::default()).await?;
    stack.kv.discard(true);
    stack.table.load((0..1).map(|number| index_item(number, 1, typical(number))));
    stack
        .table
        .load((0..configs).map(|number| query_config("account-00000", "index-000000", number)));
    let function = function(&stack).await?;
    let payload = json!({
        "system_account_id": "account-00000", "index_name": "index-000000",
        "include_query_configs": true,
    });
    let (answer, time) = invoke(&function, &payload).await?;
    let usage = function.usage().await?;
    let exported = answer["query_configs"]["exported"].as_u64();
    if exported != Some(u64::try_from(configs)?) {
        return Err(format!("not all were exported: {answer}").into());
    }
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    let rate = configs as f64 / usage.cpu.as_secs_f64();
    let puts = stack.kv.log_of(KvVerb::PutBulk).len();
    row(
        &format!("re-export of {configs} query configs"),
        &format!(
            "{:.1} s, CPU {:.1} s ({rate:.0} a second of it), {}, {puts} PUTs, {} table requests",
            time.as_secs_f64(),
            usage.cpu.as_secs_f64(),
            megabytes(usage.peak_memory),
            stack.table.log().len()
        ),
        "≤ 64 MB, ≥ 100,000 a second",
    );
    Ok(())
}

/// One removal, and fifty, among 100,000 items.
async fn removal() -> Outcome {
    let stack = Stack::start(StackOptions::default()).await?;
    stack.table.load((0..10_000).map(|number| index_item(number, ACCOUNTS, typical(number))));
    stack
        .table
        .load((0..90_000).map(|number| query_config("account-00000", "index-000000", number)));
    let function = function(&stack).await?;
    for removals in [1, 50] {
        let records = (0..removals)
            .map(|number| {
                json!({
                    "eventName": "REMOVE", "eventSource": "aws:dynamodb",
                    "dynamodb": {
                        "Keys": {"pk": {"S": "gone"}, "sk": {"S": format!("INDEX#i{number}")}},
                        "SequenceNumber": format!("{number:021}"),
                    },
                })
            })
            .collect::<Vec<Value>>();
        for number in 0..removals {
            let value = json!({"system_account_id": "gone", "index_name": format!("i{number}")});
            let key = format!("gone-i{number}");
            stack.kv.put(testbed::stack::SETTINGS, &key, &value.to_string(), None);
        }
        stack.table.clear_log();
        let (_, time) = invoke(&function, &json!({ "Records": records })).await?;
        let log = stack.table.log();
        let bytes: usize = log.iter().map(|request| request.reply_bytes).sum();
        let scans: Vec<&TableRequest> =
            log.iter().filter(|request| request.operation == "Scan").collect();
        let units: f64 = scans.iter().map(|scan| scan.read_units).sum();
        let kind = match scans.iter().filter(|scan| scan.consistent).count() {
            consistent if consistent == scans.len() => "strongly consistent",
            0 => "eventually consistent",
            _ => "of both kinds",
        };
        row(
            &format!("{removals} removals among 100,000 items"),
            &format!(
                "{}, {:?}, {:.1} MB read, {units} read capacity units for the scans, {kind}",
                millis(time),
                stack.table.operations(),
                as_mb(bytes)
            ),
            "",
        );
    }
    Ok(())
}

pub fn megabytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    let mb = bytes as f64 / MB;
    format!("{mb:.1} MB")
}

fn as_mb(bytes: usize) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    let bytes = bytes as f64;
    bytes / MB
}
