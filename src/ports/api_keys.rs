//! The API keys service.

use secrecy::SecretString;

use super::{Cause, Retry, Retryable};

#[expect(async_fn_in_trait, reason = "the function runs on one thread: no future needs Send")]
pub trait ApiKeyService {
    /// Asks the gateway of `cell` for the key of `account`.
    async fn fetch(&self, cell: &str, account: &str) -> Result<SecretString, ApiKeyError>;
}

/// Whether a cell's or an account's name can stand in the service's URL. A URL's parser takes `.` and
/// `..`, encoded or not, as steps up the path.
pub fn fits_a_url(name: &str) -> bool {
    name != "." && name != ".."
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    #[error("the account has no API key")]
    NotFound,
    /// The name of the account or the cell does not fit the URL, or the URL is none with it.
    #[error("{path} can't be part of a URL")]
    BadName { path: &'static str },
    /// The gateway said nothing of the account: it gave no answer, or asked to come back later.
    #[error("API keys service")]
    Silent(#[source] Cause),
    /// It would say the same again.
    #[error("API keys service")]
    Refused(#[source] Cause),
}

impl Retryable for ApiKeyError {
    fn retry(&self) -> Retry {
        match self {
            Self::Silent(cause) => Retry::After(cause.asked_wait),
            Self::NotFound | Self::BadName { .. } | Self::Refused(_) => Retry::Never,
        }
    }
}
