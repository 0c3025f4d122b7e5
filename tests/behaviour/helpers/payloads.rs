//! What operators send by hand.

use serde_json::{Value, json};

use super::with;

pub fn re_export(account: &str, name: &str) -> Value {
    json!({"system_account_id": account, "index_name": name})
}

/// The same with all query configs of the index.
pub fn re_export_all(account: &str, name: &str) -> Value {
    with(re_export(account, name), json!({"include_query_configs": true}))
}

pub fn audit() -> Value {
    json!({"reconcile": {}})
}

pub fn repair() -> Value {
    json!({"reconcile": {"apply": true}})
}

pub fn repair_with(more: Value) -> Value {
    json!({"reconcile": with(json!({"apply": true}), more)})
}

pub fn of_account(account: &str, apply: bool) -> Value {
    json!({"reconcile": {"apply": apply, "system_account_id": account}})
}

pub fn explain_index(account: &str, name: &str) -> Value {
    json!({"explain": {"system_account_id": account, "index_name": name}})
}

pub fn explain_key(key: &str) -> Value {
    json!({"explain": {"key": key}})
}
