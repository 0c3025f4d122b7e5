//! Logs: JSON lines on standard output, at the level that Lambda's logging controls set.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::prelude::*;

/// Starts logging; the level is `AWS_LAMBDA_LOG_LEVEL`, INFO where it is absent.
pub fn init() {
    #[expect(clippy::disallowed_methods, reason = "Lambda's own variable, needed before the rest")]
    let level = level(std::env::var("AWS_LAMBDA_LOG_LEVEL").ok().as_deref());
    let filter = Targets::new()
        // Below INFO the SDK logs the items that it reads, with their settings.
        .with_default(level.min(LevelFilter::INFO))
        .with_target("ecom_settings_exporter", level)
        // The runtime logs each error of an invocation once more, without its fields.
        .with_target("lambda_runtime::layers::panic", LevelFilter::OFF);
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_span_list(false);
    tracing_subscriber::registry().with(lines.with_filter(filter)).init();
    // The message could quote anything, and the place is enough to find the fault. In the deployed build the
    // process then ends, and Lambda starts another.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!(place = panic.location().map(ToString::to_string), "panic");
    }));
}

fn level(name: Option<&str>) -> LevelFilter {
    match name {
        // An empty name would parse as ERROR.
        None | Some("") => LevelFilter::INFO,
        // Lambda has the level FATAL, and `tracing` has nothing above ERROR.
        Some(name) if name.eq_ignore_ascii_case("FATAL") => LevelFilter::ERROR,
        Some(name) => name.parse().unwrap_or(LevelFilter::INFO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lambdas_levels_are_understood_and_info_is_the_default() {
        for (name, expected) in [
            (None, LevelFilter::INFO),
            (Some(""), LevelFilter::INFO),
            (Some("nonsense"), LevelFilter::INFO),
            (Some("TRACE"), LevelFilter::TRACE),
            (Some("ERROR"), LevelFilter::ERROR),
            (Some("FATAL"), LevelFilter::ERROR),
        ] {
            assert_eq!(level(name), expected, "{name:?}");
        }
    }
}
