//! Why a key is not what the table asks for.

use super::MAX_ROUNDS;
use super::api_keys::{ApiKeyUnavailable, WhyNoApiKey};
use super::table::ReadError;
use crate::ports::KvError;

/// Trying again may help, unless the message says what else to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    #[error(transparent)]
    Kv(#[from] KvError),
    #[error(transparent)]
    Table(#[from] ReadError),
    #[error(transparent)]
    ApiKey(#[from] ApiKeyUnavailable),
    /// The table changes as fast as it is followed.
    #[error("the record still changes after {MAX_ROUNDS} rounds")]
    StillChanging,
    #[error("the table changes while it is read")]
    ChangedMeanwhile,
    /// A delete was not sent: it could not have been checked afterwards.
    #[error("too little time is left for a delete and the look after it")]
    NoTimeToLookAgain,
    /// The key may still be there.
    #[error("KV did not confirm the delete")]
    DeleteUnconfirmed(#[source] KvError),
    #[error("key {key:?} could not be settled")]
    NotSettled {
        key: String,
        #[source]
        source: Box<KeyError>,
    },
    #[error("key {key:?} could not be removed")]
    NotRemoved {
        key: String,
        #[source]
        source: Box<KeyError>,
    },
    #[error("the value doesn't say whose query config it is: delete the key by hand")]
    UnknownQueryConfig,
}

impl KeyError {
    /// What went wrong with the key that could not be settled or removed.
    fn cause(&self) -> &Self {
        match self {
            Self::NotSettled { source, .. } | Self::NotRemoved { source, .. } => source.cause(),
            error => error,
        }
    }

    /// What went wrong with a request to KV, if that is the cause.
    fn kv(&self) -> Option<&KvError> {
        match self.cause() {
            Self::Kv(error) | Self::DeleteUnconfirmed(error) => Some(error),
            _ => None,
        }
    }

    pub fn missing_api_key(&self) -> Option<&ApiKeyUnavailable> {
        match self.cause() {
            Self::ApiKey(error) => Some(error),
            _ => None,
        }
    }

    /// The cell whose gateway gives no API key, if that is the cause.
    pub fn cell_without_api_key(&self) -> Option<&str> {
        self.missing_api_key().map(|missing| missing.cell.as_str())
    }

    /// Whether nothing is wrong but that the time was up.
    pub fn is_out_of_time(&self) -> bool {
        matches!(self.kv(), Some(KvError::OutOfTime | KvError::NotSent))
            || matches!(
                self.cause(),
                Self::Table(ReadError::OutOfTime(_)) | Self::NoTimeToLookAgain
            )
    }

    /// Cloudflare's refusal of this pair or delete alone, if that is the cause.
    pub fn refused_alone(&self) -> Option<&KvError> {
        self.kv().filter(|error| matches!(error, KvError::RefusedContent(_)))
    }

    /// Cloudflare's refusal of the token, if that is the cause.
    pub fn auth_rejected(&self) -> Option<&KvError> {
        let unreadable = self.missing_api_key().and_then(|missing| match &missing.why {
            WhyNoApiKey::KvUnreadable { kv, .. } => Some(kv),
            _ => None,
        });
        self.kv().or(unreadable)?.auth_rejected()
    }
}
