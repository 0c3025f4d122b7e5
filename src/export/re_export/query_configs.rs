//! The query-config part of a re-export: chunk after chunk, so that one chunk is written while the
//! next is read, and no more than those two are in memory.

use std::collections::VecDeque;

use super::QueryConfigCounts;
use crate::export::desired::Desired;
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::other_environments::OtherEnvironments;
use crate::export::query_config_removal::{RemovalOutcome, remove};
use crate::export::receipt::log_rejected;
use crate::export::table::query_config_page;
use crate::export::verified_write::{ItemWrite, Policy, Reread, verified_write};
use crate::index::IndexRef;
use crate::item::{ItemKey, QueryConfigRef, Rejection};
use crate::ports::{Namespace, Query, Services};

const POLICY: Policy =
    Policy { namespace: Namespace::QueryConfigs, reread: Reread::ByRange, writes_new_keys: false };

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
        let all = Query::ConfigsOf(self.index);
        let page = query_config_page(self.invocation, all, self.after.as_ref()).await?;
        self.ended = page.last_read.is_none();
        self.after = page.last_read;
        let stamp = self.invocation.stamp();
        for (key, item) in page.items {
            let Some(config) = key.query_config() else { continue };
            let desired = Desired::of_query_config(&config, &item);
            match desired.map(|desired| ItemWrite::new(key, desired, &stamp)) {
                Ok(write) => self.ahead.push_back(write),
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
    let written = verified_write(invocation, POLICY, chunk, |key, item| {
        let not_one = || Rejection::new("sk", "is not a query config's");
        let config = key.query_config().ok_or_else(not_one)?;
        Ok(Desired::of_query_config(&config, item)?)
    })
    .await;
    if let Some(error) = written.failed.into_values().next() {
        return Err(error);
    }
    for (key, rejection) in &written.rejected {
        log_rejected(key.query_config().map(Into::into).as_ref(), None, rejection);
    }
    let gone: Vec<QueryConfigRef> =
        written.left_behind.keys().filter_map(ItemKey::query_config).collect();
    for (key, end) in remove(invocation, &gone, OtherEnvironments::LeftOut).await {
        if let RemovalOutcome::Failed(error) = end {
            return Err(KeyError::NotRemoved { key, source: Box::new(error) });
        }
    }
    let rejected = u64::try_from(written.rejected.len()).unwrap_or(u64::MAX);
    let holding = u64::try_from(written.written.len()).unwrap_or(u64::MAX);
    Ok(QueryConfigCounts { exported: holding.saturating_sub(rejected), rejected })
}
