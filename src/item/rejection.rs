//! What is wrong with an item, named by its path.

use std::borrow::Cow;

use crate::kv::LimitExceeded;

/// Why an item can't be exported, however often that is tried. It quotes no value, so it may be logged.
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

    /// Returns the rejection of what `path` makes too long: the key, the metadata or the value.
    pub fn over_limit(path: &'static str) -> impl Fn(LimitExceeded) -> Self {
        move |LimitExceeded(reason)| Self::new(path, reason)
    }

    /// Returns the same rejection, with its path seen from outside of the attribute or element `name`.
    pub(super) fn inside(self, name: &str) -> Self {
        Self { path: format!("{name}.{}", self.path), ..self }
    }
}
