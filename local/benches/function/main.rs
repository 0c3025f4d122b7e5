//! The release binary over the Lambda Runtime API, against local services with set latencies.
//!
//! `make bench` builds that binary and prints the table; `make bench LARGE=large` adds the runs that
//! take minutes.
//! Figures are medians. Ratios to the critical path of the requests hold on any machine, the rest
//! on the one that printed them.

mod runs;
mod workload;

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let large = std::env::args().any(|argument| argument == "large");
    println!("| what | figure | target |\n| --- | --- | --- |");
    match runs::all(large).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
