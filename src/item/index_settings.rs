//! An index's settings: what the item says, and the KV value and keys that follow from it.

use secrecy::{ExposeSecret, SecretString};

use super::index_aliases::IndexAliases;
use super::keys::settings_keys;
use super::{Map, Rejection};
use crate::index::IndexRef;
use crate::json::Json;
use crate::kv::check_key;
use crate::kv::metadata::check_metadata_size;

/// An index-settings item that can be exported, given an API key. `Debug` shows no settings.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexSettings {
    pub index: IndexRef,
    /// The primary KV key, where the index has one.
    pub shop_id: Option<String>,
    /// The cell whose gateway is asked for the API key; the default cell where absent.
    pub cell: Option<String>,
    /// The attributes that go to KV, in the order in which the search proxy's readers know them.
    exported: Vec<(&'static str, Json)>,
    /// What is exported all the same but is worth a look.
    pub warning: Option<String>,
}

impl IndexSettings {
    /// Decodes the item of `index`, with all that KV demands of its keys and metadata. The size of the
    /// value is checked where that is encoded, with its API key.
    pub fn decode(index: &IndexRef, item: &Map) -> Result<Self, Rejection> {
        let shop_id = item.read_text("shop_id")?;
        let cell = item.read_text("cell")?;
        let aliases = IndexAliases::decode(item)?;
        let exported = [
            ("index_url", Some(Json::string(index_endpoint(item)?))),
            ("search_config", item.read_json("search_config")?),
            ("collections_config", item.read_json("collections_config")?),
            ("feature_flags", item.read_json("feature_flags")?),
            ("agentic_config", item.read_json("agentic_config")?),
            ("pixel_id", item.read_text("pixel_id")?.map(|id| Json::string(&id))),
            ("index_aliases", aliases.to_json()),
            ("query_override_sharding", item.read_json("query_override_sharding")?),
        ];
        let exported = exported.into_iter().filter_map(|(name, json)| Some((name, json?)));
        let settings = Self {
            index: index.clone(),
            shop_id,
            cell,
            exported: exported.collect(),
            warning: aliases.warning(),
        };
        settings.check_limits()?;
        Ok(settings)
    }

    fn check_limits(&self) -> Result<(), Rejection> {
        check_key(&self.index.index_id()).map_err(Rejection::over_limit("index_name"))?;
        if let Some(shop_id) = &self.shop_id {
            check_key(shop_id).map_err(Rejection::over_limit("shop_id"))?;
        }
        check_metadata_size(&self.index).map_err(Rejection::over_limit("index_name"))
    }

    pub fn kv_keys(&self) -> Vec<String> {
        settings_keys(&self.index, self.shop_id.as_deref())
    }

    /// The KV value. This is the only way to build it, so every value has an API key.
    pub fn value(&self, api_key: &SecretString) -> String {
        let named = [
            ("system_account_id", Some(&*self.index.account)),
            ("index_name", Some(&*self.index.name)),
            ("shop_id", self.shop_id.as_deref()),
            ("marqo_api_key", Some(api_key.expose_secret())),
        ];
        let named = named.into_iter().filter_map(|(name, text)| Some((name, Json::string(text?))));
        let named: Vec<_> = named.collect();
        let fields = named.iter().chain(&self.exported);
        let fields = fields.map(|(name, json)| format!("\"{name}\":{}", json.get()));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    }
}

fn index_endpoint(item: &Map) -> Result<&str, Rejection> {
    const NAME: &str = "index_endpoint";
    match item.read_string(NAME)? {
        None => Err(Rejection::new(NAME, "is required")),
        Some(url) if is_http_url(url) => Ok(url),
        Some(_) => Err(Rejection::new(NAME, "must be an absolute http or https URL")),
    }
}

fn is_http_url(text: &str) -> bool {
    // The URL parser forgives what the proxy's fetch would stumble over or read otherwise:
    // surrounding blanks, line breaks, backslashes, a missing `//`.
    let forgiven = text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '\\');
    let prefixed = ["http://", "https://"].iter().any(|prefix| {
        text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
            && !text[prefix.len()..].starts_with(['/', '?', '#'])
    });
    prefixed && !forgiven && url::Url::parse(text).is_ok_and(|url| url.has_host())
}
