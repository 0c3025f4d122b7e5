//! The accounts' API keys: asking for them, and what follows where there is none.

mod asking;
mod resolve;

pub use asking::{
    BATCH_TIME_FOR_API_KEYS, LATE_TIME_FOR_API_KEYS, Patience, Reuse, TIME_FOR_ONE_TRY,
};
pub use resolve::ApiKeys;

use crate::config::ExporterConfig;
use crate::error_chain::Chain;
use crate::index::IndexRef;
use crate::item::{IndexSettings, Item, Rejection};
use crate::ports::{ApiKeyError, KvError, fits_a_url};

/// Whose API key is asked for, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApiKeyOwner {
    pub cell: String,
    pub account: String,
}

/// Settings that can be exported once their account's API key is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Exportable {
    pub settings: IndexSettings,
    pub owner: ApiKeyOwner,
}

impl Exportable {
    pub fn decode(
        index: &IndexRef,
        item: &Item,
        config: &ExporterConfig,
    ) -> Result<Self, Rejection> {
        Self::new(IndexSettings::decode(index, &item.attributes())?, config)
    }

    /// Finds the owner of the API key that the settings need.
    pub fn new(settings: IndexSettings, config: &ExporterConfig) -> Result<Self, Rejection> {
        let cell = settings.cell.as_ref().or(config.default_cell.as_ref()).ok_or_else(|| {
            Rejection::new(
                "cell",
                "is absent, and the function has no DEFAULT_CELL to fall back on",
            )
        })?;
        let account = &settings.index.account;
        for (path, name) in [("cell", cell), ("system_account_id", account)] {
            if !fits_a_url(name) {
                return Err(Rejection::new(path, "can't be part of a URL"));
            }
        }
        let owner = ApiKeyOwner { cell: cell.clone(), account: account.clone() };
        Ok(Self { settings, owner })
    }
}

#[derive(Debug, Clone, PartialEq)]
pub enum NotExportable {
    Rejected(Rejection),
    Unavailable(ApiKeyUnavailable),
}

impl From<Rejection> for NotExportable {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no API key from cell {cell:?}")]
pub struct ApiKeyUnavailable {
    pub cell: String,
    #[source]
    pub why: WhyNoApiKey,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WhyNoApiKey {
    /// The service has not been asked, or has not answered yet.
    #[error("it was not asked for")]
    NotAsked,
    /// The service gives none; KV was not looked into.
    #[error(transparent)]
    Service(ApiKeyError),
    #[error("KV holds no settings of this index whose API key could be used again")]
    NotInKv(#[source] ApiKeyError),
    #[error("KV can't be read for an API key to use again ({})", Chain(kv))]
    KvUnreadable {
        #[source]
        service: ApiKeyError,
        kv: KvError,
    },
}

impl ApiKeyUnavailable {
    /// Whether the service is still to answer, or KV still to be looked into.
    pub fn is_preliminary(&self) -> bool {
        matches!(self.why, WhyNoApiKey::NotAsked | WhyNoApiKey::Service(_))
    }

    /// Whether a late record that lacks nothing else is left to reconcile. A KV that can't be read may
    /// hold an API key, and soon be read again. But a gateway that says of an account that it has none
    /// says so for good.
    pub fn parks_late_records(&self) -> bool {
        matches!(
            self.why,
            WhyNoApiKey::NotInKv(_)
                | WhyNoApiKey::KvUnreadable { service: ApiKeyError::NotFound, .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::{Fakes, index_settings};
    use serde_json::json;

    #[test]
    fn the_owners_cell_is_the_items_else_the_default_one_and_both_names_fit_a_url() {
        let mut fakes = Fakes::new();
        let exportable = |fakes: &Fakes, account: &str, cell: Option<&str>| {
            let mut settings = index_settings("i", &json!({}));
            settings.index.account = account.to_owned();
            settings.cell = cell.map(str::to_owned);
            match Exportable::new(settings, &fakes.config) {
                Ok(Exportable { owner, .. }) => format!("{}/{}", owner.cell, owner.account),
                Err(rejection) => rejection.path,
            }
        };
        assert_eq!(exportable(&fakes, "a", Some("c")), "c/a");
        assert_eq!(exportable(&fakes, "a", None), "cell/a");
        assert_eq!(exportable(&fakes, "a", Some("..")), "cell");
        assert_eq!(exportable(&fakes, ".", Some("c")), "system_account_id");
        fakes.config.default_cell = None;
        assert_eq!(exportable(&fakes, "a", None), "cell");
    }
}
