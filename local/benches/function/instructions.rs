//! Where the instructions of a batch go, counted by callgrind.

use std::collections::BTreeMap;
use std::fs;

use local::lambda::{Function, FunctionOptions};
use local::stack::{Stack, StackOptions};

use crate::runs::{ACCOUNTS, Outcome, folder, invoke, row};
use crate::workload::{event, typical};

const RECORDS: usize = 1_000;
/// Invocations that are counted, beyond one that isn't: it pays for what is set up once.
const COUNTED: u64 = 3;

/// Prints the instructions a record by what they are for.
pub async fn account() -> Outcome {
    let once = count(1).await?;
    let more = count(1 + COUNTED).await?;
    let per_record = |purpose: &str| {
        let count = |counts: &BTreeMap<&str, u64>| counts.get(purpose).copied().unwrap_or(0);
        (count(&more) - count(&once).min(count(&more))) / COUNTED / RECORDS as u64
    };
    let mut rows: Vec<(u64, &str)> =
        more.keys().map(|purpose| (per_record(purpose), *purpose)).collect();
    rows.sort_unstable_by(|a, b| b.cmp(a));
    let all: u64 = rows.iter().map(|(count, _)| count).sum();
    row(&format!("instructions a record, {RECORDS} of {ACCOUNTS} accounts"), &all.to_string(), "");
    for (count, purpose) in rows {
        row(&format!("of these {purpose}"), &count.to_string(), "");
    }
    Ok(())
}

/// Runs the binary with symbols under callgrind for as many batches.
async fn count(batches: u64) -> Outcome<BTreeMap<&'static str, u64>> {
    let stack = Stack::start(StackOptions::default()).await?;
    stack.kv.discard(true);
    let binary = folder()?.with_file_name("symbols").join("release/bootstrap");
    let profile = folder()?.join(format!("callgrind-{batches}.out"));
    let mut options = FunctionOptions::new(binary, stack.env());
    options.runner = ["/usr/bin/env", "valgrind", "--tool=callgrind"].map(str::to_owned).to_vec();
    options.runner.push(format!("--callgrind-out-file={}", profile.display()));
    let function = Function::start(options).await?;
    let payload = event(RECORDS, ACCOUNTS, typical);
    for _ in 0..batches {
        invoke(&function, &payload).await?;
    }
    function.terminate().await?;
    Ok(by_purpose(&fs::read_to_string(profile)?))
}

/// Sums callgrind's own costs of each line by the file that the line is from; what a function has
/// inlined from the standard library counts to the function.
fn by_purpose(profile: &str) -> BTreeMap<&'static str, u64> {
    let mut names: BTreeMap<&str, &str> = BTreeMap::new();
    let mut sums = BTreeMap::new();
    let (mut function, mut purpose) = (OTHER, OTHER);
    let mut inclusive = false;
    for line in profile.lines() {
        if let Some((key, name)) = line.split_once('=') {
            match key {
                "fl" | "fi" | "fe" => {
                    let (id, path) = name.split_once(' ').unwrap_or((name, ""));
                    if !path.is_empty() {
                        names.insert(id, path);
                    }
                    let path = names.get(id).copied().unwrap_or_default();
                    purpose = purpose_of(path).unwrap_or(function);
                    if key == "fl" {
                        function = purpose_of(path).unwrap_or(OTHER);
                        purpose = function;
                    }
                }
                "calls" => inclusive = true,
                _ => {}
            }
            continue;
        }
        let mut fields = line.split_whitespace();
        let (Some(position), Some(cost)) = (fields.next(), fields.next()) else { continue };
        if !position.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '*')) {
            continue;
        }
        // The line behind `calls=` is what the callee costs, which stands with the callee.
        if std::mem::take(&mut inclusive) {
            continue;
        }
        *sums.entry(purpose).or_insert(0) += cost.parse::<u64>().unwrap_or(0);
    }
    sums
}

const OTHER: &str = "other, the standard library where it is not inlined among it";

fn purpose_of(path: &str) -> Option<&'static str> {
    const SCANNING: &str = "scanning JSON: serde_json";
    const DECODING: &str = "decoding and encoding a record: record, stream";
    const ENTRIES: &str = "values under keys: plan, export, entry, bulk";
    const REQUESTS: &str = "requests: services, reqwest, hyper, http, url";
    const PURPOSES: [(&str, &str); 27] = [
        ("/serde_json-", SCANNING),
        ("/serde-", SCANNING),
        ("/serde_core-", SCANNING),
        ("/memchr-", SCANNING),
        ("/serde_dynamo-", DECODING),
        ("src/record/", DECODING),
        ("src/stream.rs", DECODING),
        ("/base64-", DECODING),
        ("/zmij-", DECODING),
        ("src/plan.rs", ENTRIES),
        ("src/export.rs", ENTRIES),
        ("src/entry.rs", ENTRIES),
        ("src/digest.rs", ENTRIES),
        ("src/bulk.rs", ENTRIES),
        ("/sha2-", "hashing: sha2"),
        ("src/services/", REQUESTS),
        ("src/api_keys.rs", REQUESTS),
        ("/reqwest-", REQUESTS),
        ("/hyper", REQUESTS),
        ("/http", REQUESTS),
        ("/url-", REQUESTS),
        ("/idna", REQUESTS),
        ("/tower", REQUESTS),
        ("/tokio-", "waiting: tokio, futures"),
        ("/futures", "waiting: tokio, futures"),
        ("/lambda_runtime", "the Runtime API: lambda_runtime"),
        ("???", "libc: memory moved, compared, allocated"),
    ];
    PURPOSES.iter().find(|(part, _)| path.contains(part)).map(|(_, purpose)| *purpose)
}
