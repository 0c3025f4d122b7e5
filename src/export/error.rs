//! Why a key could not be made what the table asks for.

use super::MAX_ROUNDS;
use super::api_keys::{ApiKeyUnavailable, WhyNoApiKey};
use super::table::ReadError;
use crate::ports::KvError;

/// Why a key is not what the table asks for. Trying again may help, unless the variant says what
/// else to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// KV did not confirm a request.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// The table could not be read.
    #[error(transparent)]
    Table(#[from] ReadError),
    /// The API key is unavailable.
    #[error(transparent)]
    ApiKey(#[from] ApiKeyUnavailable),
    /// The table changes as fast as it is followed.
    #[error("the record still changes after {MAX_ROUNDS} rounds")]
    StillChanging,
    /// Two reads of the table contradict each other.
    #[error("the table changes while it is read")]
    ChangedMeanwhile,
    /// A delete was not sent: it could not have been looked after.
    #[error("too little time is left for a delete and the look after it")]
    NoTimeToLookAgain,
    /// KV did not confirm a delete: the key may be there still.
    #[error("KV did not confirm the delete")]
    DeleteUnconfirmed(#[source] KvError),
    /// Another key could not be settled.
    #[error("key {key:?} could not be settled")]
    NotSettled {
        /// The key.
        key: String,
        /// Why not.
        #[source]
        source: Box<KeyError>,
    },
    /// A query config's key could not be removed.
    #[error("key {key:?} could not be removed")]
    NotRemoved {
        /// The key.
        key: String,
        /// Why not.
        #[source]
        source: Box<KeyError>,
    },
    /// A query config's value doesn't say whose it is.
    #[error("the value doesn't say whose query config it is: delete the key by hand")]
    UnknownQueryConfig,
}

impl KeyError {
    /// The API key that is missing, if that is the cause.
    pub fn missing_api_key(&self) -> Option<&ApiKeyUnavailable> {
        match self {
            Self::ApiKey(error) => Some(error),
            Self::NotSettled { source, .. } => source.missing_api_key(),
            _ => None,
        }
    }

    /// Whether nothing is wrong but that the time was up.
    pub fn is_out_of_time(&self) -> bool {
        match self {
            Self::Kv(error) | Self::DeleteUnconfirmed(error) => {
                matches!(error, KvError::OutOfTime | KvError::NotSent)
            }
            Self::Table(ReadError::OutOfTime(_)) | Self::NoTimeToLookAgain => true,
            Self::NotSettled { source, .. } | Self::NotRemoved { source, .. } => {
                source.is_out_of_time()
            }
            _ => false,
        }
    }

    /// Cloudflare's refusal of this pair or delete alone, if that is the cause.
    pub fn refused_alone(&self) -> Option<&KvError> {
        match self {
            Self::Kv(kv) | Self::DeleteUnconfirmed(kv) => {
                matches!(kv, KvError::RefusedContent { .. }).then_some(kv)
            }
            Self::NotSettled { source, .. } | Self::NotRemoved { source, .. } => {
                source.refused_alone()
            }
            _ => None,
        }
    }

    /// Cloudflare's refusal of the token, if that is the cause.
    pub fn auth_rejected(&self) -> Option<&KvError> {
        let kv = match self {
            Self::Kv(kv)
            | Self::DeleteUnconfirmed(kv)
            | Self::ApiKey(ApiKeyUnavailable {
                why: WhyNoApiKey::KvUnreadable { kv, .. }, ..
            }) => kv,
            Self::NotSettled { source, .. } | Self::NotRemoved { source, .. } => {
                return source.auth_rejected();
            }
            _ => return None,
        };
        kv.auth_rejected()
    }
}
