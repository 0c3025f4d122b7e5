//! The schemas of payloads and reports. Each payload and report of the other tests is checked too.

use serde_json::{Value, json};

use super::published::{published, validator};

#[test]
fn payloads_that_are_not_taken_match_no_schema() {
    let names = ["stream-event", "re-export", "reconcile", "explain"];
    let schemas = names.map(|name| validator(&published(&format!("payloads/{name}"))));
    let taken = |payload: &Value| schemas.iter().filter(|schema| schema.is_valid(payload)).count();
    for payload in [
        json!({"Records": []}),
        json!({"system_account_id": "a", "index_name": "i"}),
        json!({"system_account_id": "a", "index_name": "i", "include_query_configs": true}),
        json!({"reconcile": {}}),
        json!({"reconcile": {"apply": true, "system_account_id": "a", "continue": "c", "delete_up_to": 0, "rewrite_up_to": 9}}),
        json!({"reconcile": {"preview": true, "system_account_id": "a", "continue": "c"}}),
        json!({"reconcile": {"preview": true, "apply": false}}),
        json!({"explain": {"system_account_id": "a", "index_name": "i"}}),
        json!({"explain": {"key": "example.myshopify.com", "values": true}}),
        json!({"explain": {"item": {"pk": {"S": "a"}, "sk": {"S": "INDEX#i"}}, "removed": true}}),
        json!({"explain": {"system_account_id": "a", "continue": "i"}}),
    ] {
        assert_eq!(taken(&payload), 1, "{payload}");
    }
    for payload in [
        json!({}),
        json!([]),
        json!({"Records": {}}),
        json!({"Records": [], "more": 1}),
        json!({"system_account_id": "a"}),
        json!({"system_account_id": "a", "index_name": ""}),
        json!({"system_account_id": "a", "index_name": "i#j"}),
        json!({"system_account_id": "a", "index_name": "DEFAULT_CONFIG"}),
        json!({"system_account_id": "a", "index_name": "i", "include_query_configs": 1}),
        json!({"reconcile": {"apply": "yes"}}),
        json!({"reconcile": {"system_account_id": ""}}),
        json!({"reconcile": {"preview": 1}}),
        json!({"reconcile": {"preview": true, "apply": true, "system_account_id": "a"}}),
        json!({"reconcile": {"delete_up_to": -1}}),
        json!({"reconcile": {}, "system_account_id": "a"}),
        json!({"explain": {}}),
        json!({"explain": {"key": "k", "index_name": "i"}}),
        json!({"explain": {"key": "k", "removed": true}}),
    ] {
        assert_eq!(taken(&payload), 0, "{payload}");
    }
}
