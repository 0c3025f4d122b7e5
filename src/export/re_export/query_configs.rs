//! The query-config part of a re-export: chunk after chunk, so that one chunk is written while the
//! next is read, and no more than those two are in memory.

use std::collections::{BTreeSet, VecDeque};

use super::QueryConfigCounts;
use crate::export::api_keys::NotExportable;
use crate::export::desired::Desired;
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::other_environments::OtherEnvironments;
use crate::export::query_config_removal::remove;
use crate::export::receipt::log_rejected;
use crate::export::table::{ReadError, query_config_page};
use crate::export::verified_write::{ItemWrite, Reread, verified_write};
use crate::index::IndexRef;
use crate::item::{Item, ItemKey, ItemKind, QueryConfigRef, Rejection};
use crate::ports::{Namespace, QueryConfigs, Services};

/// What the values of one chunk may take, in bytes.
const CHUNK_BYTES: usize = 16 * 1024 * 1024;

pub async fn re_export<S: Services>(
    invocation: &Invocation<'_, S>,
    index: &IndexRef,
) -> Result<QueryConfigCounts, KeyError> {
    let mut counts = QueryConfigCounts::default();
    let mut reader = QueryConfigReader {
        invocation,
        index,
        after: None,
        ended: false,
        ahead: VecDeque::new(),
        rejected: 0,
    };
    let mut chunk = reader.next_chunk().await?;
    while !chunk.is_empty() {
        // A page that can't be read ends no write that is under way: its receipts would be missing.
        let (written, next) = tokio::join!(write_chunk(invocation, chunk), reader.next_chunk());
        let written = written?;
        counts.exported += written.exported;
        counts.rejected += written.rejected;
        chunk = next?;
    }
    counts.rejected += reader.rejected;
    Ok(counts)
}

struct QueryConfigReader<'a, S> {
    invocation: &'a Invocation<'a, S>,
    index: &'a IndexRef,
    after: Option<ItemKey>,
    ended: bool,
    /// What was read and is in no chunk yet.
    ahead: VecDeque<ItemWrite>,
    rejected: u64,
}

impl<S: Services> QueryConfigReader<'_, S> {
    /// The next chunk; empty at the end.
    async fn next_chunk(&mut self) -> Result<Vec<ItemWrite>, KeyError> {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        loop {
            while let Some(next) = self.ahead.front() {
                let size = next.entry.body_bytes();
                let full = chunk.len() == self.invocation.config.bulk_max_pairs
                    || (bytes + size > CHUNK_BYTES && !chunk.is_empty());
                if full {
                    return Ok(chunk);
                }
                bytes += size;
                chunk.extend(self.ahead.pop_front());
            }
            if self.ended {
                return Ok(chunk);
            }
            self.read_page().await?;
        }
    }

    async fn read_page(&mut self) -> Result<(), KeyError> {
        let all = QueryConfigs::All(self.index);
        let page = query_config_page(self.invocation, all, self.after.as_ref()).await?;
        self.ended = page.last_read.is_none();
        self.after = page.last_read;
        let stamp = self.invocation.stamp();
        for (key, item) in page.items {
            let ItemKind::QueryConfig(config) = key.kind() else { continue };
            let desired = Desired::of_query_config(&config, &item);
            match desired.and_then(|desired| Ok((desired.entry(&stamp)?, desired.keys))) {
                Ok((entry, keys)) => {
                    let keys = keys.into_iter().collect();
                    self.ahead.push_back(ItemWrite { item: key, entry, keys });
                }
                Err(rejection) => {
                    log_rejected(Some(&config.into()), None, &rejection);
                    self.rejected += 1;
                }
            }
        }
        Ok(())
    }
}

/// Writes a chunk and verifies it; what is gone from the table meanwhile is removed.
async fn write_chunk<S: Services>(
    invocation: &Invocation<'_, S>,
    chunk: Vec<ItemWrite>,
) -> Result<QueryConfigCounts, KeyError> {
    let items = ByRange { invocation };
    let written = verified_write(invocation, Namespace::QueryConfigs, &items, chunk).await;
    if let Some(error) = written.failed.into_values().next() {
        return Err(error);
    }
    for (key, rejection) in &written.rejected {
        if let ItemKind::QueryConfig(config) = key.kind() {
            log_rejected(Some(&config.into()), None, rejection);
        }
    }
    let gone: Vec<QueryConfigRef> = written
        .left_behind
        .keys()
        .filter_map(|item| match item.kind() {
            ItemKind::QueryConfig(config) => Some(config),
            ItemKind::IndexSettings(_) | ItemKind::Skipped => None,
        })
        .collect();
    if !gone.is_empty() {
        let removal = remove(invocation, &gone, OtherEnvironments::LeftOut).await;
        if let Some((key, error)) = removal.failed.into_iter().next() {
            return Err(KeyError::NotRemoved { key, source: Box::new(error) });
        }
    }
    let rejected = u64::try_from(written.rejected.len()).unwrap_or(u64::MAX);
    let holding = u64::try_from(written.written.len()).unwrap_or(u64::MAX);
    Ok(QueryConfigCounts { exported: holding.saturating_sub(rejected), rejected })
}

/// Query configs of one index, read again by the range of their keys: 20 requests for 100,000, and
/// a read capacity unit for 4 KB of items. By their keys it would be 1,000 requests, and a unit or
/// more for each item.
struct ByRange<'a, S> {
    invocation: &'a Invocation<'a, S>,
}

impl<S: Services> Reread for ByRange<'_, S> {
    const WRITES_NEW_KEYS: bool = false;

    async fn read_again(
        &self,
        items: &[ItemKey],
        mut found: impl FnMut(&ItemKey, &Item),
    ) -> Result<(), ReadError> {
        let (Some(first), Some(last)) = (items.first(), items.last()) else { return Ok(()) };
        // What is new within the range has its own stream record.
        let wanted: BTreeSet<&ItemKey> = items.iter().collect();
        let mut after = None;
        loop {
            let range = QueryConfigs::Between(first, last);
            let page = query_config_page(self.invocation, range, after.as_ref()).await?;
            for (key, item) in page.items.iter().filter(|(key, _)| wanted.contains(key)) {
                found(key, item);
            }
            after = page.last_read;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    fn desired(&self, key: &ItemKey, item: &Item) -> Result<Desired, NotExportable> {
        match key.kind() {
            ItemKind::QueryConfig(config) => Ok(Desired::of_query_config(&config, item)?),
            ItemKind::IndexSettings(_) | ItemKind::Skipped => {
                Err(Rejection::new("sk", "is not a query config's").into())
            }
        }
    }
}
