//! What KV holds before a test starts, and who wrote it.

use serde_json::{Value, json};
use testbed::proxy::digest;
use testbed::stack::ENVIRONMENT;

use super::{World, with};

/// Who wrote what KV holds under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writer {
    /// This environment's exporter.
    Ours,
    /// An earlier version of this environment's exporter, whose metadata names no environment.
    EarlierVersion,
    /// The exporter of another environment.
    OtherEnvironment,
    /// The predecessor, which writes the same values without metadata.
    Predecessor,
}

impl World {
    /// Puts a value into KV past the API. It has to name an account and an index.
    pub fn hold(&self, namespace: &str, key: &str, value: &Value, writer: Writer) {
        let text = value.to_string();
        let mut metadata = json!({
            "digest": digest(&text), "exported_at": "2026-11-01T10:00:00.000Z", "source": "stream",
            "system_account_id": value["system_account_id"], "index_name": value["index_name"],
        });
        match writer {
            Writer::Ours => metadata["environment"] = json!(ENVIRONMENT),
            Writer::OtherEnvironment => metadata["environment"] = json!("another"),
            Writer::EarlierVersion | Writer::Predecessor => {}
        }
        let metadata = Some(metadata).filter(|_| writer != Writer::Predecessor);
        self.stack.kv.put(namespace, key, &text, metadata);
    }
}

/// The settings value of an index, with the API key `held-key`.
pub fn held_settings(account: &str, name: &str) -> Value {
    json!({
        "system_account_id": account, "index_name": name, "marqo_api_key": "held-key",
        "index_url": "https://held.example.com",
    })
}

/// The same with a shop id.
pub fn held_shop(account: &str, name: &str, shop_id: &str) -> Value {
    with(held_settings(account, name), json!({"shop_id": shop_id}))
}
