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

/// Sums callgrind's own costs of each line by what the line's file is for, else by what its function
/// is for: the standard library's lines count to what they are inlined in.
fn by_purpose(profile: &str) -> BTreeMap<&'static str, u64> {
    let mut names: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let (mut object, mut function, mut file) = ("", "", "");
    let mut sums = BTreeMap::new();
    let mut inclusive = false;
    for line in profile.lines() {
        if let Some((key, name)) = line.split_once('=') {
            let (kind, place) = match key {
                "ob" => ("object", Some(&mut object)),
                "cob" => ("object", None),
                "fn" => ("function", Some(&mut function)),
                "cfn" => ("function", None),
                "fl" | "fi" | "fe" => ("file", Some(&mut file)),
                "cfi" | "cfl" => ("file", None),
                key => {
                    inclusive |= key == "calls";
                    continue;
                }
            };
            // A name is written out where it is first used, and is its number from then on.
            let (id, written) = name.split_once(' ').unwrap_or((name, ""));
            if !written.is_empty() {
                names.insert((kind, id), written);
            }
            if let Some(place) = place {
                *place = names.get(&(kind, id)).copied().unwrap_or_default();
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
        let purpose = match object.contains("/libc.so") {
            true => LIBC,
            false => purpose_of(file).or_else(|| purpose_of(function)).unwrap_or(OTHER),
        };
        *sums.entry(purpose).or_insert(0) += cost.parse::<u64>().unwrap_or(0);
    }
    sums
}

const OTHER: &str = "other";
const LIBC: &str = "libc: memory moved, compared, allocated";

/// The crates and the function's own files by what they are for; the first that fits counts.
const PURPOSES: [(&str, &[&str]); 6] = [
    ("hashing: sha2", &["sha2"]),
    (
        "encoding its value: record/json, record/encoded, entry, digest",
        &["src/record/json", "src/record/encoded", "src/entry", "src/digest"],
    ),
    (
        "decoding a record: payload, stream, cursor, record, serde_json",
        &[
            "src/payload",
            "src/stream",
            "src/cursor",
            "src/record",
            "serde",
            "serde_core",
            "serde_json",
            "memchr",
            "base64",
            "zmij",
        ],
    ),
    (
        "values under keys: plan, export, bulk, settings_keys, hashing of names",
        &["src/plan", "src/export", "src/bulk", "src/settings_keys", "core::hash"],
    ),
    (
        "requests and waiting: services, api_keys, reqwest, hyper, http, url, tokio",
        &[
            "src/services",
            "src/api_keys",
            "reqwest",
            "hyper",
            "hyper-util",
            "hyper_util",
            "http",
            "http-body",
            "http_body",
            "url",
            "idna",
            "percent-encoding",
            "tower",
            "tower-http",
            "tokio",
            "futures-util",
            "futures_util",
        ],
    ),
    ("the Runtime API: lambda_runtime", &["lambda_runtime"]),
];

/// What a source file or a function is for.
fn purpose_of(name: &str) -> Option<&'static str> {
    let is_of = |part: &&str| match part.strip_prefix("src/") {
        Some(module) => {
            name.contains(part)
                || name.contains(&format!("exporter::{}", module.replace('/', "::")))
        }
        None => name.contains(&format!("/{part}-")) || name.contains(&format!("{part}::")),
    };
    let found = PURPOSES.iter().find(|(_, parts)| parts.iter().any(is_of));
    found.map(|(purpose, _)| *purpose)
}
