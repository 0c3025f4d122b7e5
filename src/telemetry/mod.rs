//! What an invocation counts, and how that reaches the log and the metrics. Knows no use case.

pub mod logging;
pub mod stats;

pub use stats::{Metrics, Stats};
