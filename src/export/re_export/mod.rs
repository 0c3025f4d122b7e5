//! Re-export by hand: one index from the table, and its query configs where asked for.

mod query_configs;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::Serialize;

use super::api_keys::{
    ApiKeys, BATCH_TIME_FOR_API_KEYS, Exportable, NotExportable, Patience, Reuse,
};
use super::desired::{Desired, warn_if_odd};
use super::error::KeyError;
use super::invocation::Invocation;
use super::settle::decide::ItemNow;
use super::settle::{KeyOutcome, SettleRequest, read_whole, settle};
use super::verified_write::{ItemWrite, Policy, Reread, verified_write};
use crate::index::IndexRef;
use crate::item::{IndexSettings, Item, ItemKey, Rejection};
use crate::ports::{KvError, Namespace, Services};

/// The longest wait that a service may ask for: somebody is looking at the prompt.
pub const LONGEST_WAIT: Duration = Duration::from_secs(20);

const POLICY: Policy =
    Policy { namespace: Namespace::Settings, reread: Reread::ByKeys, writes_new_keys: true };

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
    let settings_keys = re_export_settings(invocation, index).await?;
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

/// Exports the settings of an index; answers with the keys that hold them, none if they are gone.
async fn re_export_settings<S: Services>(
    invocation: &Invocation<'_, S>,
    index: &IndexRef,
) -> Result<Vec<String>, ReExportError> {
    let failed = |error: KeyError, partly_written| ReExportError::of(index, error, partly_written);
    let rejected = |rejection, partly_written| {
        let index = index.clone();
        ReExportError::RecordRejected { index, rejection, partly_written }
    };
    let mut api_keys = ApiKeys::new(Patience::InAll(BATCH_TIME_FOR_API_KEYS), Reuse::FromKv);
    let items = read_whole(invocation, [index.clone()].into(), &mut api_keys).await;
    let mut items = items.map_err(|error| failed(error.into(), false))?;
    let ItemNow { exportable, entry } =
        items.remove(index).ok_or_else(|| ReExportError::IndexNotFound(index.clone()))?;
    let Exportable { settings, owner } =
        exportable.map_err(|rejection| rejected(rejection, false))?;
    warn_if_odd(&settings);
    let entry = entry.map_err(|why| match why {
        NotExportable::Unavailable(error) => failed(error.into(), false),
        NotExportable::Rejected(rejection) => rejected(rejection, false),
    })?;
    let keys = settings.kv_keys().into_iter().collect();
    let write = ItemWrite { item: ItemKey::of_index(index), entry, keys };
    let written = verified_write(invocation, POLICY, vec![write], |_, item: &Item| {
        let settings = IndexSettings::decode(index, &item.attributes())?;
        // Written with the API key that there is, though the account may have moved.
        Desired::of_settings(&Exportable { settings, owner: owner.clone() }, &api_keys)
    })
    .await;

    if let Some((_, rejection)) = written.rejected.into_iter().next() {
        return Err(rejected(rejection, written.sent));
    }
    if let Some(error) = written.failed.into_values().next() {
        return Err(failed(error, written.sent));
    }
    let mut keys = written.written;
    let left_behind: BTreeSet<String> = written.left_behind.into_values().flatten().collect();
    let mut request = SettleRequest::default();
    request.add_written_for(index, left_behind);
    for (key, verdict) in settle(invocation, request, &mut api_keys).await {
        match verdict {
            KeyOutcome::Written(claimant) if claimant == *index => drop(keys.insert(key)),
            KeyOutcome::Failed(error) => {
                let source = Box::new(error);
                return Err(failed(KeyError::NotSettled { key, source }, written.sent));
            }
            _ => {}
        }
    }
    let index_id = index.index_id();
    let mut keys: Vec<String> = keys.into_iter().collect();
    keys.sort_by_key(|key| *key == index_id);
    Ok(keys)
}
