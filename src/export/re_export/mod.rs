//! Re-export by hand: one index from the table, and its query configs where asked for.

mod query_configs;
mod settings;

use std::time::Duration;

use serde::Serialize;

use super::error::KeyError;
use super::invocation::Invocation;
use crate::index::IndexRef;
use crate::item::Rejection;
use crate::ports::{KvError, Services};

/// The longest wait that a service may ask for: somebody is looking at the prompt.
pub const LONGEST_WAIT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReExport {
    pub index: IndexRef,
    pub include_query_configs: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReExportReport {
    pub system_account_id: String,
    pub index_name: String,
    pub outcome: ReExportOutcome,
    /// The keys that now hold the record, the primary one first.
    pub settings_keys: Vec<String>,
    pub query_configs: QueryConfigCounts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ReExportOutcome {
    Exported,
    /// It was removed meanwhile, and its keys are settled.
    Removed,
    /// Cloudflare was left alone.
    DryRun,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct QueryConfigCounts {
    /// Those that KV holds now.
    pub exported: u64,
    /// Those that can't be exported, logged.
    pub rejected: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
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
    #[error("index {index} is not exported{}", in_kv(*partly_written))]
    CloudflareAuthRejected {
        index: IndexRef,
        #[source]
        error: KvError,
        partly_written: bool,
    },
    /// A service failed; the same again may help.
    #[error("index {index} is not exported{}", in_kv(*partly_written))]
    Incomplete {
        index: IndexRef,
        #[source]
        error: KeyError,
        partly_written: bool,
    },
}

pub async fn re_export<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &ReExport,
) -> Result<ReExportReport, ReExportError> {
    let index = &request.index;
    let settings_keys = settings::re_export(invocation, index).await?;
    let mut query_configs = QueryConfigCounts::default();
    if request.include_query_configs {
        query_configs = query_configs::re_export(invocation, index)
            .await
            .map_err(|error| ReExportError::of(index, error, true))?;
    }
    let outcome = match (invocation.config.dry_run, settings_keys.is_empty()) {
        (true, _) => ReExportOutcome::DryRun,
        (false, true) => ReExportOutcome::Removed,
        (false, false) => ReExportOutcome::Exported,
    };
    Ok(ReExportReport {
        system_account_id: index.account.clone(),
        index_name: index.name.clone(),
        outcome,
        settings_keys,
        query_configs,
    })
}

impl ReExportError {
    /// The error for a key that could not be written, where others have been or not.
    fn of(index: &IndexRef, error: KeyError, partly_written: bool) -> Self {
        let index = index.clone();
        match error.auth_rejected() {
            Some(refusal) => {
                Self::CloudflareAuthRejected { index, error: refusal.clone(), partly_written }
            }
            None => Self::Incomplete { index, error, partly_written },
        }
    }
}

fn in_kv(partly_written: bool) -> &'static str {
    if partly_written {
        "; KV may hold an older version or a part of the keys, so repeat the re-export or let reconcile repair it"
    } else {
        ""
    }
}
