//! What an invocation counts, and how that reaches the log and the metrics. Knows no use case.

pub mod lags;
pub mod logging;
pub mod metrics;
pub mod place;
pub mod stats;

pub use stats::Stats;
