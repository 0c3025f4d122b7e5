//! Logs: JSON lines on standard output, at the level that Lambda's logging controls set.

use std::str::FromStr;

use tracing::level_filters::LevelFilter;

/// Starts logging; the level is `AWS_LAMBDA_LOG_LEVEL`, INFO where it is absent.
pub fn init() {
    #[expect(clippy::disallowed_methods, reason = "Lambda's own variable, needed before the rest")]
    let level = std::env::var("AWS_LAMBDA_LOG_LEVEL").unwrap_or_default();
    // Lambda says FATAL where `tracing` has nothing above ERROR.
    let level = if level.eq_ignore_ascii_case("FATAL") { "ERROR" } else { &level };
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_span_list(false)
        .with_max_level(LevelFilter::from_str(level).unwrap_or(LevelFilter::INFO))
        .init();
}
