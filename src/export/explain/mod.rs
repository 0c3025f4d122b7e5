//! Explain: what KV holds of an index, or under a key, and why. Changes nothing.
//!
//! Gather (`settings`, `query_config`) → judge each key (`judge`) → advise (`advice`). The
//! decisions are those of the use cases that write: [`settle`](super::settle) says what a settings key
//! is for, and reconcile what a key is by who wrote it.
//!
//! | asked about | requests to KV | reads of the table |
//! | --- | --- | --- |
//! | an index | its keys; the shop id that only a value names | its item; one pass; the items that the keys are for |
//! | a key whose value names an index | the key; the index's other keys; the shop id that only a value names | the same |
//! | any other key | the same | one pass, then the items that ask for the key, and those that the keys are for |
//! | a query config's key | the key | its item and its twins'; where no value names it, the query configs of its index |

mod advice;
mod claim_index;
mod gathered;
mod judge;
mod looking;
mod query_config;
mod report;
mod settings;
mod whose;

use std::fmt;

use self::gathered::Gathered;
pub use self::report::{IndexName, ItemState, KeyReport, Report};

use super::error::KeyError;
use super::invocation::Invocation;
use super::table::ReadError;
use crate::index::IndexRef;
use crate::item::keys::index_id_in_query_config_key;
use crate::ports::{KvError, Services};

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Explain {
    /// An index.
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
    /// Nobody knows the index or the key.
    #[error("neither the table nor KV knows {0}, and no active alias points at it")]
    IndexNotFound(Explain),
    /// Cloudflare refuses the token.
    #[error(transparent)]
    CloudflareAuthRejected(KvError),
    /// A service failed; the same again may help.
    #[error("{asked} can't be explained")]
    Incomplete {
        /// What was asked about.
        asked: Explain,
        /// What happened.
        #[source]
        error: KeyError,
    },
}

/// Why something could not be gathered.
enum Unknown {
    NotFound,
    Failed(KeyError),
}

impl From<KeyError> for Unknown {
    fn from(error: KeyError) -> Self {
        Self::Failed(error)
    }
}

impl From<ReadError> for Unknown {
    fn from(error: ReadError) -> Self {
        Self::Failed(error.into())
    }
}

impl From<KvError> for Unknown {
    fn from(error: KvError) -> Self {
        Self::Failed(error.into())
    }
}

/// Explains an index or a key.
pub async fn explain<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Explain,
) -> Result<Report, ExplainError> {
    let gathered = match request {
        Explain::Index(index) => settings::about_index(invocation, index).await,
        Explain::Key(key) => match index_id_in_query_config_key(key) {
            Some(index_id) => query_config::about_key(invocation, key, index_id).await,
            None => settings::about_key(invocation, key).await,
        },
    };
    match gathered {
        Ok(gathered) => Ok(report_of(invocation, &gathered)),
        Err(Unknown::NotFound) => Err(ExplainError::IndexNotFound(request.clone())),
        Err(Unknown::Failed(error)) => Err(match error.auth_rejected() {
            Some(refusal) => ExplainError::CloudflareAuthRejected(refusal.clone()),
            None => ExplainError::Incomplete { asked: request.clone(), error },
        }),
    }
}

fn report_of<S: Services>(invocation: &Invocation<'_, S>, gathered: &Gathered) -> Report {
    let environment = &invocation.config.environment;
    let judged: Vec<_> = gathered.keys.iter().map(|key| judge::judge(key, environment)).collect();
    let advice = if invocation.config.dry_run {
        "KV was not read, because this is a dry run: set CLOUDFLARE_ACCOUNT_ID to compare"
            .to_owned()
    } else {
        advice::advice(gathered, &judged)
    };
    report::report(gathered, &judged, advice + ".")
}
