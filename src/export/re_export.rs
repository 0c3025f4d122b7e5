//! Re-export by hand: one index from the table, and its query configs if asked for.

use std::collections::BTreeSet;

use serde::Serialize;

use super::api_keys::{ApiKeys, Fallback};
use super::error::{ExportError, log_rejected};
use super::invocation::Invocation;
use super::remove::{Removal, remove_keys, remove_query_configs};
use super::table::read_page;
use super::write::{Fate, WriteItem, write_items};
use crate::index::{IndexRef, ItemRef};
use crate::item::Rejection;
use crate::kv::Namespace;
use crate::ports::{Services, TablePart};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReExport {
    pub index: IndexRef,
    pub include_query_configs: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReExportReport {
    #[serde(flatten)]
    pub index: IndexRef,
    pub outcome: ReExportOutcome,
    /// The keys that now hold the item, the primary one first.
    pub settings_keys: Vec<String>,
    pub query_configs: QueryConfigCounts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReExportOutcome {
    Exported,
    /// It was removed meanwhile, and so were its keys.
    Removed,
    /// Cloudflare was left alone.
    DryRun,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct QueryConfigCounts {
    pub exported: u64,
    /// Those that can't be exported, logged.
    pub rejected: u64,
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum ReExportError {
    #[error("the table has no settings of index {0}: nothing was written")]
    IndexNotFound(IndexRef),
    #[error("index {index} can't be exported{}", in_kv(*partly_written))]
    RecordRejected {
        index: IndexRef,
        #[source]
        rejection: Rejection,
        partly_written: bool,
    },
    /// A service failed; the same again may help.
    #[error("index {index} is not exported{}", in_kv(*partly_written))]
    Incomplete {
        index: IndexRef,
        #[source]
        error: ExportError,
        partly_written: bool,
    },
}

fn in_kv(partly_written: bool) -> &'static str {
    if partly_written {
        "; KV may hold an older version or a part of the keys, so repeat the re-export or let reconcile repair it"
    } else {
        ""
    }
}

pub async fn re_export<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &ReExport,
) -> Result<ReExportReport, ReExportError> {
    let index = request.index.clone();
    let item = ItemRef::from(index.clone());
    let mut api_keys = ApiKeys::new(Fallback::Kv, invocation.budget.api_keys);
    let writes = vec![WriteItem::new(item.clone())];
    let written = write_items(invocation, Namespace::Settings, writes, &mut api_keys).await;
    let partly_written = written.may_have_written;
    match written.fate(&item) {
        Fate::Absent if !partly_written => return Err(ReExportError::IndexNotFound(index)),
        Fate::Written | Fate::Absent => {}
        Fate::Rejected(rejection) => {
            return Err(ReExportError::RecordRejected { index, rejection, partly_written });
        }
        Fate::Failed(error) => {
            return Err(ReExportError::Incomplete { index, error, partly_written });
        }
    }
    let incomplete =
        |error| ReExportError::Incomplete { index: index.clone(), error, partly_written: true };
    let mut keys: BTreeSet<String> = written.keys.into_keys().collect();
    let left_behind = written.left_behind.into_keys().collect();
    for (key, removal) in remove_keys(invocation, left_behind, &mut api_keys, None).await {
        match removal {
            Removal::Written(claimant) if claimant.index == index => {
                keys.insert(key);
            }
            Removal::Failed(error) => return Err(incomplete(error)),
            Removal::Removed | Removal::Stays | Removal::Postponed | Removal::Written(_) => {}
        }
    }
    let index_id = index.index_id();
    let mut settings_keys = Vec::from_iter(keys);
    settings_keys.sort_by_key(|key| *key == index_id);
    let mut query_configs = QueryConfigCounts::default();
    if request.include_query_configs {
        let exported = re_export_query_configs(invocation, &index, &mut api_keys).await;
        query_configs = exported.map_err(incomplete)?;
    }
    let outcome = match (invocation.config.dry_run, settings_keys.is_empty()) {
        (true, _) => ReExportOutcome::DryRun,
        (false, true) => ReExportOutcome::Removed,
        (false, false) => ReExportOutcome::Exported,
    };
    Ok(ReExportReport { index, outcome, settings_keys, query_configs })
}

/// Exports the query configs of an index, page by page.
async fn re_export_query_configs<S: Services>(
    invocation: &Invocation<'_, S>,
    index: &IndexRef,
    api_keys: &mut ApiKeys,
) -> Result<QueryConfigCounts, ExportError> {
    let mut counts = QueryConfigCounts::default();
    let mut after = None;
    loop {
        let page = read_page(invocation, TablePart::ConfigsOf(index), after.as_ref()).await?;
        let items: Vec<ItemRef> = page.items.iter().filter_map(|(key, _)| key.item()).collect();
        let writes = items.iter().cloned().map(WriteItem::new).collect();
        let written = write_items(invocation, Namespace::QueryConfigs, writes, api_keys).await;
        for item in &items {
            match written.fate(item) {
                Fate::Written => counts.exported += 1,
                Fate::Absent => {}
                Fate::Rejected(rejection) => {
                    log_rejected(Some(item), None, &rejection);
                    counts.rejected += 1;
                }
                Fate::Failed(error) => return Err(error),
            }
        }
        let gone = written.left_behind.into_values().map(|item| (item, None));
        for removal in remove_query_configs(invocation, gone, api_keys).await.into_values() {
            match removal {
                Removal::Removed | Removal::Postponed => {}
                Removal::Written(_) => counts.exported += 1,
                // It is back, and can't be exported.
                Removal::Stays => counts.rejected += 1,
                Removal::Failed(error) => return Err(error),
            }
        }
        after = page.last_read;
        if after.is_none() {
            return Ok(counts);
        }
    }
}
