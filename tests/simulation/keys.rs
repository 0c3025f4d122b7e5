//! The keys of items and the keys of KV.

use ecom_settings_exporter::index::IndexRef;
use ecom_settings_exporter::item::ItemKey;
use sha2::{Digest, Sha256};

use crate::model::index_id;

pub fn item_key(index: &IndexRef) -> ItemKey {
    ItemKey { pk: index.account.clone(), sk: format!("INDEX#{}", index.name) }
}

/// The index of an index item's key.
pub fn index_of(key: &ItemKey) -> Option<IndexRef> {
    let name = key.sk.strip_prefix("INDEX#")?;
    let plain = !name.contains('#') && name != "DEFAULT_CONFIG";
    plain.then(|| IndexRef { account: key.pk.clone(), name: name.to_owned() })
}

/// The index and the query of a query-config item's key.
pub fn query_of(key: &ItemKey) -> Option<(IndexRef, String)> {
    let (name, query) = key.sk.strip_prefix("INDEX#")?.split_once("#QUERY#")?;
    Some((IndexRef { account: key.pk.clone(), name: name.to_owned() }, query.to_owned()))
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
