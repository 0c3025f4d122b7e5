//! Which query configs' keys another environment has written: they are never deleted.

use std::collections::{BTreeMap, BTreeSet};

use super::bulk;
use super::invocation::Invocation;
use crate::item::keys::{index_id_in_query_config_key, query_config_key_prefix};
use crate::kv::StoredValue;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::{Namespace, Services};

/// Who finds the keys that another environment has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherEnvironments {
    /// Nobody yet: KV is asked.
    Unknown,
    /// The caller, which has read or written the keys and left those of others out.
    LeftOut,
}

#[derive(Debug, Default)]
pub struct Found {
    pub theirs: BTreeSet<String>,
    pub failed: bulk::Failures,
}

pub async fn find<S: Services>(invocation: &Invocation<'_, S>, keys: Vec<String>) -> Found {
    let mut found = Found::default();
    let mut by_name = Vec::new();
    let mut of_index: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for key in keys {
        let index_id = index_id_in_query_config_key(&key).unwrap_or_default().to_owned();
        of_index.entry(index_id).or_default().insert(key);
    }
    for (index_id, keys) in of_index {
        if keys.len() <= MAX_BULK_GET_KEYS {
            by_name.extend(keys);
        } else {
            by_name.extend(found.list(invocation, &index_id, keys).await);
        }
    }
    let environment = &invocation.config.environment;
    let (held, failed) = bulk::read(invocation, Namespace::QueryConfigs, by_name).await;
    let is_theirs = |stored: &StoredValue| !stored.counts_for(environment);
    let theirs = held.into_iter().filter(|(_, stored)| is_theirs(stored));
    found.theirs.extend(theirs.map(|(key, _)| key));
    found.failed.extend(failed);
    found
}

impl Found {
    /// Lists the keys of an index, 1,000 in a request; answers with those that have to be read by their
    /// names. One that the listing lacks is nobody's.
    async fn list<S: Services>(
        &mut self,
        invocation: &Invocation<'_, S>,
        index_id: &str,
        mut wanted: BTreeSet<String>,
    ) -> Vec<String> {
        let prefix = query_config_key_prefix(index_id);
        let mut by_name = Vec::new();
        let mut cursor = None;
        loop {
            let page = bulk::list(invocation, Namespace::QueryConfigs, &prefix, cursor.as_deref());
            let page = match page.await {
                Ok(page) => page,
                Err(error) => {
                    self.failed.extend(wanted.into_iter().map(|key| (key, error.clone())));
                    return by_name;
                }
            };
            let before = wanted.len();
            for (key, metadata) in page.keys.into_iter().filter(|(key, _)| wanted.remove(key)) {
                match metadata {
                    Some(metadata) if metadata.is_of(&invocation.config.environment) => {}
                    Some(_) => drop(self.theirs.insert(key)),
                    // A stranger's, or from before there was metadata.
                    None => by_name.push(key),
                }
            }
            cursor = page.cursor;
            if cursor.is_none() {
                return by_name;
            }
            // Of an index that keeps most of its keys, a page tells less than a request by names.
            if before - wanted.len() < MAX_BULK_GET_KEYS {
                by_name.extend(wanted);
                return by_name;
            }
        }
    }
}
