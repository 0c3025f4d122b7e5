//! The release binary over the Lambda Runtime API, against the stand-ins with set latencies.
//!
//! `make bench` builds it and prints the table; `make bench BASELINE=path/to/bootstrap` measures that one
//! beside it. Times are medians, and hold only for the machine that printed them.

mod workload;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::kv::KvVerb;
use testbed::lambda::{Function, FunctionOptions};
use testbed::stack::{Stack, StackOptions};
use workload::{ACCOUNTS, event, item, minimal, query_config, typical};

type Outcome<T = ()> = Result<T, Box<dyn Error>>;
/// What was measured, and what came out.
type Row = (String, String);

/// What the services take for a request.
const API_KEYS: Duration = Duration::from_millis(20);
const KV: Duration = Duration::from_millis(80);
const SECRETS: Duration = Duration::from_millis(30);

/// The batches: records, their accounts, and how often each is measured. 10,000 records fit into Lambda's
/// 6 MB only if they are small.
const BATCHES: [(usize, usize, usize); 4] =
    [(1, 1, 51), (100, 50, 31), (1_000, ACCOUNTS, 15), (10_000, ACCOUNTS, 5)];

const QUERY_CONFIGS: usize = 100_000;
/// Indexes that the audit compares.
const FLEET: usize = 20_000;

/// `function [NAME=PATH ...] [RUN ...]`: the binaries by their names, and the runs, all if none is named.
#[tokio::main]
async fn main() -> Outcome {
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (binaries, runs): (Vec<String>, Vec<String>) =
        arguments.partition(|argument| argument.contains('='));
    let mut columns = Vec::new();
    for binary in &binaries {
        let (name, path) = binary.split_once('=').unwrap_or_default();
        columns.push((name, measure(Path::new(path), &runs).await?));
    }
    let Some((_, first)) = columns.first() else {
        return Err("no binary: function NAME=PATH".into());
    };
    let cells = |figures: &[&str]| println!("| {} |", figures.join(" | "));
    let names: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    cells(&[&["what"][..], &names].concat());
    cells(&vec!["---"; names.len() + 1]);
    for (row, (what, _)) in first.iter().enumerate() {
        let figures: Vec<&str> = columns.iter().map(|(_, rows)| &*rows[row].1).collect();
        cells(&[&[&**what][..], &figures].concat());
    }
    Ok(())
}

async fn measure(binary: &Path, runs: &[String]) -> Outcome<Vec<Row>> {
    let mut rows = Vec::new();
    let chosen = |run: &str| runs.is_empty() || runs.iter().any(|name| name == run);
    if chosen("start") {
        rows.extend(start(binary).await?);
    }
    if chosen("batches") {
        for (records, accounts, repeats) in BATCHES {
            rows.push(batch(binary, records, accounts, repeats).await?);
        }
    }
    if chosen("memory") {
        rows.push(memory(binary).await?);
    }
    if chosen("re-export") {
        rows.push(re_export(binary).await?);
    }
    if chosen("audit") {
        rows.push(audit(binary).await?);
    }
    Ok(rows)
}

/// Stand-ins that take their time, and the binary on them with Lambda's longest time-out.
async fn bench(binary: &Path) -> Outcome<(Stack, Function)> {
    let stack = Stack::start(StackOptions::default()).await?;
    // Each repetition comes more than a second after the one before it.
    stack.kv.clock().set_speed(100_000);
    stack.kv.faults().set_latency(KV);
    stack.api_keys.faults().set_latency(API_KEYS);
    stack.secrets.faults().set_latency(SECRETS);
    let mut options = FunctionOptions::new(PathBuf::from(binary), stack.env());
    options.timeout = Duration::from_secs(900);
    Ok((stack, Function::start(options).await?))
}

/// Invokes the function. Returns its answer and how long that took.
async fn invoke(function: &Function, payload: &Value) -> Outcome<(Value, Duration)> {
    let invocation = function.invoke(payload).await?;
    let answer = invocation.result.map_err(|failure| failure.to_string())?;
    Ok((answer, invocation.duration))
}

async fn start(binary: &Path) -> Outcome<Vec<Row>> {
    let (_stack, function) = bench(binary).await?;
    let (mut polls, mut answers, mut memory) = (Vec::new(), Vec::new(), 0);
    for _ in 0..15 {
        let began = Instant::now();
        polls.extend(function.warm().await?);
        memory = function.usage().await.map_or(0, |usage| usage.peak_memory);
        invoke(&function, &event(1, 1, typical)).await?;
        answers.push(began.elapsed());
        function.stop().await;
    }
    Ok(vec![
        ("size of the binary".to_owned(), megabytes(std::fs::metadata(binary)?.len())),
        (
            "cold start, from the process to its first poll".to_owned(),
            format!("{}, {}", millis(median(polls)), megabytes(memory)),
        ),
        ("first change after a cold start".to_owned(), millis(median(answers))),
    ])
}

async fn batch(binary: &Path, records: usize, accounts: usize, repeats: usize) -> Outcome<Row> {
    let (stack, function) = bench(binary).await?;
    let image = if records == 10_000 { minimal } else { typical };
    stack.table.load((0..records).map(|number| item(number, accounts, image(number))));
    let payload = event(records, accounts, image);
    invoke(&function, &payload).await?;
    stack.kv.clear_log();
    stack.table.clear_log();
    let before = cpu(&function).await;
    let mut times = Vec::new();
    for _ in 0..repeats {
        times.push(invoke(&function, &payload).await?.1);
    }
    let cpu = (cpu(&function).await - before) / u32::try_from(repeats)?;
    let puts = stack.kv.log_of(KvVerb::PutBulk).len() / repeats;
    let reads = stack.table.log().len() / repeats;
    let what = format!("batch of {records}, accounts: {accounts}");
    let time = millis(median(times));
    Ok((what, format!("{time}, CPU {}; {puts} PUT, {reads} table requests", millis(cpu))))
}

/// A batch as large as Lambda's 6 MB.
async fn memory(binary: &Path) -> Outcome<Row> {
    let (stack, function) = bench(binary).await?;
    let records = 6_000_000 / event(1, 1, typical).to_string().len();
    stack.table.load((0..records).map(|number| item(number, ACCOUNTS, typical(number))));
    for _ in 0..5 {
        invoke(&function, &event(records, ACCOUNTS, typical)).await?;
    }
    let memory = function.usage().await.map_or(0, |usage| usage.peak_memory);
    Ok(("memory at the peak, batches of 6 MB".to_owned(), megabytes(memory)))
}

async fn re_export(binary: &Path) -> Outcome<Row> {
    let (stack, function) = bench(binary).await?;
    let config = |number| query_config("account-00000", "index-000000", number);
    stack.table.load([item(0, 1, typical(0))]);
    stack.table.load((0..QUERY_CONFIGS).map(config));
    let payload = json!({
        "system_account_id": "account-00000", "index_name": "index-000000",
        "include_query_configs": true,
    });
    let (answer, time) = invoke(&function, &payload).await?;
    if answer["query_configs"]["exported"] != QUERY_CONFIGS {
        return Err(format!("not all were exported: {answer}").into());
    }
    Ok((
        format!("re-export of {QUERY_CONFIGS} query configs"),
        costs(&stack, &function, time).await,
    ))
}

async fn audit(binary: &Path) -> Outcome<Row> {
    let (stack, function) = bench(binary).await?;
    stack.table.load((0..FLEET).map(|number| item(number, ACCOUNTS, typical(number))));
    let (answer, time) = invoke(&function, &json!({"reconcile": {}})).await?;
    if answer["settings"]["missing"] != 2 * FLEET {
        return Err(format!("not all were compared: {answer}").into());
    }
    Ok((format!("audit of {FLEET} indexes"), costs(&stack, &function, time).await))
}

async fn costs(stack: &Stack, function: &Function, time: Duration) -> String {
    let memory = function.usage().await.map_or(0, |usage| usage.peak_memory);
    let (kv, table) = (stack.kv.log().len(), stack.table.log().len());
    format!(
        "{:.1} s, CPU {:.1} s, {}; {kv} KV and {table} table requests",
        time.as_secs_f64(),
        cpu(function).await.as_secs_f64(),
        megabytes(memory),
    )
}

/// Only Linux says it.
async fn cpu(function: &Function) -> Duration {
    function.usage().await.map_or(Duration::ZERO, |usage| usage.cpu)
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}
