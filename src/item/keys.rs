//! What an item's own key says it is, and which KV keys it asks for.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::Map;
use crate::index::{IndexRef, ItemRef};
use crate::kv::{Digest, Namespace, check_key};

const INDEX_PREFIX: &str = "INDEX#";
/// What separates the query from the index in a query config's sort key.
pub const QUERY_SEPARATOR: &str = "#QUERY#";
const QUERY_CONFIG_KEY_PREFIX: &str = "qcfg-";
/// DynamoDB's limits.
pub const MAX_PK_BYTES: usize = 2_048;
pub const MAX_SK_BYTES: usize = 1_024;

/// The key of an item of the table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
pub struct ItemKey {
    #[serde(deserialize_with = "string")]
    pub pk: String,
    #[serde(deserialize_with = "string")]
    pub sk: String,
}

impl ItemKey {
    /// Returns the exported item that the key names. `INDEX#{index_name}` are an index's settings, and
    /// `INDEX#{index_name}#QUERY#{normalized_query}` is a query config. Anything else is not ours.
    pub fn item(&self) -> Option<ItemRef> {
        let rest = self.sk.strip_prefix(INDEX_PREFIX)?;
        let (name, query) = match rest.split_once(QUERY_SEPARATOR) {
            None => (rest, None),
            Some((_, "")) => return None,
            Some((name, query)) => (name, Some(query.to_owned())),
        };
        Some(ItemRef { index: IndexRef::parse(&self.pk, name)?, query })
    }

    pub fn fits_the_table(&self) -> bool {
        (1..=MAX_PK_BYTES).contains(&self.pk.len()) && (1..=MAX_SK_BYTES).contains(&self.sk.len())
    }
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.item() {
            Some(ItemRef { index, query: None }) => index.fmt(f),
            _ => write!(f, "{}/{}", self.pk, self.sk),
        }
    }
}

/// Reads a key's part, which is a string in DynamoDB JSON.
fn string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    #[derive(Deserialize)]
    enum Part {
        S(String),
    }
    Part::deserialize(deserializer).map(|Part::S(text)| text)
}

impl ItemRef {
    pub fn namespace(&self) -> Namespace {
        if self.query.is_none() { Namespace::Settings } else { Namespace::QueryConfigs }
    }

    pub fn key(&self) -> ItemKey {
        let sk = match &self.query {
            None => format!("{INDEX_PREFIX}{}", self.index.name),
            Some(query) => query_config_sk_prefix(&self.index) + query,
        };
        ItemKey { pk: self.index.account.clone(), sk }
    }

    /// Returns the KV key that follows from the item's own: an index id, or a query config's
    /// `qcfg-{index id}-{hex SHA-256 of the query}`.
    pub fn kv_key(&self) -> String {
        let index_id = self.index.index_id();
        let Some(query) = &self.query else { return index_id };
        query_config_key_prefix(&index_id) + &Digest::of(query.as_bytes()).to_string()
    }
}

/// Returns what the sort keys of all query configs of an index start with.
pub fn query_config_sk_prefix(index: &IndexRef) -> String {
    format!("{INDEX_PREFIX}{}{QUERY_SEPARATOR}", index.name)
}

/// Returns what the KV keys of all query configs of an account, or of an index id, start with.
pub fn query_config_key_prefix(name: &str) -> String {
    format!("{QUERY_CONFIG_KEY_PREFIX}{name}-")
}

/// Returns whether a KV key has the form of a query config's.
pub fn is_query_config_key(key: &str) -> bool {
    let digest = key.strip_prefix(QUERY_CONFIG_KEY_PREFIX).and_then(|rest| rest.rsplit_once('-'));
    digest.is_some_and(|(_, digest)| hex::decode_to_slice(digest, &mut [0; 32]).is_ok())
}

/// Returns the KV keys that an item asks for, the primary one first. An item that can't be exported asks for them
/// too. A shop id that KV can't hold, and that may be long, is left out.
pub fn claimed_keys(item: &ItemRef, attributes: &Map) -> Vec<String> {
    let own = item.kv_key();
    let shop_id = attributes
        .text("shop_id")
        .filter(|shop_id| item.query.is_none() && *shop_id != own && check_key(shop_id).is_ok());
    shop_id.map(str::to_owned).into_iter().chain([own]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn item(name: &str, query: Option<&str>) -> ItemRef {
        let index = IndexRef::parse("acct1", name).unwrap();
        ItemRef { index, query: query.map(str::to_owned) }
    }

    #[test]
    fn a_sort_key_says_what_the_item_is() {
        let rows = [
            ("acct1", "INDEX#main", Some(item("main", None))),
            ("acct1", "INDEX#main#QUERY#shoes", Some(item("main", Some("shoes")))),
            ("acct1", "INDEX#main#QUERY#a#QUERY#b", Some(item("main", Some("a#QUERY#b")))),
            ("acct1", "INDEX#main#QUERY##", Some(item("main", Some("#")))),
            ("acct1", "INDEX#main#QUERY#größe 😀", Some(item("main", Some("größe 😀")))),
            ("acct1", "INDEX#DEFAULT_CONFIG", None),
            ("acct1", "INDEX#DEFAULT_CONFIG#QUERY#shoes", None),
            ("acct1", "INDEX#", None),
            ("acct1", "INDEX##QUERY#shoes", None),
            ("acct1", "INDEX#main#QUERY#", None),
            ("acct1", "INDEX#a#b", None),
            ("acct1", "INDEX#a#b#QUERY#shoes", None),
            ("acct1", "index#main", None),
            ("acct1", "SETTINGS", None),
            ("acct1", "", None),
            ("", "INDEX#main", None),
        ];
        for (pk, sk, expected) in rows {
            let key = ItemKey { pk: pk.into(), sk: sk.into() };
            assert_eq!(key.item(), expected, "{sk}");
            assert!(expected.is_none_or(|item| item.key() == key), "{sk}");
        }
    }

    #[test]
    fn dynamodb_bounds_both_parts_of_a_key() {
        let fits = |pk: usize, sk: usize| {
            ItemKey { pk: "p".repeat(pk), sk: "s".repeat(sk) }.fits_the_table()
        };
        assert!(fits(2_048, 1_024) && !fits(2_049, 1) && !fits(1, 1_025));
    }

    #[test]
    fn an_index_asks_for_the_keys_that_can_be_read_and_that_kv_can_hold() {
        let rows: [(_, _, &[&str]); 6] = [
            ("a shop id", json!({"shop_id": {"S": "s"}, "cell": {"N": "1"}}), &["s", "acct1-main"]),
            ("the index id", json!({"shop_id": {"S": "acct1-main"}}), &["acct1-main"]),
            ("none", json!({}), &["acct1-main"]),
            ("an empty one", json!({"shop_id": {"S": ""}}), &["acct1-main"]),
            ("a number", json!({"shop_id": {"N": "1"}}), &["acct1-main"]),
            ("no key of KV's", json!({"shop_id": {"S": ".."}}), &["acct1-main"]),
        ];
        for (name, attributes, keys) in rows {
            assert_eq!(claimed_keys(&item("main", None), &Map::from(attributes)), keys, "{name}");
        }
    }

    #[test]
    fn the_kv_key_of_a_query_config_has_the_sha_256_of_the_query() {
        let settings = item("main", None);
        assert_eq!(settings.kv_key(), "acct1-main");
        assert_eq!(settings.namespace(), Namespace::Settings);
        let config = item("main", Some("größe"));
        // printf 'größe' | sha256sum
        let digest = "d353a2671b67afff0941ae456e5c76e9394bd6579774ae7542a6185fb9843384";
        assert_eq!(config.kv_key(), format!("qcfg-acct1-main-{digest}"));
        assert_eq!(config.namespace(), Namespace::QueryConfigs);
        assert!(is_query_config_key(&config.kv_key()));
        for digest in [&digest[1..], &format!("{}x", &digest[1..])] {
            assert!(!is_query_config_key(&format!("qcfg-a-{digest}")), "{digest}");
        }
        assert!(!is_query_config_key(&format!("a-{digest}")));
    }
}
