//! What KV holds under a key.

use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The value, which this stand-in keeps as text.
    pub value: String,
    pub metadata: Option<Value>,
}

impl Stored {
    /// The value as JSON; null if it is not JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.value).unwrap_or_default()
    }
}
