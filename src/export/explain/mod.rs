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
mod gathered;
mod judge;
mod query_config;
mod report;
mod settings;

use std::fmt;

pub use self::judge::KeyVerdict;
pub use self::report::{ExplainReport, IndexName, KeyReport};

use super::error::KeyError;
use super::invocation::Invocation;
use crate::index::IndexRef;
use crate::item::keys::index_id_in_query_config_key;
use crate::ports::{KvError, Services};

/// What is to be explained.
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

/// Why there is no explanation.
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

/// Explains an index or a key.
pub async fn explain<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Explain,
) -> Result<ExplainReport, ExplainError> {
    let gathered = match request {
        Explain::Index(index) => settings::about_index(invocation, index).await,
        Explain::Key(key) => match index_id_in_query_config_key(key) {
            Some(index_id) => query_config::about_key(invocation, key, index_id).await,
            None => settings::about_key(invocation, key).await,
        },
    };
    let gathered = gathered.map_err(|error| match error.auth_rejected() {
        Some(refusal) => ExplainError::CloudflareAuthRejected(refusal.clone()),
        None => ExplainError::Incomplete { asked: request.clone(), error },
    })?;
    let gathered = gathered.ok_or_else(|| ExplainError::IndexNotFound(request.clone()))?;
    let environment = &invocation.config.environment;
    let judged: Vec<_> = gathered.keys.iter().map(|key| judge::judge(key, environment)).collect();
    let advice = match invocation.config.dry_run {
        true => advice::DRY_RUN.to_owned(),
        false => advice::advice(&gathered, &judged),
    };
    Ok(report::report(&gathered, &judged, advice + "."))
}
