//! The accounts' API keys: asking for them, and what follows where there is none.

mod asking;
mod resolve;
mod reuse;

pub use asking::{
    BATCH_TIME_FOR_API_KEYS, LATE_TIME_FOR_API_KEYS, Patience, Reuse, TIME_FOR_ONE_TRY,
};
pub use resolve::{ApiKeyUnavailable, ApiKeys, NotExportable, WhyNoApiKey};

use crate::config::ExporterConfig;
use crate::index::IndexRef;
use crate::item::{IndexSettings, Item, Rejection};
use crate::ports::fits_a_url;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{Fakes, index_settings};
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
