//! An index's settings: what the item says, and the KV value and keys that follow from it.

use secrecy::{ExposeSecret, SecretString};
use serde::{Serialize, Serializer};

use super::fields::Fields;
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

#[derive(Serialize)]
struct SettingsValue<'a> {
    system_account_id: &'a str,
    index_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    shop_id: Option<&'a str>,
    marqo_api_key: &'a str,
    #[serde(flatten, serialize_with = "in_order")]
    exported: &'a [(&'static str, Json)],
}

fn in_order<S: Serializer>(
    attributes: &&[(&'static str, Json)],
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_map(attributes.iter().map(|(name, json)| (name, json)))
}

impl IndexSettings {
    /// Decodes the item of `index`, with all that KV demands of its keys and metadata. The size of the
    /// value is checked where that is encoded, with its API key.
    pub fn decode(index: &IndexRef, item: &Map<'_>) -> Result<Self, Rejection> {
        let item = Fields::of_item(item);
        let shop_id = item.non_empty_string("shop_id")?;
        let cell = item.non_empty_string("cell")?;
        let mut exported = vec![("index_url", Json::of(index_endpoint(&item)?).ok())];
        for name in ["search_config", "collections_config", "feature_flags", "agentic_config"] {
            exported.push((name, item.map_as_json(name)?));
        }
        let pixel_id = item.non_empty_string("pixel_id")?;
        exported.push(("pixel_id", pixel_id.and_then(|id| Json::of(&id).ok())));
        let aliases = IndexAliases::decode(&item)?;
        exported.push(("index_aliases", aliases.to_json()));
        let sharding = "query_override_sharding";
        exported.push((sharding, item.map_as_json(sharding)?));
        let exported = exported.into_iter().filter_map(|(name, json)| Some((name, json?)));
        let (exported, warning) = (exported.collect(), aliases.warning());
        let settings = Self { index: index.clone(), shop_id, cell, exported, warning };
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

    pub fn asks_for(&self, key: &str) -> bool {
        self.kv_keys().iter().any(|own| own == key)
    }

    /// The KV value. This is the only way to build it, so every value has an API key.
    pub fn value(&self, api_key: &SecretString) -> String {
        let value = SettingsValue {
            system_account_id: &self.index.account,
            index_name: &self.index.name,
            shop_id: self.shop_id.as_deref(),
            marqo_api_key: api_key.expose_secret(),
            exported: &self.exported,
        };
        // Only a map whose keys are no strings can't be written.
        serde_json::to_string(&value).unwrap_or_default()
    }
}

fn index_endpoint<'a>(item: &Fields<'a>) -> Result<&'a str, Rejection> {
    const NAME: &str = "index_endpoint";
    match item.string(NAME)? {
        None => Err(item.reject(NAME, "is required")),
        Some(url) if is_http_url(url) => Ok(url),
        Some(_) => Err(item.reject(NAME, "must be an absolute http or https URL")),
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

#[cfg(test)]
mod tests {
    use super::*;

    fn value(settings: &IndexSettings, api_key: &str) -> String {
        settings.value(&api_key.into())
    }

    fn decode(item: &str) -> Result<IndexSettings, Rejection> {
        let index = IndexRef::parse("acct1", "main").unwrap();
        let item = serde_json::value::RawValue::from_string(item.to_owned()).unwrap();
        IndexSettings::decode(&index, &Map::read(&item).unwrap())
    }

    #[test]
    fn debug_shows_no_settings() {
        let item = r#"{"index_endpoint":{"S":"https://h.example"},"pixel_id":{"S":"s3cret"}}"#;
        let shown = format!("{:?}", decode(item).unwrap());
        assert!(!shown.contains("s3cret") && !shown.contains("h.example"), "{shown}");
    }

    #[test]
    fn the_value_byte_for_byte() {
        let settings = decode(
            r#"{"query_override_sharding":{"M":{"shards":{"N":"4"}}},"pixel_id":{"S":"px-1"},
            "agentic_config":{"M":{}},"feature_flags":{"M":{"b":{"BOOL":true},"a":{"NULL":true}}},
            "collections_config":{"M":{"k":{"L":[{"N":"1"},{"N":"1.5"}]}}},"search_config":{"M":{}},
            "shop_id":{"S":"example.myshopify.com"},"index_endpoint":{"S":"https://x.example/idx?a=1"},
            "cell":{"S":"cell-1"},"pk":{"S":"acct1"},"sk":{"S":"INDEX#main"},
            "create_index_config":{"BROKEN":1},"add_docs_config":{"M":{}},"unknown":{"S":"x"},
            "index_aliases":{"M":{"analytics":{"M":{"enabled":{"BOOL":false}}}}},"read_alias":{"S":"acct1-v2"}}"#,
        )
        .unwrap();
        assert_eq!(
            value(&settings, "k\"1"),
            concat!(
                r#"{"system_account_id":"acct1","index_name":"main","shop_id":"example.myshopify.com","#,
                r#""marqo_api_key":"k\"1","index_url":"https://x.example/idx?a=1","search_config":{},"#,
                r#""collections_config":{"k":[1,1.5]},"feature_flags":{"a":null,"b":true},"#,
                r#""agentic_config":{},"pixel_id":"px-1","index_aliases":{"analytics":{"enabled":false,"#,
                r#""index_id":null,"internal":false},"doc_reads":{"enabled":true,"targets":[{"index_id":"#,
                r#""acct1-v2","internal":false,"weight":1.0}]}},"query_override_sharding":{"shards":4}}"#
            )
        );
        assert_eq!(settings.kv_keys(), ["example.myshopify.com", "acct1-main"]);
        assert!(settings.kv_keys().iter().all(|key| settings.asks_for(key)));
        assert!(!settings.asks_for("acct1") && !settings.asks_for("acct1-main2"));
        assert_eq!(settings.cell.as_deref(), Some("cell-1"));
    }

    #[test]
    fn absent_null_and_empty_fields_are_left_out() {
        let settings = decode(
            r#"{"index_endpoint":{"S":"http://h"},"shop_id":{"S":""},"pixel_id":{"NULL":true},
            "cell":{"S":""},"search_config":{"NULL":true},"read_alias":{"S":""}}"#,
        )
        .unwrap();
        assert_eq!(
            value(&settings, "k"),
            r#"{"system_account_id":"acct1","index_name":"main","marqo_api_key":"k","index_url":"http://h"}"#
        );
        assert_eq!(settings.kv_keys(), ["acct1-main"]);
        assert_eq!(settings.cell, None);
    }

    #[test]
    fn one_key_where_the_shop_id_is_the_index_id() {
        let settings =
            decode(r#"{"index_endpoint":{"S":"http://h"},"shop_id":{"S":"acct1-main"}}"#).unwrap();
        assert_eq!(settings.kv_keys(), ["acct1-main"]);
        assert!(value(&settings, "k").contains(r#""shop_id":"acct1-main""#));
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        let rows = [
            (r#"{}"#.to_owned(), "index_endpoint"),
            (r#"{"index_endpoint":{"S":""}}"#.to_owned(), "index_endpoint"),
            (r#"{"index_endpoint":{"NULL":true}}"#.to_owned(), "index_endpoint"),
            (r#"{"index_endpoint":{"N":"1"}}"#.to_owned(), "index_endpoint"),
            (with(r#""shop_id":{"S":"."}"#), "shop_id"),
            (with(r#""shop_id":{"S":".."}"#), "shop_id"),
            (with(&format!(r#""shop_id":{{"S":"{}"}}"#, "s".repeat(513))), "shop_id"),
            (with(r#""shop_id":{"N":"1"}"#), "shop_id"),
            (with(r#""cell":{"BOOL":true}"#), "cell"),
            (with(r#""pixel_id":{"M":{}}"#), "pixel_id"),
            (with(r#""search_config":{"S":"{}"}"#), "search_config"),
            (with(r#""agentic_config":{"M":{"a":{"L":[{"N":"1e999"}]}}}"#), "agentic_config"),
            (with(r#""feature_flags":{"Q":{}}"#), "feature_flags"),
        ];
        for (image, path) in rows {
            assert_eq!(decode(&image).unwrap_err().path, path, "{image}");
        }
        assert!(decode(&with(&format!(r#""shop_id":{{"S":"{}"}}"#, "s".repeat(512)))).is_ok());
    }

    fn with(attribute: &str) -> String {
        format!(r#"{{"index_endpoint":{{"S":"http://h"}},{attribute}}}"#)
    }

    #[test]
    fn only_absolute_http_urls_are_endpoints() {
        let endpoint = |url: &str| {
            decode(&format!(r#"{{"index_endpoint":{{"S":{}}}}}"#, serde_json::json!(url)))
        };
        for good in ["http://h", "https://h:8443/p?q#f", "HTTPS://H.example/", "http://[::1]:1/"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        for bad in [
            "h.example",
            "/path",
            "//h/p",
            "ftp://h",
            "http:h",
            "http:/h",
            "http://",
            "https:///p",
            " http://h",
            "http://h\n",
            "http://h/ p",
            "http://h/\u{7f}",
            "http://h\\p",
            "javascript:alert(1)",
            "http://h:x",
        ] {
            assert_eq!(endpoint(bad).unwrap_err().path, "index_endpoint", "{bad}");
        }
    }
}
