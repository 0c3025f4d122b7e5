//! The keys of items and the keys of KV.

use sha2::{Digest, Sha256};

use super::{IndexRef, ItemKey};

pub fn index(account: &str, name: &str) -> IndexRef {
    IndexRef { account: account.to_owned(), name: name.to_owned() }
}

pub fn index_id(index: &IndexRef) -> String {
    format!("{}-{}", index.account, index.name)
}

/// Whether `key` is the id of the account's index.
pub fn is_index_id(account: &str, name: &str, key: &str) -> bool {
    key.strip_prefix(account).and_then(|rest| rest.strip_prefix('-')) == Some(name)
}

pub fn item_key(index: &IndexRef) -> ItemKey {
    ItemKey { pk: index.account.clone(), sk: format!("INDEX#{}", index.name) }
}

/// The index of an index item's key.
pub fn index_of(key: &ItemKey) -> Option<IndexRef> {
    let name = key.sk.strip_prefix("INDEX#").filter(|name| is_index_name(name))?;
    Some(IndexRef { account: key.pk.clone(), name: name.to_owned() })
}

/// The index and the query of a query-config item's key.
pub fn query_of(key: &ItemKey) -> Option<(IndexRef, String)> {
    let (name, query) = key.sk.strip_prefix("INDEX#")?.split_once("#QUERY#")?;
    let index = IndexRef { account: key.pk.clone(), name: name.to_owned() };
    (is_index_name(name) && !query.is_empty()).then(|| (index, query.to_owned()))
}

fn is_index_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('#') && name != "DEFAULT_CONFIG"
}

pub fn query_item_key(index: &IndexRef, query: &str) -> ItemKey {
    ItemKey { pk: index.account.clone(), sk: format!("INDEX#{}#QUERY#{query}", index.name) }
}

pub fn query_kv_key(index: &IndexRef, query: &str) -> String {
    format!("qcfg-{}-{}", index_id(index), sha256(query))
}

pub fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}
