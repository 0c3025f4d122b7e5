//! The runs. Each prints one row of the table or a few.

mod batches;
mod re_export;
mod reconcile;
mod removal;
mod start;

use crate::report::Outcome;
use batches::{latencies, memory, warm};
use re_export::re_export;
use reconcile::{audits, reconcile};
use removal::removal;
use start::{cold_start, first_invocation, size};

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

/// Makes all runs, or those that `only` names. Runs of a million items need `large`, or their name.
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
