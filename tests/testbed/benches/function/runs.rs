//! The runs. Each prints one row of the table or a few.

mod batches;
mod re_export;
mod removal;
mod start;

use crate::report::Outcome;
use batches::{latencies, memory, warm};
use re_export::re_export;
use removal::removal;
use start::{cold_start, first_invocation, size};

/// The runs, in order; the last one takes minutes.
const RUNS: [&str; 8] =
    ["size", "start", "warm", "latencies", "memory", "re-export", "removal", "million-re-export"];

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
            _ => re_export(1_000_000).await?,
        }
    }
    Ok(())
}
