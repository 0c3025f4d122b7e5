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
    /// The keys that now hold the record, the primary one first.
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
    #[error("index {index} can't be exported{progress}")]
    RecordRejected {
        /// The index.
        index: IndexRef,
        /// Why.
        #[source]
        rejection: Rejection,
        /// Whether something was written before.
        progress: Progress,
    },
    /// Cloudflare refuses the token.
    #[error("index {index} is not exported{progress}")]
    CloudflareAuthRejected {
        /// The index.
        index: IndexRef,
        /// What Cloudflare says.
        #[source]
        error: KvError,
        /// Whether something was written before.
        progress: Progress,
    },
    /// A service failed; the same again may help.
    #[error("index {index} is not exported{progress}")]
    Incomplete {
        /// The index.
        index: IndexRef,
        /// What happened.
        #[source]
        error: KeyError,
        /// Whether something was written before.
        progress: Progress,
    },
}

/// How far a re-export came before it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing was sent that could have been written.
    NothingWritten,
    /// Something was written, or may have been.
    PartlyWritten,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NothingWritten => Ok(()),
            Self::PartlyWritten => f.write_str(
                "; KV may hold an older version or a part of the keys, so repeat the re-export or let reconcile repair it",
            ),
        }
    }
}

/// Re-exports one index.
pub async fn re_export<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &ReExport,
) -> Result<Report, ReExportError> {
    let index = &request.index;
    let settings_keys = settings::re_export(invocation, index).await?;
    let mut query_configs = QueryConfigCounts::default();
    if request.include_query_configs {
        query_configs = query_configs::re_export(invocation, index)
            .await
            .map_err(|error| ReExportError::of(index, error, Progress::PartlyWritten))?;
    }
    let outcome = match (invocation.config.dry_run, settings_keys.is_empty()) {
        (true, _) => Outcome::DryRun,
        (false, true) => Outcome::Removed,
        (false, false) => Outcome::Exported,
    };
    Ok(Report {
        system_account_id: index.account.clone(),
        index_name: index.name.clone(),
        outcome,
        settings_keys,
        query_configs,
    })
}

impl ReExportError {
    /// The error for a key that could not be written.
    fn of(index: &IndexRef, error: KeyError, progress: Progress) -> Self {
        let index = index.clone();
        match error.auth_rejected() {
            Some(refusal) => {
                Self::CloudflareAuthRejected { index, error: refusal.clone(), progress }
            }
            None => Self::Incomplete { index, error, progress },
        }
    }
}
