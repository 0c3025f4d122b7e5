//! What the exporter needs of the outside world, in its own types. One call is one attempt: retries,
//! budgets and deadlines are `export`'s, so that the simulation exercises them too. There are three
//! exceptions: the AWS SDK tries again, a refused token is read again and the request repeated once, and
//! keys that `BatchGetItem` leaves are asked for again.

mod api_keys;
mod kv;
mod table;

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::error_chain::Chain;

pub use self::api_keys::{ApiKeyError, ApiKeyService, fits_a_url};
pub use self::kv::{BulkReply, KvError, KvStore, ListPage, RateLimit};
pub use self::table::{Query, ScanColumns, SettingsTable, TableError, TablePage};
pub use crate::kv::Namespace;

pub trait Services {
    type Kv: KvStore;
    type ApiKeys: ApiKeyService;
    type Table: SettingsTable;
    type Clock: Clock;

    fn kv(&self) -> &Self::Kv;
    fn api_keys(&self) -> &Self::ApiKeys;
    fn table(&self) -> &Self::Table;
    fn clock(&self) -> &Self::Clock;
    /// How long the readings of the Cloudflare token's secret took that ended since this was last
    /// called. They belong to no call of a port: the first one is under way before any invocation.
    fn take_secret_readings(&self) -> Vec<Duration> {
        Vec::new()
    }
}

/// Time and chance. Monotonic time and sleeping are tokio's, which tests can pause.
pub trait Clock {
    fn now(&self) -> SystemTime;
    /// The share of a back-off's ceiling that is waited: from 0.0 to 1.0 (excluded), evenly distributed.
    fn jitter(&self) -> f64;
}

/// Whether the same request may be sent again within the same invocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again.
    Never,
    /// After the usual wait, and no earlier than the service asks for.
    After(Option<Duration>),
    /// After a whole back-off at the least, where the service asks for no other wait.
    AfterWholeBackOff(Option<Duration>),
}

pub trait Retryable: Error {
    fn retry(&self) -> Retry;
}

/// Why a request failed: what the service or the network said, and the wait that the service asks for.
/// Equal are two that say the same.
#[derive(Debug, Clone)]
pub struct Cause {
    pub error: Arc<dyn Error + Send + Sync>,
    pub asked_wait: Option<Duration>,
}

impl Cause {
    pub fn new(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { error: error.into().into(), asked_wait: None }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.error, asked_wait(self.asked_wait))
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.error.source()
    }
}

impl PartialEq for Cause {
    fn eq(&self, other: &Self) -> bool {
        Chain(self).to_string() == Chain(other).to_string()
    }
}

impl Eq for Cause {}

/// The wait that a service asks for, for the end of an error's sentence.
fn asked_wait(wait: Option<Duration>) -> String {
    wait.map(|wait| format!("; it asks to wait {} s", wait.as_secs())).unwrap_or_default()
}
