//! Keys: of the table's items, and the KV keys that follow from them.

use std::fmt;

use super::attribute::Attribute;
use crate::cursor::{Cursor, Malformed};
use crate::digest::{Digest, hex};

const INDEX_PREFIX: &str = "INDEX#";
const QUERY_SEPARATOR: &str = "#QUERY#";
const DEFAULT_CONFIG: &str = "DEFAULT_CONFIG";
const QUERY_CONFIG_KEY_PREFIX: &str = "qcfg-";

/// The primary key of an item.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ItemKey {
    /// Partition key: the account.
    pub pk: String,
    /// Sort key: says what the item is, see [`ItemKind`].
    pub sk: String,
}

/// An index, by account and name. Orders by account, then by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IndexRef {
    /// `system_account_id`.
    pub account: String,
    /// `index_name`, not empty, without `#`.
    pub index: String,
}

/// A query-config override of an index.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueryConfigRef {
    /// The index whose query is overridden.
    pub index: IndexRef,
    /// `normalized_query`: not empty, any Unicode.
    pub query: String,
}

/// What an item is, by its sort key.
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
    /// Takes an object in DynamoDB JSON that holds `pk` and `sk`, each once; the rest is passed over.
    pub fn read(cursor: &mut Cursor<'_>) -> Result<Self, Malformed> {
        let (mut pk, mut sk) = (None, None);
        cursor.object(|cursor, name| {
            let slot = match &*name.decoded()? {
                "pk" => &mut pk,
                "sk" => &mut sk,
                _ => return cursor.skip().map(drop),
            };
            match slot.replace(text(cursor)?) {
                None => Ok(()),
                Some(_) => Err(Malformed),
            }
        })?;
        Ok(Self { pk: pk.ok_or(Malformed)?, sk: sk.ok_or(Malformed)? })
    }

    /// Classifies the item by its sort key.
    pub fn kind(&self) -> ItemKind {
        let Some(rest) = self.sk.strip_prefix(INDEX_PREFIX) else {
            return ItemKind::Skipped;
        };
        let (name, query) = match rest.split_once(QUERY_SEPARATOR) {
            Some((name, query)) => (name, Some(query)),
            None => (rest, None),
        };
        let Some(index) = IndexRef::parse(&self.pk, name) else {
            return ItemKind::Skipped;
        };
        match query {
            None => ItemKind::IndexSettings(index),
            Some("") => ItemKind::Skipped,
            Some(query) => ItemKind::QueryConfig(QueryConfigRef { index, query: query.to_owned() }),
        }
    }
}

/// Takes the text of an S.
fn text(cursor: &mut Cursor<'_>) -> Result<String, Malformed> {
    match Attribute::read(cursor)? {
        Attribute::Text(text) => Ok(text.into_owned()),
        _ => Err(Malformed),
    }
}

impl IndexRef {
    /// An index, unless the name can't be one: empty, `DEFAULT_CONFIG`, or with a `#`.
    pub fn parse(account: &str, index: &str) -> Option<Self> {
        let valid = !account.is_empty()
            && !index.is_empty()
            && index != DEFAULT_CONFIG
            && !index.contains('#');
        valid.then(|| Self { account: account.to_owned(), index: index.to_owned() })
    }

    /// `{system_account_id}-{index_name}`: the index id, which is also a KV key.
    pub fn index_id(&self) -> String {
        [&self.account, "-", &self.index].concat()
    }

    /// Whether that is `text`.
    pub fn has_index_id(&self, text: &str) -> bool {
        let name = text.strip_prefix(&*self.account).and_then(|rest| rest.strip_prefix('-'));
        name == Some(&*self.index)
    }

    /// The key of the index's item in the table.
    pub fn item_key(&self) -> ItemKey {
        ItemKey { pk: self.account.clone(), sk: format!("{INDEX_PREFIX}{}", self.index) }
    }

    /// What the sort keys of all query configs of the index start with.
    pub fn query_config_prefix(&self) -> String {
        format!("{INDEX_PREFIX}{}{QUERY_SEPARATOR}", self.index)
    }
}

impl fmt::Display for IndexRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.account, self.index)
    }
}

impl QueryConfigRef {
    /// `qcfg-{system_account_id}-{index_name}-{hex SHA-256 of the query}`.
    pub fn kv_key(&self) -> String {
        let digest = Digest::of(self.query.as_bytes());
        format!(
            "{QUERY_CONFIG_KEY_PREFIX}{}-{}-{}",
            self.index.account,
            self.index.index,
            hex(digest.as_bytes())
        )
    }

    /// The key of the query config's item in the table.
    pub fn item_key(&self) -> ItemKey {
        ItemKey {
            pk: self.index.account.clone(),
            sk: format!("{}{}", self.index.query_config_prefix(), self.query),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn kind(sk: &str) -> ItemKind {
        ItemKey { pk: "acct1".into(), sk: sk.into() }.kind()
    }

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
            assert_eq!(kind(sk), expected, "{sk}");
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
    fn query_config_key_is_the_sha_256_of_the_query() {
        let key = QueryConfigRef { index: index("main"), query: "größe".into() }.kv_key();
        // printf 'größe' | sha256sum
        assert_eq!(
            key,
            "qcfg-acct1-main-d353a2671b67afff0941ae456e5c76e9394bd6579774ae7542a6185fb9843384"
        );
    }

    proptest! {
        #[test]
        fn item_keys_round_trip(name in "[^#]{1,20}", query in ".{1,30}") {
            prop_assume!(name != DEFAULT_CONFIG);
            let index = index(&name);
            prop_assert_eq!(index.item_key().kind(), ItemKind::IndexSettings(index.clone()));
            prop_assert!(index.has_index_id(&index.index_id()));
            prop_assert!(!index.has_index_id(&name) && !index.has_index_id("acct1-"));
            let query_config = QueryConfigRef { index, query };
            prop_assert_eq!(query_config.item_key().kind(), ItemKind::QueryConfig(query_config.clone()));
        }
    }
}
