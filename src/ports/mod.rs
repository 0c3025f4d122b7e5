//! What the exporter needs of the outside world, in its own types. One call is one attempt: retries,
//! budgets and deadlines are `export`'s, so that the simulation exercises them too. There are three
//! exceptions: the AWS SDK tries again, a refused token is read again and the request repeated once, and
//! keys that `BatchGetItem` leaves are asked for again.

mod api_keys;
mod kv;
mod table;

use std::time::{Duration, SystemTime};

pub use self::api_keys::{ApiKeyError, ApiKeyService, fits_a_url};
pub use self::kv::{BulkReply, KvError, KvStore, ListPage, Namespace, RateLimit};
pub use self::table::{QueryConfigs, ScanColumns, SettingsTable, TableError, TablePage};

/// The services of one deployment.
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
    /// Evenly distributed over 0.0 (included) to 1.0 (excluded): the share of a back-off's ceiling
    /// that is waited.
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

/// The wait that a service asks for, for the end of an error's sentence.
fn asked_wait(wait: Option<Duration>) -> String {
    wait.map(|wait| format!("; it asks to wait {} s", wait.as_secs())).unwrap_or_default()
}

/// An error with its verdict.
pub trait Retryable {
    fn retry(&self) -> Retry;
}
