//! The API keys service.

use secrecy::SecretString;

use super::{Cause, Retry, Retryable};

pub trait ApiKeyService {
    /// Asks the gateway of `cell` for the key of `account`. Both names have to fit a URL, see [`fits_a_url`].
    async fn fetch(&self, cell: &str, account: &str) -> Result<SecretString, ApiKeyError>;
}

/// Returns whether the name of a cell or an account can be a segment of the service's URL. A URL parser
/// takes `.` and `..`, encoded or not, for steps up the path.
pub fn fits_a_url(name: &str) -> bool {
    name != "." && name != ".."
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiKeyError {
    #[error("the account has no API key")]
    NotFound,
    /// With these names, the URL does not parse.
    #[error("cell can't be part of a URL")]
    NoUrl,
    /// No answer, or 5xx.
    #[error("API keys service")]
    Silent(#[source] Cause),
    /// 408, 429, or 200 without a usable key: the gateway answers, and another try may help.
    #[error("API keys service")]
    Busy(#[source] Cause),
    /// Any other response without a key. The same request would get it again.
    #[error("API keys service")]
    Refused(#[source] Cause),
}

impl Retryable for ApiKeyError {
    fn retry(&self) -> Option<Retry> {
        let (after_whole_back_off, cause) = match self {
            Self::Silent(cause) => (false, cause),
            Self::Busy(cause) => (true, cause),
            Self::NotFound | Self::NoUrl | Self::Refused(_) => return None,
        };
        Some(Retry { after_whole_back_off, asked_wait: cause.asked_wait })
    }
}
