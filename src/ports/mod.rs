//! What the exporter needs from the outside world, in its own types. A call is one attempt: retries,
//! budgets and deadlines belong to `export`, so that the simulation exercises them too. There are three
//! exceptions: the AWS SDK retries, a request with a refused token is repeated once with a token that was
//! read again, and keys that `BatchGetItem` leaves unprocessed are asked for again.

#![expect(async_fn_in_trait, reason = "the function runs on one thread: no future needs Send")]

mod api_keys;
mod kv;
mod table;

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error_chain::Chain;

pub use self::api_keys::{ApiKeyError, ApiKeyService, fits_a_url};
pub use self::kv::{BulkReply, KvError, KvStore, ListPage};
pub use self::table::{ScanColumns, SettingsTable, TableError, TablePage, TablePart};
pub use crate::kv::Namespace;

pub trait Services: Clock {
    fn kv(&self) -> &impl KvStore;
    fn api_keys(&self) -> &impl ApiKeyService;
    fn table(&self) -> &impl SettingsTable;
}

/// Time and chance. Monotonic time and sleeping are tokio's, which tests can pause.
pub trait Clock {
    fn now(&self) -> SystemTime;
    /// Returns which share of a back-off's ceiling to wait, evenly distributed from 0.0 up to but not including 1.0.
    fn jitter(&self) -> f64;
}

/// What to wait for before the same request is sent again within the same invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Whether to wait for a whole back-off, and not only for a random part of it.
    pub after_whole_back_off: bool,
    /// The shortest wait that the service asks for.
    pub asked_wait: Option<Duration>,
}

pub trait Retryable: Error {
    /// Returns `None` if the same request would fail again.
    fn retry(&self) -> Option<Retry>;
}

/// Why a request failed, in words, and the wait that the service asks for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}{}", in_words(*asked_wait))]
pub struct Cause {
    pub reason: Arc<str>,
    pub asked_wait: Option<Duration>,
}

impl Cause {
    /// Returns the cause that an error tells with its own causes.
    pub fn new(error: impl Into<Box<dyn Error>>) -> Self {
        Self { reason: Chain(&*error.into()).to_string().into(), asked_wait: None }
    }
}

/// Returns the end of an error's sentence: the wait that the service asks for.
fn in_words(wait: Option<Duration>) -> String {
    wait.map(|wait| format!("; it asks to wait {} s", wait.as_secs())).unwrap_or_default()
}
