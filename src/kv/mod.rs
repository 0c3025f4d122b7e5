//! What KV holds and takes: values, their metadata, and KV's limits. Pure.

mod digest;
pub mod limits;
pub mod metadata;
pub mod stored;

use enum_map::Enum;
use serde::{Deserialize, Serialize};

pub use digest::Digest;
pub use limits::{LimitExceeded, check_key};
pub use metadata::{Metadata, Source};
pub use stored::{Pair, StoredSettings, StoredValue};

/// The two KV namespaces that the search proxy reads, as its bindings `KV` and `KV_QCFG`.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Enum, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Namespace {
    #[default]
    Settings,
    QueryConfigs,
}
