//! What KV should hold of an item.

use secrecy::SecretString;

use super::api_keys::{ApiKeyOwner, ApiKeys, NotExportable};
use crate::config::ExporterConfig;
use crate::index::{IndexRef, ItemRef};
use crate::item::{IndexSettings, Item, Rejection, query_config_value};
use crate::kv::Digest;
use crate::kv::limits::check_value_size;
use crate::ports::fits_a_url;

/// A value and the keys that ask for it. May hold an API key: no `Debug`.
#[derive(Clone)]
pub struct Desired {
    /// The primary key first.
    pub keys: Vec<String>,
    pub value: String,
}

impl Desired {
    pub fn digest(&self) -> Digest {
        Digest::of(self.value.as_bytes())
    }
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
        let settings = IndexSettings::decode(index, &item.attributes())?;
        let cell = settings.cell.as_ref().or(config.default_cell.as_ref()).ok_or_else(|| {
            let reason = "is absent, and the function has no DEFAULT_CELL to fall back on";
            Rejection::new("cell", reason)
        })?;
        for (path, name) in [("cell", cell), ("system_account_id", &index.account)] {
            if !fits_a_url(name) {
                return Err(Rejection::new(path, "can't be part of a URL"));
            }
        }
        let owner = ApiKeyOwner { cell: cell.clone(), account: index.account.clone() };
        Ok(Self { settings, owner })
    }

    pub fn desired(&self, api_key: &SecretString) -> Result<Desired, Rejection> {
        let value = self.settings.value(api_key);
        check_value_size(value.len()).map_err(Rejection::over_limit("(value)"))?;
        Ok(Desired { keys: self.settings.kv_keys(), value })
    }
}

/// An item that can be exported, as far as its own content tells.
pub enum Decoded {
    Settings(Box<Exportable>),
    QueryConfig(Desired),
}

impl Decoded {
    pub fn of(item: &ItemRef, content: &Item, config: &ExporterConfig) -> Result<Self, Rejection> {
        if item.query.is_none() {
            let settings = Exportable::decode(&item.index, content, config)?;
            return Ok(Self::Settings(Box::new(settings)));
        }
        let value = query_config_value(item, &content.attributes())?;
        Ok(Self::QueryConfig(Desired { keys: vec![item.kv_key()], value }))
    }

    /// Returns the settings, which need an API key.
    pub fn settings(&self) -> Option<&Exportable> {
        match self {
            Self::Settings(settings) => Some(settings),
            Self::QueryConfig(_) => None,
        }
    }

    /// Returns the value, with the API key that was found for it.
    pub fn desired(self, api_keys: &ApiKeys) -> Result<Desired, NotExportable> {
        match self {
            Self::Settings(settings) => {
                Ok(settings.desired(api_keys.get(&settings.owner, &settings.settings.index)?)?)
            }
            Self::QueryConfig(desired) => Ok(desired),
        }
    }
}
