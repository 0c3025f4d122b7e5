//! An index's settings: what the item says, and the KV value and keys that follow from it.

use secrecy::{ExposeSecret, SecretString};

use super::index_aliases::IndexAliases;
use super::{Attribute, Map, Rejection};
use crate::index::IndexRef;
use crate::json::Json;
use crate::kv::check_key;
use crate::kv::metadata::check_metadata_size;

/// An index-settings item that can be exported, given an API key. `Debug` shows no settings.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexSettings {
    pub index: IndexRef,
    /// The primary KV key, see [`claimed_keys`](super::claimed_keys).
    pub shop_id: Option<String>,
    /// The cell whose gateway is asked for the API key; the default cell where absent.
    pub cell: Option<String>,
    /// The fields of the value after the names and the API key, in the order of the value.
    exported: [(&'static str, Option<Json>); 8],
    /// What is odd about the item, which is exported all the same.
    pub warning: Option<String>,
}

impl IndexSettings {
    /// Decodes the item of `index`, with all that KV demands of its keys and metadata. The size of the
    /// value is checked where that is encoded, with its API key.
    pub fn decode(index: &IndexRef, item: &Map) -> Result<Self, Rejection> {
        let shop_id = item.read_text("shop_id")?;
        let cell = item.read_text("cell")?;
        let aliases = IndexAliases::decode(item)?;
        let object = |name| item.read_json(name).map(|json| (name, json));
        let text =
            |name| item.read_text(name).map(|text| (name, text.as_deref().map(Json::string)));
        let exported = [
            ("index_url", Some(Json::string(index_endpoint(item)?))),
            object("search_config")?,
            object("collections_config")?,
            object("feature_flags")?,
            object("agentic_config")?,
            text("pixel_id")?,
            ("index_aliases", aliases.to_json()),
            object("query_override_sharding")?,
        ];
        check_key(&index.index_id()).map_err(Rejection::over_limit("index_name"))?;
        if let Some(shop_id) = &shop_id {
            check_key(shop_id).map_err(Rejection::over_limit("shop_id"))?;
        }
        check_metadata_size(index).map_err(Rejection::over_limit("index_name"))?;
        Ok(Self { index: index.clone(), shop_id, cell, exported, warning: aliases.warning() })
    }

    /// Returns the KV value. There is no other way to build one, so every value has an API key.
    pub fn value(&self, api_key: &SecretString) -> String {
        let named = [
            ("system_account_id", Some(Json::string(&self.index.account))),
            ("index_name", Some(Json::string(&self.index.name))),
            ("shop_id", self.shop_id.as_deref().map(Json::string)),
            ("marqo_api_key", Some(Json::string(api_key.expose_secret()))),
        ];
        let fields = named.iter().chain(&self.exported);
        let fields =
            fields.filter_map(|(name, json)| Some(format!("\"{name}\":{}", json.as_ref()?.get())));
        format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
    }
}

fn index_endpoint(item: &Map) -> Result<&str, Rejection> {
    const NAME: &str = "index_endpoint";
    match item.read_as(NAME, Attribute::as_string)? {
        None => Err(Rejection::new(NAME, "is required")),
        Some(url) if is_http_url(url) => Ok(url),
        Some(_) => Err(Rejection::new(NAME, "must be an absolute http or https URL")),
    }
}

fn is_http_url(text: &str) -> bool {
    // The URL parser accepts what the proxy's fetch would refuse or read in another way: surrounding
    // blanks, line breaks, backslashes, a missing `//`.
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
    use serde_json::{Value, json};
    use std::collections::BTreeSet;

    fn decode(item: Value) -> Result<IndexSettings, Rejection> {
        let index = IndexRef::parse("acct1", "main").unwrap();
        IndexSettings::decode(&index, &Map::from(item))
    }

    /// An item that can be exported, but for one more attribute.
    fn with(name: &str, attribute: Value) -> Value {
        json!({"index_endpoint": {"S": "http://h"}, name: attribute})
    }

    #[test]
    fn the_value_byte_for_byte() {
        let settings = decode(json!({
            "pk": {"S": "acct1"}, "sk": {"S": "INDEX#main"}, "cell": {"S": "cell-1"},
            "index_endpoint": {"S": "https://x.example/idx?a=1"},
            "shop_id": {"S": "example.myshopify.com"}, "pixel_id": {"S": "px-1"},
            "search_config": {"M": {}}, "agentic_config": {"M": {}},
            "collections_config": {"M": {"k": {"L": [{"N": "1"}, {"N": "1.5"}]}}},
            "feature_flags": {"M": {"b": {"BOOL": true}, "a": {"NULL": true}}},
            "index_aliases": {"M": {"analytics": {"M": {"enabled": {"BOOL": false}}}}},
            "read_alias": {"S": "acct1-v2"}, "query_override_sharding": {"M": {"shards": {"N": "4"}}},
            "create_index_config": {"BROKEN": 1}, "add_docs_config": {"M": {}}, "unknown": {"S": "x"},
        }))
        .unwrap();
        assert_eq!(
            settings.value(&"k\"1".into()),
            concat!(
                r#"{"system_account_id":"acct1","index_name":"main","shop_id":"example.myshopify.com","#,
                r#""marqo_api_key":"k\"1","index_url":"https://x.example/idx?a=1","search_config":{},"#,
                r#""collections_config":{"k":[1,1.5]},"feature_flags":{"a":null,"b":true},"#,
                r#""agentic_config":{},"pixel_id":"px-1","index_aliases":{"analytics":{"enabled":false,"#,
                r#""index_id":null,"internal":false},"doc_reads":{"enabled":true,"targets":[{"index_id":"#,
                r#""acct1-v2","internal":false,"weight":1.0}]}},"query_override_sharding":{"shards":4}}"#
            )
        );
        assert_eq!(settings.shop_id.as_deref(), Some("example.myshopify.com"));
        assert_eq!(settings.cell.as_deref(), Some("cell-1"));
    }

    #[test]
    fn the_schema_and_the_page_for_readers_name_every_field() {
        let schema: Value =
            serde_json::from_str(include_str!("../../schema/settings.json")).unwrap();
        let described: BTreeSet<&str> =
            schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        let names = ["system_account_id", "index_name", "shop_id", "marqo_api_key"];
        let settings = decode(with("cell", json!({"S": "c"}))).unwrap();
        let fields: BTreeSet<&str> =
            names.into_iter().chain(settings.exported.iter().map(|(name, _)| *name)).collect();
        assert_eq!(described, fields, "schema/settings.json");
        let page = include_str!("../../docs/kv.md");
        for name in fields {
            assert!(page.contains(&format!("`{name}`")), "docs/kv.md does not name {name}");
        }
    }

    #[test]
    fn absent_null_and_empty_fields_are_left_out() {
        let settings = decode(json!({
            "index_endpoint": {"S": "http://h"}, "shop_id": {"S": ""}, "pixel_id": {"NULL": true},
            "cell": {"S": ""}, "search_config": {"NULL": true}, "read_alias": {"S": ""},
        }))
        .unwrap();
        assert_eq!(
            settings.value(&"k".into()),
            r#"{"system_account_id":"acct1","index_name":"main","marqo_api_key":"k","index_url":"http://h"}"#
        );
        assert_eq!((settings.shop_id, settings.cell), (None, None));
    }

    #[test]
    fn a_rejection_names_its_path() {
        let rows = [
            (json!({}), "index_endpoint"),
            (json!({"index_endpoint": {"NULL": true}}), "index_endpoint"),
            (json!({"index_endpoint": {"N": "1"}}), "index_endpoint"),
            (with("shop_id", json!({"S": ".."})), "shop_id"),
            (with("shop_id", json!({"S": "s".repeat(513)})), "shop_id"),
            (with("shop_id", json!({"B": "AAAA"})), "shop_id"),
            (with("cell", json!({"BOOL": true})), "cell"),
            (with("pixel_id", json!({"M": {}})), "pixel_id"),
            (with("search_config", json!({"S": "{}"})), "search_config"),
            (
                with("agentic_config", json!({"M": {"a": {"L": [{"N": "1e999"}]}}})),
                "agentic_config",
            ),
            (with("feature_flags", json!({"Q": {}})), "feature_flags"),
            (with("read_alias", json!({"M": {}})), "read_alias"),
        ];
        for (item, path) in rows {
            assert_eq!(decode(item).unwrap_err().path, path);
        }
        assert!(decode(with("shop_id", json!({"S": "s".repeat(512)}))).is_ok());
        for name in ["n".repeat(507), "\u{1}".repeat(200)] {
            let index = IndexRef::parse("acct1", &name).unwrap();
            let item = Map::from(with("cell", json!({"S": "c"})));
            let rejection = IndexSettings::decode(&index, &item).unwrap_err();
            assert_eq!(rejection.path, "index_name");
        }
    }

    #[test]
    fn only_absolute_http_urls_are_endpoints() {
        let endpoint = |url: &str| decode(json!({"index_endpoint": {"S": url}}));
        for good in ["http://h", "https://h:8443/p?q#f", "HTTPS://H.example/", "http://[::1]:1/"] {
            assert!(endpoint(good).is_ok(), "{good}");
        }
        let bad = "h.example /path //h/p ftp://h http:h http:/h http:// https:///p http://h\\p \
                   javascript:alert(1) http://h:x";
        let others = ["", " http://h", "http://h\n", "http://h/ p", "http://h/\u{7f}"];
        for bad in bad.split(' ').chain(others) {
            assert_eq!(endpoint(bad).unwrap_err().path, "index_endpoint", "{bad}");
        }
    }

    #[test]
    fn debug_shows_no_settings() {
        let shown = format!("{:?}", decode(with("pixel_id", json!({"S": "s3cret"}))).unwrap());
        assert!(!shown.contains("s3cret") && !shown.contains("http://h"), "{shown}");
    }
}
