//! The schemas of payloads and reports. Each payload and report of the other tests is checked too.

use serde_json::{Value, json};

use super::published::{check, published, validator};

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
        json!({"explain": {"key": "example.myshopify.com"}}),
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
    ] {
        assert_eq!(taken(&payload), 0, "{payload}");
    }
}

#[test]
fn the_reports_of_the_contract_match_their_schemas() {
    let counts = json!({
        "desired": 2, "listed": 2, "missing": 0, "stale": 1, "orphaned": 0, "withheld": 0, "dangling": 0,
        "foreign": 0, "conflicting": 0, "rejected": 0, "written": 0, "deleted": 0, "failed": 0,
    });
    let stopped = json!({
        "apply": true, "complete": false, "settings": counts, "query_configs": counts,
        "examples": {"stale": ["acme-products"]}, "stopped": "The time was up.",
        "refused": {"delete": 0, "rewrite": 1}, "continue": "opaque", "dry_run": true,
        "differs": {"search_config.limit": 37, "marqo_api_key": 2},
    });
    assert_eq!(check("reports/reconcile", &stopped), Ok(()));
    for differs in [json!({}), json!({"pixel_id": 0}), json!({"pixel_id": "px-1"}), json!(["a"])] {
        let mut wrong = stopped.clone();
        wrong["differs"] = differs;
        assert!(check("reports/reconcile", &wrong).is_err(), "{wrong}");
    }
    let index = json!({"system_account_id": "acme", "index_name": "products"});
    let explained = json!({
        "system_account_id": "acme", "index_name": "products", "item": "rejected", "path": "index_endpoint",
        "keys": [
            {"key": "acme-products", "verdict": "missing"},
            {
                "key": "acme.myshopify.com", "verdict": "stale", "named": index, "environment": "prod",
                "exported_at": "2026-11-22T10:00:12.345Z", "changed_at": "2026-11-22T10:00:01Z",
                "source": "stream", "differs": ["search_config.limit"], "claimed_by": [index],
            },
        ],
        "pointed_at_by": [index], "advice": "Correct the item.",
    });
    assert_eq!(check("reports/explain", &explained), Ok(()));
}
