//! Which query configs' keys another environment has written: they are never deleted.

use std::collections::{BTreeMap, BTreeSet};

use super::bulk::{self, Failures};
use super::invocation::Invocation;
use crate::item::keys::{index_id_in_query_config_key, query_config_key_prefix};
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::{KvError, Namespace, Services};

/// Who finds the keys that another environment has written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OtherEnvironments {
    /// Nobody yet: KV is asked.
    Unknown,
    /// The caller, which has read or written the keys and left those of others out.
    LeftOut,
}

/// Answers with the keys that another environment has written, and with those that can't be read.
pub async fn find<S: Services>(
    invocation: &Invocation<'_, S>,
    keys: Vec<String>,
) -> (BTreeSet<String>, Failures) {
    let (mut theirs, mut by_name, mut failed) = (BTreeSet::new(), Vec::new(), Failures::new());
    let mut of_index: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for key in keys {
        let index_id = index_id_in_query_config_key(&key).unwrap_or_default().to_owned();
        of_index.entry(index_id).or_default().insert(key);
    }
    for (index_id, mut keys) in of_index {
        if keys.len() > MAX_BULK_GET_KEYS
            && let Err(error) =
                list(invocation, &index_id, &mut keys, &mut theirs, &mut by_name).await
        {
            failed.extend(keys.into_iter().map(|key| (key, error.clone())));
            continue;
        }
        by_name.extend(keys);
    }
    let environment = &invocation.config.environment;
    let (held, unread) = bulk::read(invocation, Namespace::QueryConfigs, by_name).await;
    let held = held.into_iter().filter(|(_, stored)| !stored.counts_for(environment));
    theirs.extend(held.map(|(key, _)| key));
    failed.extend(unread);
    (theirs, failed)
}

/// Lists the keys of an index, 1,000 in a request, and takes out of `wanted` those of which nothing more
/// has to be read. One that the listing lacks is nobody's.
async fn list<S: Services>(
    invocation: &Invocation<'_, S>,
    index_id: &str,
    wanted: &mut BTreeSet<String>,
    theirs: &mut BTreeSet<String>,
    by_name: &mut Vec<String>,
) -> Result<(), KvError> {
    let prefix = query_config_key_prefix(index_id);
    let mut cursor = None;
    loop {
        let page = bulk::list(invocation, Namespace::QueryConfigs, &prefix, cursor.as_deref());
        let page = page.await?;
        let before = wanted.len();
        for (key, metadata) in page.keys.into_iter().filter(|(key, _)| wanted.remove(key)) {
            match metadata {
                Some(metadata) if metadata.is_of(&invocation.config.environment) => {}
                Some(_) => drop(theirs.insert(key)),
                // A stranger's, or from before there was metadata.
                None => by_name.push(key),
            }
        }
        cursor = page.cursor;
        if cursor.is_none() {
            wanted.clear();
        }
        // Of an index that keeps most of its keys, a page tells less than a request by names.
        if cursor.is_none() || before - wanted.len() < MAX_BULK_GET_KEYS {
            return Ok(());
        }
    }
}
