//! The published versions of a function, and its alias `live`, which points at one of them.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// A version: a binary with its variables.
#[derive(Debug, Clone)]
pub struct Version {
    pub binary: PathBuf,
    /// The environment that is the function's own.
    pub env: BTreeMap<String, String>,
}

/// All versions of a function. The first one has the number 1.
pub(super) struct Versions {
    published: Vec<Version>,
    live: usize,
}

impl Versions {
    pub fn new(first: Version) -> Self {
        Self { published: vec![first], live: 1 }
    }

    pub fn publish(&mut self, version: Version) {
        self.published.push(version);
        self.live = self.published.len();
    }

    /// The version that invocations use, and its number.
    pub fn live(&self) -> (usize, &Version) {
        (self.live, &self.published[self.live - 1])
    }

    /// Points the alias at another version. False if there is none with this number.
    pub fn point_at(&mut self, number: usize) -> bool {
        let known = (1..=self.published.len()).contains(&number);
        if known {
            self.live = number;
        }
        known
    }
}
