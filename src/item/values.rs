//! What KV gets of an item: the value that follows from an index's settings, or from a query config.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

use super::aliases::IndexAliases;
use super::attribute::NOT_AN_ATTRIBUTE;
use super::{Attribute, Map, Rejection};
use crate::index::{IndexRef, ItemRef};
use crate::json::Json;
use crate::kv::check_key;
use crate::kv::limits::check_value_size;
use crate::kv::stored::check_metadata_size;

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
        check_key(&index.index_id()).map_err(|reason| Rejection::new("index_name", reason))?;
        shop_id
            .as_deref()
            .map_or(Ok(()), check_key)
            .map_err(|reason| Rejection::new("shop_id", reason))?;
        check_metadata_size(index).map_err(|reason| Rejection::new("index_name", reason))?;
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
        json_object(fields.filter_map(|(name, json)| Some((*name, json.as_ref()?))))
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
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let is_http = ["http", "https"].iter().any(|http| scheme.eq_ignore_ascii_case(http));
    let is_absolute = is_http && !rest.starts_with(['/', '?', '#']);
    is_absolute && !forgiven && url::Url::parse(text).is_ok_and(|url| url.has_host())
}

/// Returns the KV value of the query config `item`: all attributes but `pk` and `sk`, and the names from its
/// key, ascending. Its key and metadata fit KV, too.
pub fn query_config_value(item: &ItemRef, attributes: &Map) -> Result<String, Rejection> {
    check_key(&item.kv_key())
        .and_then(|()| check_metadata_size(&item.index))
        .map_err(|reason| Rejection::new("index_name", reason))?;
    let mut fields = BTreeMap::from([
        ("system_account_id", Json::string(&item.index.account)),
        ("index_name", Json::string(&item.index.name)),
    ]);
    fields.extend(item.query.iter().map(|query| ("normalized_query", Json::string(query))));
    for (name, attribute) in &attributes.0 {
        // An attribute with the name of a field above does not count, whatever it is.
        if !["pk", "sk"].contains(&&**name) && !fields.contains_key(&**name) {
            let json = Json::of(attribute);
            fields.insert(name, json.map_err(|_| Rejection::new(name, NOT_AN_ATTRIBUTE))?);
        }
    }
    let value = json_object(fields.iter().map(|(name, json)| (*name, json)));
    check_value_size(value.len()).map_err(|reason| Rejection::new("(value)", reason))?;
    Ok(value)
}

/// Returns an object of these fields, in this order.
fn json_object<'a>(fields: impl Iterator<Item = (&'a str, &'a Json)>) -> String {
    let field = |(name, json): (_, &Json)| format!("{}:{}", Json::string(name).get(), json.get());
    format!("{{{}}}", fields.map(field).collect::<Vec<_>>().join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::aliases::BLOCKS;
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

    fn query_config(index_name: &str, attributes: Value) -> Result<String, Rejection> {
        let index = IndexRef::parse("acct1", index_name).unwrap();
        let item = ItemRef { index, query: Some("red shoes".into()) };
        query_config_value(&item, &Map::from(attributes))
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
        let shown = format!("{settings:?}");
        assert!(!shown.contains("px-1") && !shown.contains("https://"), "{shown}");
    }

    #[test]
    fn the_schema_and_the_page_for_readers_name_every_field_and_alias_block() {
        let schema: Value =
            serde_json::from_str(include_str!("../../schema/settings.json")).unwrap();
        let page = include_str!("../../docs/kv.md");
        let settings = decode(with("cell", json!({"S": "c"}))).unwrap();
        let mut fields = vec!["system_account_id", "index_name", "shop_id", "marqo_api_key"];
        fields.extend(settings.exported.iter().map(|(name, _)| *name));
        let blocks = BLOCKS.iter().filter(|block| block.exported).map(|block| block.name).collect();
        let aliases = &schema["properties"]["index_aliases"];
        for (described, names) in [(&schema, fields), (aliases, blocks)] {
            let described = described["properties"].as_object().unwrap().keys().map(|name| &**name);
            let described: BTreeSet<&str> = described.collect();
            assert_eq!(described, names.iter().copied().collect(), "schema/settings.json");
            for name in names {
                assert!(page.contains(&format!("`{name}`")), "docs/kv.md does not name {name}");
            }
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
    fn a_query_config_has_every_attribute_but_the_keys_ascending_and_names_from_the_keys() {
        let attributes = json!({
            "pk": {"S": "other"}, "sk": {"S": "INDEX#x"}, "zeta": {"NULL": true}, "empty": {"S": ""},
            "boost": {"N": "1.5"}, "index_name": {"S": "forged"}, "normalized_query": {"Q": "1"},
        });
        assert_eq!(
            query_config("main", attributes).unwrap(),
            r#"{"boost":1.5,"empty":"","index_name":"main","normalized_query":"red shoes","system_account_id":"acct1","zeta":null}"#
        );
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
        let query_configs = [
            ("main", json!({"ids": {"L": [{"N": "x"}]}}), "ids"),
            ("main", json!({"large": {"S": "x".repeat(26_214_400)}}), "(value)"),
            (&"n".repeat(437), json!({}), "index_name"),
            (&"\u{1}".repeat(200), json!({}), "index_name"),
        ];
        for (name, attributes, path) in query_configs {
            assert_eq!(query_config(name, attributes).unwrap_err().path, path);
        }
        assert!(query_config(&"n".repeat(436), json!({})).is_ok());
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
}
