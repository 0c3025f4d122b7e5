//! Keys: what an item is by its own key, and which KV keys it asks for.

use std::fmt;

use serde::{Deserialize, Deserializer};

use super::attribute::{Attribute, Map};
use crate::index::{IndexRef, ItemName};
use crate::json::from_object;
use crate::kv::{Digest, check_key};

const INDEX_PREFIX: &str = "INDEX#";
/// What separates the query from the index in a query config's sort key.
pub const QUERY_SEPARATOR: &str = "#QUERY#";
const QUERY_CONFIG_KEY_PREFIX: &str = "qcfg-";

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, serde::Serialize)]
pub struct ItemKey {
    #[serde(deserialize_with = "string")]
    pub pk: String,
    /// Sort key: says what the item is, see [`ItemKind`].
    #[serde(deserialize_with = "string")]
    pub sk: String,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryConfigRef {
    pub index: IndexRef,
    /// `normalized_query`: not empty, any Unicode.
    pub query: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemKind {
    /// `INDEX#{index_name}`.
    IndexSettings(IndexRef),
    /// `INDEX#{index_name}#QUERY#{normalized_query}`.
    QueryConfig(QueryConfigRef),
    /// An account's defaults, or nothing of ours.
    Skipped,
}

impl ItemKey {
    pub fn kind(&self) -> ItemKind {
        let Some(rest) = self.sk.strip_prefix(INDEX_PREFIX) else { return ItemKind::Skipped };
        let query = rest.split_once(QUERY_SEPARATOR);
        let name = query.map_or(rest, |(name, _)| name);
        match (IndexRef::parse(&self.pk, name), query) {
            (Some(index), None) => ItemKind::IndexSettings(index),
            (None, _) | (_, Some((_, ""))) => ItemKind::Skipped,
            (Some(index), Some((_, query))) => {
                ItemKind::QueryConfig(QueryConfigRef { index, query: query.to_owned() })
            }
        }
    }

    pub fn query_config(&self) -> Option<QueryConfigRef> {
        match self.kind() {
            ItemKind::QueryConfig(config) => Some(config),
            ItemKind::IndexSettings(_) | ItemKind::Skipped => None,
        }
    }

    pub fn of_index(index: &IndexRef) -> Self {
        Self { pk: index.account.clone(), sk: format!("{INDEX_PREFIX}{}", index.name) }
    }

    /// DynamoDB's partition keys have up to 2,048 bytes, its sort keys up to 1,024.
    pub fn fits_the_table(&self) -> bool {
        self.pk.len() <= 2048 && self.sk.len() <= 1024
    }

    pub fn of_query_config(QueryConfigRef { index, query }: &QueryConfigRef) -> Self {
        Self { pk: index.account.clone(), sk: query_config_sk_prefix(index) + query }
    }
}

impl fmt::Display for ItemKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind() {
            ItemKind::IndexSettings(index) => index.fmt(f),
            ItemKind::QueryConfig(_) | ItemKind::Skipped => write!(f, "{}/{}", self.pk, self.sk),
        }
    }
}

/// What the sort keys of all query configs of an index start with.
pub fn query_config_sk_prefix(index: &IndexRef) -> String {
    format!("{INDEX_PREFIX}{}{QUERY_SEPARATOR}", index.name)
}

fn string<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    match Attribute::deserialize(deserializer)? {
        Attribute::S(text) => Ok(text.to_string()),
        _ => Err(serde::de::Error::custom("a key attribute must be a string (S)")),
    }
}

/// The KV keys that an index with this shop id asks for, the primary one first.
pub fn settings_keys(index: &IndexRef, shop_id: Option<&str>) -> Vec<String> {
    let index_id = index.index_id();
    match shop_id {
        Some(shop_id) if shop_id != index_id => vec![shop_id.to_owned(), index_id],
        _ => vec![index_id],
    }
}

/// The KV keys that an index item asks for, as far as it can be read and KV can hold them. An item
/// that can't be exported asks for them too.
pub fn claimed_keys(index: &IndexRef, item: &Map<'_>) -> Vec<String> {
    let mut keys = settings_keys(index, item.text("shop_id"));
    keys.retain(|key| check_key(key).is_ok());
    keys
}

/// The index id in the key of a query config; `None` where `key` can't be one.
pub fn index_id_in_query_config_key(key: &str) -> Option<&str> {
    let (index_id, digest) = key.strip_prefix(QUERY_CONFIG_KEY_PREFIX)?.rsplit_once('-')?;
    Digest::from_hex(digest).map(|_| index_id)
}

/// What the keys of all query configs of an account, or of an index id, start with.
pub fn query_config_key_prefix(name: &str) -> String {
    format!("{QUERY_CONFIG_KEY_PREFIX}{name}-")
}

impl From<QueryConfigRef> for ItemName {
    fn from(QueryConfigRef { index, query }: QueryConfigRef) -> Self {
        Self { index, query: Some(query) }
    }
}

impl QueryConfigRef {
    /// The query config that a value in KV names.
    pub fn named_by(value: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Fields {
            system_account_id: String,
            index_name: String,
            normalized_query: String,
        }
        let fields: Fields = from_object(value).ok()?;
        let index = IndexRef::parse(&fields.system_account_id, &fields.index_name)?;
        let query = Some(fields.normalized_query).filter(|query| !query.is_empty())?;
        Some(Self { index, query })
    }

    /// `qcfg-{system_account_id}-{index_name}-{hex SHA-256 of the query}`.
    pub fn kv_key(&self) -> String {
        let digest = Digest::of(self.query.as_bytes());
        format!("{QUERY_CONFIG_KEY_PREFIX}{}-{digest}", self.index.index_id())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn index(name: &str) -> IndexRef {
        IndexRef::parse("acct1", name).unwrap()
    }

    #[test]
    fn every_row_of_the_sort_key_table() {
        let query = |q: &str| QueryConfigRef { index: index("main"), query: q.into() };
        let rows = [
            ("INDEX#main", ItemKind::IndexSettings(index("main"))),
            ("INDEX#main#QUERY#shoes", ItemKind::QueryConfig(query("shoes"))),
            ("INDEX#main#QUERY#a#QUERY#b", ItemKind::QueryConfig(query("a#QUERY#b"))),
            ("INDEX#main#QUERY##", ItemKind::QueryConfig(query("#"))),
            ("INDEX#main#QUERY#größe 😀", ItemKind::QueryConfig(query("größe 😀"))),
            ("INDEX#DEFAULT_CONFIG", ItemKind::Skipped),
            ("INDEX#DEFAULT_CONFIG#QUERY#shoes", ItemKind::Skipped),
            ("INDEX#", ItemKind::Skipped),
            ("INDEX##QUERY#shoes", ItemKind::Skipped),
            ("INDEX#main#QUERY#", ItemKind::Skipped),
            ("INDEX#a#b", ItemKind::Skipped),
            ("INDEX#a#b#QUERY#shoes", ItemKind::Skipped),
            ("index#main", ItemKind::Skipped),
            ("SETTINGS", ItemKind::Skipped),
            ("", ItemKind::Skipped),
        ];
        for (sk, expected) in rows {
            let key = ItemKey { pk: "acct1".into(), sk: sk.into() };
            assert_eq!(key.kind(), expected, "{sk}");
            let is_query_config = matches!(expected, ItemKind::QueryConfig(_));
            assert_eq!(key.query_config().is_some(), is_query_config, "{sk}");
        }
    }

    #[test]
    fn an_empty_account_is_not_ours() {
        assert_eq!(
            ItemKey { pk: String::new(), sk: "INDEX#main".into() }.kind(),
            ItemKind::Skipped
        );
    }

    #[test]
    fn an_index_asks_for_two_keys_or_for_one_where_they_are_equal() {
        let keys = |shop_id| settings_keys(&index("main"), shop_id);
        assert_eq!(keys(Some("example.myshopify.com")), ["example.myshopify.com", "acct1-main"]);
        assert_eq!(keys(Some("acct1-main")), ["acct1-main"]);
        assert_eq!(keys(None), ["acct1-main"]);
    }

    #[test]
    fn an_item_that_cannot_be_exported_asks_for_the_keys_that_can_be_read() {
        let keys = |json: &str| {
            let item: Map<'_> = serde_json::from_str(json).unwrap();
            claimed_keys(&index("main"), &item)
        };
        assert_eq!(keys(r#"{"shop_id":{"S":"s"}}"#), ["s", "acct1-main"]);
        for unreadable in [r#"{}"#, r#"{"shop_id":{"N":"1"}}"#, r#"{"shop_id":{"S":""}}"#] {
            assert_eq!(keys(unreadable), ["acct1-main"], "{unreadable}");
        }
        assert_eq!(keys(r#"{"shop_id":{"S":".."}}"#), ["acct1-main"], "KV can't hold it");
    }

    #[test]
    fn query_config_key_is_the_sha_256_of_the_query() {
        let key = QueryConfigRef { index: index("main"), query: "größe".into() }.kv_key();
        // printf 'größe' | sha256sum
        assert_eq!(
            key,
            "qcfg-acct1-main-d353a2671b67afff0941ae456e5c76e9394bd6579774ae7542a6185fb9843384"
        );
        assert_eq!(index_id_in_query_config_key(&key), Some("acct1-main"));
        for other in ["acct1-main", "qcfg-acct1-main", "qcfg-acct1-main-d353", &key[1..]] {
            assert_eq!(index_id_in_query_config_key(other), None, "{other}");
        }
    }

    #[test]
    fn a_key_is_read_from_dynamodb_json_and_its_parts_are_strings() {
        let key = |json| serde_json::from_str::<ItemKey>(json);
        assert_eq!(key(r#"{"sk":{"S":"b"},"pk":{"S":"a"},"x":7}"#).unwrap().sk, "b");
        for bad in [r#"{"pk":{"S":"a"}}"#, r#"{"pk":{"S":"a"},"sk":{"N":"1"}}"#] {
            assert!(key(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn item_keys_round_trip(name in "[^#]{1,20}", query in ".{1,30}") {
            prop_assume!(name != "DEFAULT_CONFIG");
            let index = index(&name);
            let of_index = ItemKey::of_index(&index);
            prop_assert_eq!(of_index.kind(), ItemKind::IndexSettings(index.clone()));
            let query_config = QueryConfigRef { index, query };
            let of_query_config = ItemKey::of_query_config(&query_config);
            prop_assert_eq!(of_query_config.kind(), ItemKind::QueryConfig(query_config));
        }
    }
}
