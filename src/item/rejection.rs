//! Why an item can't be exported.

use std::borrow::Cow;

use crate::kv::LimitExceeded;

/// An item that can't be exported however often it is tried: what is wrong, and where.
///
/// Holds no value of the item, so it may be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Rejection {
    /// The field at fault, as in `index_aliases.doc_reads.targets[0].weight`.
    pub path: String,
    pub reason: Cow<'static, str>,
}

impl Rejection {
    pub fn new(path: impl Into<String>, reason: impl Into<Cow<'static, str>>) -> Self {
        Self { path: path.into(), reason: reason.into() }
    }

    /// A rejection for one of KV's limits. `path` is the field that makes the key or the metadata too long.
    pub fn over_limit(path: &str, limit: LimitExceeded) -> Self {
        let path = if limit == LimitExceeded::LargeValue { "(value)" } else { path };
        Self::new(path, limit.to_string())
    }
}
