//! A sample of stale values: at which paths they differ from what the table asks for.

use std::collections::BTreeMap;

use super::report::Class;
use super::rows::Rows;
use crate::export::bulk;
use crate::export::differs::{ApiKeyCheck, differing_paths};
use crate::export::invocation::Invocation;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::{Namespace, Services};

/// What the values of a sample take at the most, in bytes: KV reads up to 25 MB at once.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The most paths that a report names.
const MAX_PATHS: usize = 20;

/// Stale keys, each with the value that its item asks for. May hold API keys: no `Debug`.
#[derive(Default)]
pub struct Samples {
    wanted: BTreeMap<String, String>,
    bytes: usize,
}

impl Samples {
    /// Takes in a value, while there is room.
    pub fn add(&mut self, key: &str, value: &str) {
        if self.wanted.len() < MAX_BULK_GET_KEYS && self.bytes + value.len() <= MAX_BYTES {
            self.bytes += value.len();
            self.wanted.insert(key.to_owned(), value.to_owned());
        }
    }

    /// Compares the sample with what KV holds: the paths that differ, each with the number of values
    /// in which it does. One request; where it fails, nothing is said.
    pub async fn differs<S: Services>(
        &self,
        invocation: &Invocation<'_, S>,
        namespace: Namespace,
        rows: &Rows,
    ) -> BTreeMap<String, u64> {
        let is_stale = |key: &&String| rows.is(key, Class::Stale);
        let keys: Vec<String> = self.wanted.keys().filter(is_stale).cloned().collect();
        let mut counts = BTreeMap::new();
        if keys.is_empty() || !invocation.has_turn() {
            return counts;
        }
        let (held, _) = bulk::read(invocation, namespace, keys).await;
        for (key, stored) in held {
            let wanted = self.wanted.get(&key).map(String::as_str).unwrap_or_default();
            for path in differing_paths(&stored.value, wanted, ApiKeyCheck::Compared) {
                *counts.entry(path).or_default() += 1;
            }
        }
        counts
    }
}

/// Adds the paths of another sample, and keeps those that differ most often.
pub fn add_paths(differs: &mut BTreeMap<String, u64>, more: BTreeMap<String, u64>) {
    for (path, count) in more {
        *differs.entry(path).or_default() += count;
    }
    let mut by_count: Vec<(String, u64)> = std::mem::take(differs).into_iter().collect();
    by_count.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    by_count.truncate(MAX_PATHS);
    differs.extend(by_count);
}
