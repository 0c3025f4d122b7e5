//! How an event source mapping is set up.

use std::time::Duration;

use crate::stream::StartingPosition;

/// How an event source mapping is set up.
#[derive(Debug, Clone)]
pub struct PollerOptions {
    /// The most records of a batch.
    pub batch_size: usize,
    /// How long a batch may wait for more records.
    pub window: Duration,
    /// Only records whose `sk` has this prefix are delivered.
    pub sk_prefix: String,
    /// Retries of a batch; `None` for any number.
    pub maximum_retry_attempts: Option<u32>,
    /// Whether a batch that failed is split.
    pub bisect: bool,
    /// Where reading begins.
    pub starting_position: StartingPosition,
    /// The pause before a retry.
    pub retry_delay: Duration,
}

impl Default for PollerOptions {
    /// Settings items without delay, three retries with bisect.
    fn default() -> Self {
        Self {
            batch_size: 100,
            window: Duration::ZERO,
            sk_prefix: "INDEX#".to_owned(),
            maximum_retry_attempts: Some(3),
            bisect: true,
            starting_position: StartingPosition::Latest,
            retry_delay: Duration::from_millis(100),
        }
    }
}
