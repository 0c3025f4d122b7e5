//! A pair's metadata.

use ecom_settings_exporter::index::IndexRef;
use serde_json::Value;

use crate::held::Held;
use crate::keys::sha256;

pub fn problem(held: &Held, index: &IndexRef) -> Option<String> {
    let metadata: Value = serde_json::from_str(held.metadata.as_deref()?).ok()?;
    let right = metadata["digest"] == sha256(&held.value)
        && metadata["system_account_id"] == index.account
        && metadata["index_name"] == index.name;
    (!right).then(|| format!("metadata {metadata}"))
}
