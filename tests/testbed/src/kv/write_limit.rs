//! KV's limit of one write or delete a second and key.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

/// How often one key may be written.
pub const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// How a write is refused whose key was written within the last second. The documentation has a 429 for
/// the key, and a list of keys to be sent again in the answers to bulk requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RapidWrites {
    /// Only the key is refused, with this status: it is one of `unsuccessful_keys`.
    RefusedByKey {
        /// 429 or 200.
        status: u16,
        /// Whether the answer carries `Retry-After`.
        retry_after: bool,
    },
    RefusedWhole {
        /// Whether the answer carries `Retry-After`.
        retry_after: bool,
    },
    Allowed,
}

#[derive(Default)]
pub struct Written(BTreeMap<String, SystemTime>);

impl Written {
    /// Whether a key was written within the last second.
    pub fn is_recent(&self, key: &str, now: SystemTime) -> bool {
        let age = self.0.get(key).map(|at| now.duration_since(*at).unwrap_or_default());
        age.is_some_and(|age| age < WRITE_INTERVAL)
    }

    pub fn note<'a>(&mut self, keys: impl Iterator<Item = &'a String>, now: SystemTime) {
        self.0.retain(|_, at| now.duration_since(*at).unwrap_or_default() < WRITE_INTERVAL);
        self.0.extend(keys.map(|key| (key.clone(), now)));
    }
}
