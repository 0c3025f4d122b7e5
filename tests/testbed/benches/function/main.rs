//! The release binary over the Lambda Runtime API, against local services with set latencies.
//!
//! `make bench` builds that binary and prints the table. `make bench LARGE=large` adds the runs
//! that take minutes, `make bench ONLY="warm memory"` makes only the named runs.
//!
//! Figures are medians. Ratios to the critical path of the requests hold on any machine; all other
//! figures hold only on the machine that printed them.

mod exporter;
mod report;
mod runs;
mod workload;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    // Cargo adds `--bench` to the arguments.
    let mut only: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let large = only.iter().any(|argument| argument == "large");
    only.retain(|argument| argument != "large");
    println!("| what | figure |\n| --- | --- |");
    match runs::all(large, &only).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
