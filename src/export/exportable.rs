//! What KV should hold of an item.

use super::api_keys::{ApiKeyOwner, ApiKeys, NotExportable};
use crate::config::ExporterConfig;
use crate::index::ItemRef;
use crate::item::{IndexSettings, Item, Rejection, claimed_keys, query_config_value};
use crate::kv::limits::check_value_size;
use crate::ports::fits_a_url;

/// An item that can be exported, as far as its own content tells.
#[derive(Debug)]
pub struct Exportable {
    pub item: ItemRef,
    /// The keys that it asks for, the primary one first.
    pub keys: Vec<String>,
    content: Content,
}

#[derive(Debug)]
enum Content {
    /// With the account whose API key the value takes.
    Settings(Box<IndexSettings>, ApiKeyOwner),
    /// The value.
    QueryConfig(String),
}

impl Exportable {
    pub fn decode(
        item: &ItemRef,
        content: &Item,
        config: &ExporterConfig,
    ) -> Result<Self, Rejection> {
        let attributes = content.attributes();
        let keys = claimed_keys(item, &attributes);
        if item.query.is_some() {
            let content = Content::QueryConfig(query_config_value(item, &attributes)?);
            return Ok(Self { item: item.clone(), keys, content });
        }
        let settings = IndexSettings::decode(&item.index, &attributes)?;
        let cell = settings.cell.as_ref().or(config.default_cell.as_ref()).ok_or_else(|| {
            let reason = "is absent, and the function has no DEFAULT_CELL to fall back on";
            Rejection::new("cell", reason)
        })?;
        let owner = ApiKeyOwner { cell: cell.clone(), account: item.index.account.clone() };
        for (path, name) in [("cell", &owner.cell), ("system_account_id", &owner.account)] {
            if !fits_a_url(name) {
                return Err(Rejection::new(path, "can't be part of a URL"));
            }
        }
        let content = Content::Settings(Box::new(settings), owner);
        Ok(Self { item: item.clone(), keys, content })
    }

    /// Makes the item keep the API key that it was written with, even if it has moved to another cell.
    pub fn with_owner(mut self, had: Option<&ApiKeyOwner>) -> Self {
        if let (Content::Settings(_, owner), Some(had)) = (&mut self.content, had) {
            owner.clone_from(had);
        }
        self
    }

    /// Returns the value, with the API key that was found for it.
    pub fn value(self, api_keys: &ApiKeys) -> Result<String, NotExportable> {
        match self.content {
            Content::QueryConfig(value) => Ok(value),
            Content::Settings(settings, owner) => {
                let value = settings.value(api_keys.get(&owner, &self.item.index)?);
                check_value_size(value.len())
                    .map_err(|reason| Rejection::new("(value)", reason))?;
                Ok(value)
            }
        }
    }

    /// Returns the settings, whose value takes an API key, and the account whose API key it is.
    pub fn settings(&self) -> Option<(&IndexSettings, &ApiKeyOwner)> {
        match &self.content {
            Content::Settings(settings, owner) => Some((settings, owner)),
            Content::QueryConfig(_) => None,
        }
    }

    pub fn owner(&self) -> Option<&ApiKeyOwner> {
        self.settings().map(|(_, owner)| owner)
    }
}
