//! What the proxy that reads KV knows: keys and digests.

use sha2::{Digest, Sha256};

pub fn query_config_key(account: &str, index: &str, query: &str) -> String {
    format!("qcfg-{account}-{index}-{}", digest(query))
}

/// The SHA-256 of a text, in hexadecimal digits.
pub fn digest(text: &str) -> String {
    hex::encode(Sha256::digest(text))
}
