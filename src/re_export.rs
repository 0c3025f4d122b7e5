//! Re-export by hand: one index from the table, and its query configs where asked for.
//!
//! Reads are consistent, and what was written is verified by reading again, so that a re-export
//! that races the stream does not leave the older version in KV.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::Serialize;
use tracing::error;

use crate::api_keys::{ApiKeys, fetch_one};
use crate::bulk;
use crate::digest::Digest;
use crate::entry::Pair;
use crate::ports::{
    ApiKeyError, KvError, Namespace, QueryConfigs, Services, SettingsTable, TablePage,
};
use crate::query_configs::{self, read};
use crate::record::{IndexRef, IndexSettings, Item, ItemKey, ItemKind, QueryConfigRef, Rejection};
use crate::run::{Run, Service};
use crate::settings_keys::{entry, key_owner, rejected_account, reusable_keys};
use crate::settle::{SettleRequest, Verdict, settle};
use crate::stream::{decode_query_config, decode_settings_of};

/// The most rounds of write and read again.
const MAX_ROUNDS: usize = 5;

/// What one chunk of query configs may hold in values; bounds the memory, together with the pairs.
const CHUNK_BYTES: usize = 16 * 1024 * 1024;

/// What a re-export asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReExport {
    /// The index.
    pub index: IndexRef,
    /// Whether its query configs are exported too.
    pub include_query_configs: bool,
}

/// The answer to a re-export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The account.
    pub system_account_id: String,
    /// The index.
    pub index_name: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The keys that now hold the record.
    pub settings_keys: Vec<String>,
    /// Its query configs.
    pub query_configs: QueryConfigCounts,
}

/// What became of a re-exported index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// KV holds it.
    Exported,
    /// It was removed meanwhile, and its keys are settled.
    Removed,
    /// Cloudflare was left alone.
    DryRun,
}

/// Query configs of a re-export.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct QueryConfigCounts {
    /// Those that KV holds now.
    pub exported: u64,
    /// Those that can't be exported, logged.
    pub rejected: u64,
}

/// Why a re-export failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReExportError {
    /// The table has no such record.
    #[error("the table has no settings of index {0}: nothing was written")]
    IndexNotFound(IndexRef),
    /// The record can't be exported.
    #[error("index {index} can't be exported: {rejection}{}", after_write(.written))]
    RecordRejected {
        /// The index.
        index: IndexRef,
        /// Why.
        rejection: Rejection,
        /// Whether something was written before.
        written: bool,
    },
    /// Cloudflare refuses the token.
    #[error("{error}{}", after_write(.written))]
    CloudflareAuthRejected {
        /// What Cloudflare says.
        error: KvError,
        /// Whether something was written before.
        written: bool,
    },
    /// A service failed; the same again may help.
    #[error("index {index}: {reason}{}", after_write(.written))]
    Incomplete {
        /// The index.
        index: IndexRef,
        /// What happened.
        reason: String,
        /// Whether something was written before.
        written: bool,
    },
}

fn after_write(written: &bool) -> &'static str {
    if *written {
        "; KV may hold an older version or a part of the keys: repeat the re-export, or let reconcile repair it"
    } else {
        ""
    }
}

/// Re-exports one index.
pub async fn re_export<S: Services>(
    run: &Run<'_, S>,
    request: &ReExport,
) -> Result<Report, ReExportError> {
    let index = &request.index;
    let settings_keys = SettingsReExport::new(run, index).run().await?;
    let mut query_configs = QueryConfigCounts::default();
    if request.include_query_configs {
        query_configs = QueryConfigReExport::new(run, index).run().await?;
    }
    let outcome = match (run.limits.dry_run, settings_keys.is_empty()) {
        (true, _) => Outcome::DryRun,
        (false, true) => Outcome::Removed,
        (false, false) => Outcome::Exported,
    };
    Ok(Report {
        system_account_id: index.account.clone(),
        index_name: index.index.clone(),
        outcome,
        settings_keys,
        query_configs,
    })
}

struct SettingsReExport<'a, S> {
    run: &'a Run<'a, S>,
    index: &'a IndexRef,
    written: BTreeSet<String>,
}

impl<'a, S: Services> SettingsReExport<'a, S> {
    fn new(run: &'a Run<'a, S>, index: &'a IndexRef) -> Self {
        Self { run, index, written: BTreeSet::new() }
    }

    /// Exports the settings; answers with the keys that hold them, none if they are gone.
    async fn run(mut self) -> Result<Vec<String>, ReExportError> {
        let item =
            self.read().await?.ok_or_else(|| ReExportError::IndexNotFound(self.index.clone()))?;
        let mut settings = self.decode(&item)?;
        let (mut api_keys, key) = self.api_key(&settings).await?;
        let mut settled = None;
        for _ in 0..MAX_ROUNDS {
            let exported_at = self.run.exported_at();
            let entry = entry(self.run, &settings, settings.draft(), &key, &exported_at)
                .map_err(|rejection| self.rejected(rejection))?;
            let keys = settings.kv_keys();
            self.written.extend(keys.iter().cloned());
            let pairs =
                keys.iter().map(|key| Pair { key: key.clone(), entry: entry.clone() }).collect();
            let failures = bulk::put(self.run, Namespace::Settings, pairs).await;
            if let Some(error) = failures.into_values().next() {
                return Err(self.kv_failed(error));
            }
            let Some(item) = self.read().await? else {
                settled = Some(Vec::new());
                break;
            };
            let now = self.decode(&item)?;
            if now.same_in_kv(&settings) {
                settled = Some(keys);
                break;
            }
            settings = now;
        }
        let Some(keys) = settled else {
            return Err(self.failed(format!("the record still changes after {MAX_ROUNDS} rounds")));
        };
        self.settle_left_behind(keys, &mut api_keys).await
    }

    /// Settles what was written and isn't asked for any more.
    async fn settle_left_behind(
        &self,
        mut keys: Vec<String>,
        api_keys: &mut ApiKeys,
    ) -> Result<Vec<String>, ReExportError> {
        let left: BTreeSet<String> =
            self.written.iter().filter(|key| !keys.contains(key)).cloned().collect();
        if left.is_empty() {
            return Ok(keys);
        }
        let request = SettleRequest { keys: left, leading: BTreeSet::new() };
        for (key, verdict) in settle(self.run, request, api_keys).await {
            match verdict {
                Verdict::Written(index) if index == *self.index => keys.push(key),
                Verdict::Failed(reason) => {
                    return Err(self.failed(format!("key {key:?} could not be settled: {reason}")));
                }
                _ => {}
            }
        }
        Ok(keys)
    }

    async fn read(&self) -> Result<Option<Item>, ReExportError> {
        let key = self.index.item_key();
        let mut items = read(self.run, &BTreeSet::from([key.clone()]))
            .await
            .map_err(|reason| self.failed(reason))?;
        Ok(items.remove(&key))
    }

    fn decode(&self, item: &Item) -> Result<IndexSettings, ReExportError> {
        decode_settings_of(self.index, item).map_err(|rejection| self.rejected(rejection))
    }

    async fn api_key(
        &self,
        settings: &IndexSettings,
    ) -> Result<(ApiKeys, secrecy::SecretString), ReExportError> {
        let owner = key_owner(self.run.limits, settings).map_err(|error| self.rejected(error))?;
        let answer = fetch_one(self.run, &owner).await;
        let key = match &answer {
            Ok(key) => key.clone(),
            Err(ApiKeyError::Unavailable { .. }) => {
                let error = answer.as_ref().err().map(ToString::to_string).unwrap_or_default();
                reusable_keys(self.run, &[settings]).await.remove(self.index).ok_or_else(|| {
                    self.failed(format!(
                        "{error}; and KV holds no settings of this index whose key could be used"
                    ))
                })?
            }
            Err(error) => return Err(self.rejected(rejected_account(error))),
        };
        Ok((BTreeMap::from([(owner, answer)]), key))
    }

    fn rejected(&self, rejection: Rejection) -> ReExportError {
        let written = !self.written.is_empty();
        ReExportError::RecordRejected { index: self.index.clone(), rejection, written }
    }

    fn failed(&self, reason: String) -> ReExportError {
        let written = !self.written.is_empty();
        ReExportError::Incomplete { index: self.index.clone(), reason, written }
    }

    fn kv_failed(&self, error: KvError) -> ReExportError {
        kv_failed(self.index, error)
    }
}

fn kv_failed(index: &IndexRef, error: KvError) -> ReExportError {
    match error {
        // Refused requests were not carried out.
        error @ KvError::AuthRejected { .. } => {
            ReExportError::CloudflareAuthRejected { error, written: false }
        }
        error => ReExportError::Incomplete {
            index: index.clone(),
            reason: error.to_string(),
            written: true,
        },
    }
}

/// The query-config part: chunk after chunk, so that one chunk at a time is in memory.
struct QueryConfigReExport<'a, S> {
    run: &'a Run<'a, S>,
    index: &'a IndexRef,
}

/// Where the reading of query configs stands.
#[derive(Default)]
struct Reader {
    after: Option<ItemKey>,
    ended: bool,
    ahead: VecDeque<Pending>,
    rejected: u64,
}

/// A query config that is to be written.
struct Pending {
    item: ItemKey,
    pair: Pair,
}

/// A query config that was written.
struct Written {
    item: ItemKey,
    digest: Digest,
}

impl Written {
    fn config(&self) -> Option<QueryConfigRef> {
        match self.item.kind() {
            ItemKind::QueryConfig(config) => Some(config),
            ItemKind::IndexSettings(_) | ItemKind::Skipped => None,
        }
    }
}

/// The walk along what was written while it is read again.
struct SecondReading<'a> {
    /// What has not been come to yet, in the order of the table.
    open: &'a [Written],
    /// What the table has no more.
    gone: Vec<&'a Written>,
}

impl<'a> SecondReading<'a> {
    /// Goes on to `key`, which the table has: what was written before that is gone.
    fn passes(&mut self, key: &ItemKey) -> Option<&'a Written> {
        while let [first, rest @ ..] = self.open
            && first.item <= *key
        {
            self.open = rest;
            if first.item == *key {
                return Some(first);
            }
            self.gone.push(first);
        }
        None
    }
}

impl<'a, S: Services> QueryConfigReExport<'a, S> {
    fn new(run: &'a Run<'a, S>, index: &'a IndexRef) -> Self {
        Self { run, index }
    }

    async fn run(self) -> Result<QueryConfigCounts, ReExportError> {
        let mut counts = QueryConfigCounts::default();
        let mut reader = Reader::default();
        let mut chunk = self.read_chunk(&mut reader).await?;
        while !chunk.is_empty() {
            let (written, next) =
                tokio::try_join!(self.write_chunk(chunk), self.read_chunk(&mut reader))?;
            counts.exported += written.exported;
            counts.rejected += written.rejected;
            chunk = next;
        }
        counts.rejected += reader.rejected;
        Ok(counts)
    }

    async fn read_chunk(&self, reader: &mut Reader) -> Result<Vec<Pending>, ReExportError> {
        let mut chunk = Vec::new();
        let mut bytes = 0;
        loop {
            while let Some(next) = reader.ahead.front() {
                let size = next.pair.entry.value_json().len();
                let full = chunk.len() == self.run.limits.bulk_max_pairs
                    || (bytes + size > CHUNK_BYTES && !chunk.is_empty());
                if full {
                    return Ok(chunk);
                }
                bytes += size;
                chunk.extend(reader.ahead.pop_front());
            }
            if reader.ended {
                return Ok(chunk);
            }
            let page = self.page(QueryConfigs::All(self.index), reader.after.as_ref()).await?;
            reader.after = page.next;
            reader.ended = reader.after.is_none();
            let exported_at = self.run.exported_at();
            for (key, item) in page.items {
                let ItemKind::QueryConfig(config) = key.kind() else { continue };
                match query_configs::decode_pair(self.run, &config, &item, &exported_at) {
                    Ok(pair) => reader.ahead.push_back(Pending { item: key, pair }),
                    Err(rejection) => {
                        log_rejected(&config, &rejection);
                        reader.rejected += 1;
                    }
                }
            }
        }
    }

    async fn page(
        &self,
        part: QueryConfigs<'_>,
        after: Option<&ItemKey>,
    ) -> Result<TablePage, ReExportError> {
        let page = self.run.services.table().query_configs(part, after);
        match self.run.call(Service::Table, page).await {
            Ok(Ok(page)) => Ok(page),
            Ok(Err(error)) => Err(self.failed(error.to_string())),
            Err(error) => Err(self.failed(error.to_string())),
        }
    }

    /// Writes a chunk, reads its items again and writes those that changed.
    async fn write_chunk(&self, chunk: Vec<Pending>) -> Result<QueryConfigCounts, ReExportError> {
        let exported = u64::try_from(chunk.len()).unwrap_or(u64::MAX);
        let mut counts = QueryConfigCounts { exported, rejected: 0 };
        let mut pending = chunk;
        for _ in 0..MAX_ROUNDS {
            let mut written = Vec::with_capacity(pending.len());
            let mut pairs = Vec::with_capacity(pending.len());
            for Pending { item, pair } in pending {
                written.push(Written { item, digest: pair.entry.digest() });
                pairs.push(pair);
            }
            let failures = bulk::put(self.run, Namespace::QueryConfigs, pairs).await;
            if let Some(error) = failures.into_values().next() {
                return Err(kv_failed(self.index, error));
            }
            pending = self.verify(&written, &mut counts).await?;
            if pending.is_empty() {
                return Ok(counts);
            }
        }
        Err(self.failed(format!("query configs still change after {MAX_ROUNDS} rounds")))
    }

    /// Reads what was written again, page by page; answers with what has to be written again. What
    /// is gone is removed.
    async fn verify(
        &self,
        written: &[Written],
        counts: &mut QueryConfigCounts,
    ) -> Result<Vec<Pending>, ReExportError> {
        let [first, ..] = written else { return Ok(Vec::new()) };
        let part = QueryConfigs::Between(&first.item, &written[written.len() - 1].item);
        let mut reading = SecondReading { open: written, gone: Vec::new() };
        let mut changed = Vec::new();
        let mut after = None;
        loop {
            let page = self.page(part, after.as_ref()).await?;
            let exported_at = self.run.exported_at();
            for (key, item) in page.items {
                // What is new among them has its own stream record.
                let Some(one) = reading.passes(&key) else { continue };
                let ItemKind::QueryConfig(config) = key.kind() else { continue };
                let decoded = item.image().and_then(|image| decode_query_config(&config, &image));
                let pair = match decoded {
                    Ok(now) if Digest::of(now.value.as_bytes()) == one.digest => continue,
                    Ok(now) => query_configs::pair(self.run, &config, &now, &exported_at),
                    Err(rejection) => Err(rejection),
                };
                match pair {
                    Ok(pair) => changed.push(Pending { item: key, pair }),
                    Err(rejection) => {
                        log_rejected(&config, &rejection);
                        counts.exported -= 1;
                        counts.rejected += 1;
                    }
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        let gone = reading.gone.into_iter().chain(reading.open);
        let gone: Vec<QueryConfigRef> = gone.filter_map(Written::config).collect();
        if !gone.is_empty() {
            counts.exported -= u64::try_from(gone.len()).unwrap_or_default();
            let removal = query_configs::remove(self.run, &gone).await;
            if let Some((key, reason)) = removal.failed.into_iter().next() {
                return Err(self.failed(format!("key {key:?} could not be removed: {reason}")));
            }
        }
        Ok(changed)
    }

    fn failed(&self, reason: String) -> ReExportError {
        ReExportError::Incomplete { index: self.index.clone(), reason, written: true }
    }
}

fn log_rejected(config: &QueryConfigRef, rejection: &Rejection) {
    error!(
        system_account_id = config.index.account,
        index_name = config.index.index,
        normalized_query = config.query,
        path = rejection.path,
        error = %rejection,
        "record rejected"
    );
}
