//! Explain: what KV holds of an index, or under a key, and why. Changes nothing.
//!
//! Gather (`settings`, `query_config`) → judge each key (`judge`) → advise (`advice`) → `report`. What
//! would become of a settings key is [`settle`](super::settle)'s decision.
//!
//! | asked about | requests to KV | reads of the table |
//! | --- | --- | --- |
//! | an index | its keys; the shop id that only a value names | its item; one pass; the items that the keys are for |
//! | a key whose value names an index | the key; the index's other keys; the shop id that only a value names | the same |
//! | any other key | the same | one pass to find the index, then the same |
//! | a query config's key | the key | its item and its twins'; where no value names it, the query configs of its index |

mod advice;
mod judge;
mod query_config;
mod report;
mod settings;

use std::collections::BTreeSet;
use std::fmt;

pub use self::judge::KeyVerdict;
pub use self::report::{ExplainReport, IndexName, KeyReport};

use self::settings::Gathering;
use super::error::KeyError;
use super::invocation::Invocation;
use super::settle::decide::Decision;
use crate::index::IndexRef;
use crate::item::keys::index_id_in_query_config_key;
use crate::item::{ItemKey, Rejection};
use crate::kv::{Metadata, StoredSettings, StoredValue};
use crate::ports::{KvError, Services};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explain {
    Index(IndexRef),
    /// A key of either namespace.
    Key(String),
}

impl fmt::Display for Explain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index(index) => write!(f, "index {index}"),
            Self::Key(key) => write!(f, "key {key:?}"),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExplainError {
    #[error("neither the table nor KV knows {0}, and no active alias points at it")]
    IndexNotFound(Explain),
    #[error(transparent)]
    CloudflareAuthRejected(KvError),
    /// A service failed; the same again may help.
    #[error("{asked} can't be explained")]
    Incomplete {
        asked: Explain,
        #[source]
        error: KeyError,
    },
}

pub async fn explain<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Explain,
) -> Result<ExplainReport, ExplainError> {
    let findings = match request {
        Explain::Index(index) => Gathering::new(invocation).about(index).await,
        Explain::Key(key) => match index_id_in_query_config_key(key) {
            Some(index_id) => query_config::about_key(invocation, key, index_id).await,
            None => Gathering::new(invocation).about_key(key).await,
        },
    };
    let findings = findings.map_err(|error| match error.auth_rejected() {
        Some(refusal) => ExplainError::CloudflareAuthRejected(refusal.clone()),
        None => ExplainError::Incomplete { asked: request.clone(), error },
    })?;
    let findings = findings.ok_or_else(|| ExplainError::IndexNotFound(request.clone()))?;
    let environment = &invocation.config.environment;
    let judge = |key| judge::judge(key, findings.of_query_config, environment);
    let judged: Vec<_> = findings.keys.iter().map(judge).collect();
    let advice = match invocation.config.dry_run {
        true => advice::DRY_RUN.to_owned(),
        false => advice::advice(&findings, &judged),
    };
    Ok(report::report(&findings, &judged, advice + "."))
}

/// What was gathered about an index or a key, before it is judged.
#[derive(Default)]
pub struct Findings {
    /// The index that it is about; `None` where nothing says which.
    pub index: Option<IndexRef>,
    pub item: AskedItem,
    /// Its keys, and the one that was asked about.
    pub keys: Vec<KeyFacts>,
    /// Whether they are of the query-config namespace.
    pub of_query_config: bool,
    /// The other items whose active aliases point at it.
    pub pointers: BTreeSet<ItemKey>,
    /// Index ids that its own active aliases point at and that have neither an item nor a key.
    pub dangling: BTreeSet<String>,
}

#[derive(Default, PartialEq, Eq)]
pub enum AskedItem {
    /// It can be exported, perhaps but for its API key at the moment.
    Exportable,
    Rejected(Rejection),
    #[default]
    Absent,
}

pub struct KeyFacts {
    pub key: String,
    pub stored: Option<StoredValue>,
    /// The items that ask for the key, the first by account and index first.
    pub claimants: Vec<IndexRef>,
    /// What would become of it. Left alone, the key of a query config is one that can't be deleted: its
    /// value does not say of which it is.
    pub decision: Decision,
    /// The value that it should hold, where only the API key for it is unavailable.
    pub without_api_key: Option<String>,
}

/// The index that a value of either namespace names, or else its metadata, whichever environment
/// wrote them.
pub fn named_by(stored: &StoredValue) -> Option<IndexRef> {
    let by_value = StoredSettings::parse(&stored.value).map(|settings| settings.index);
    let metadata = stored.metadata.as_ref().and_then(|json| Metadata::parse(json.get()));
    by_value.or_else(|| metadata.map(|metadata| metadata.index))
}
