//! What the runs print.

use std::error::Error;
use std::time::Duration;

pub type Outcome<T = ()> = Result<T, Box<dyn Error>>;

pub fn row(what: &str, figure: &str) {
    println!("| {what} | {figure} |");
}

pub fn millis(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}

pub fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}

pub fn megabytes(bytes: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "for a person to read")]
    let mb = bytes as f64 / 1_000_000.0;
    format!("{mb:.1} MB")
}
