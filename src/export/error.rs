//! Why KV does not hold what the table asks for.

use tracing::error;

use super::api_keys::ApiKeyUnavailable;
use crate::index::ItemRef;
use crate::item::Rejection;
use crate::ports::{ErrorKind, ServiceError};

/// Trying again may help, unless the message says what else to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExportError {
    #[error("key {key:?}")]
    Kv {
        key: String,
        #[source]
        error: ServiceError,
    },
    /// A deleted key is needed, and KV lacks it. That is left neither to a repair nor to the next run.
    #[error("key {key:?} is not put back")]
    NotPutBack {
        key: String,
        #[source]
        error: ServiceError,
    },
    #[error(transparent)]
    Table(#[from] ServiceError),
    #[error(transparent)]
    ApiKey(#[from] ApiKeyUnavailable),
    #[error("the table changes as fast as it is followed")]
    StillChanging,
    /// A delete was not sent, because there was no time to check it afterwards.
    #[error("too little time is left for a delete and the pass after it")]
    NoTimeForPass,
    #[error("nobody decided about it")]
    Undecided,
    #[error("the value does not say which query config it belongs to: delete the key by hand")]
    UnknownQueryConfig,
}

impl ExportError {
    pub fn kv(key: &str, error: ServiceError) -> Self {
        Self::Kv { key: key.to_owned(), error }
    }

    /// Returns whether the fault lies with this item, its key, or its account's cell. An old record that fails
    /// for that must not hold up its shard.
    pub fn is_own_fault(&self) -> bool {
        match self {
            Self::Kv { error, .. } => error.is_refusal(),
            // Others may have used up the time in which its gateway was to be asked.
            Self::ApiKey(_) if self.is_out_of_time() => false,
            Self::ApiKey(ApiKeyUnavailable { kv_holds_none, kv, .. }) => {
                *kv_holds_none || kv.as_ref().is_some_and(ServiceError::is_refusal)
            }
            _ => false,
        }
    }

    /// Returns whether KV or the table has failed.
    pub fn is_of_services(&self) -> bool {
        matches!(self, Self::Kv { .. } | Self::NotPutBack { .. } | Self::Table(_))
    }

    /// Returns whether the only fault is that the time was up.
    pub fn is_out_of_time(&self) -> bool {
        match self {
            Self::NoTimeForPass => true,
            Self::Table(error)
            | Self::Kv { error, .. }
            | Self::ApiKey(ApiKeyUnavailable { service: error, .. }) => {
                matches!(error.kind, ErrorKind::OutOfTime { .. })
            }
            _ => false,
        }
    }

    /// Returns the cell whose gateway gives no API key, if that is the cause.
    pub fn cell(&self) -> Option<&str> {
        match self {
            Self::ApiKey(unavailable) => Some(&unavailable.cell),
            _ => None,
        }
    }
}

pub fn log_rejected(item: Option<&ItemRef>, sequence_number: Option<&str>, rejection: &Rejection) {
    error!(
        system_account_id = item.map(|item| item.index.account.as_str()),
        index_name = item.map(|item| item.index.name.as_str()),
        normalized_query = item.and_then(|item| item.query.as_deref()),
        path = rejection.path,
        sequence_number,
        error = %rejection,
        "record rejected"
    );
}
