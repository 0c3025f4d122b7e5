//! What KV holds and takes: values, their metadata, and KV's limits. Pure.

pub mod limits;
pub mod stored;

use std::fmt;

use enum_map::Enum;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

pub use limits::check_key;
pub use stored::{Metadata, Pair, Source, StoredSettings, StoredValue};

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

/// A SHA-256 digest, written as 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Digest(#[serde(with = "hex::serde")] [u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}
