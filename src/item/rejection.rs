//! What is wrong with an item, named by its path.

use crate::kv::LimitExceeded;

/// Why an item can't be exported. Trying again can't help. It may be logged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {reason}")]
pub struct Rejection {
    /// The field at fault, as in `index_aliases.doc_reads.targets[0].weight`.
    pub path: String,
    /// A constant text, so it quotes no value.
    pub reason: &'static str,
}

impl Rejection {
    pub fn new(path: impl Into<String>, reason: &'static str) -> Self {
        Self { path: path.into(), reason }
    }

    /// Returns the rejection for a key, metadata or a value that the field at `path` makes too long.
    pub fn over_limit(path: &'static str) -> impl Fn(LimitExceeded) -> Self {
        move |LimitExceeded(reason)| Self::new(path, reason)
    }

    /// Returns the same rejection, with `name` before its path: the attribute or element that it is inside of.
    pub(super) fn inside(self, name: &str) -> Self {
        Self { path: format!("{name}.{}", self.path), ..self }
    }
}
