//! The runbook's procedures.

use serde_json::json;
use testbed::stack::{SETTINGS, TOKEN_SECRET};

use super::practice::*;
use crate::helpers::*;

#[tokio::test]
async fn rotating_the_cloudflare_token() {
    let practice = Practice::start().await;
    practice.stack.table.put(&index("a", "i"));
    practice.repair().await;

    // Both tokens are valid while the secret gets the new one. Then the old one is revoked.
    practice.stack.secrets.set(TOKEN_SECRET, r#"{"token":"new-token"}"#);
    practice.assert_equal(&practice.audit().await);
    practice.stack.kv.set_token("new-token");
    practice.assert_equal(&practice.audit().await);
    assert_eq!(practice.function.starts(), 1, "nothing was deployed");

    practice.stack.secrets.set(TOKEN_SECRET, "mistyped");
    practice.stack.kv.set_token("newest");
    let failure = practice.invoke(json!({"reconcile": {}})).await.unwrap_err();
    assert_eq!(failure.error_type, "CloudflareAuthRejected");
}

#[tokio::test]
async fn moving_to_a_new_namespace() {
    let practice = Practice::start().await;
    practice.stack.table.put(&shop("a", "i", "s.example"));
    practice.stack.table.put(&query_config("a", "i", "q", 1));
    practice.repair().await;
    for namespace in ["new-settings", "new-query-configs"] {
        practice.stack.kv.put(namespace, "made", "", None);
        practice.stack.kv.delete(namespace, "made");
    }
    let env = [
        ("CLOUDFLARE_KV_NAMESPACE_ID", "new-settings"),
        ("CLOUDFLARE_KV_QCFG_NAMESPACE_ID", "new-query-configs"),
    ];
    let practice = Practice::on(practice.stack, &env).await;

    let audit = practice.audit().await;
    assert_eq!(audit["settings"]["missing"], audit["settings"]["desired"]);
    assert_eq!(audit["settings"]["orphaned"], 0);
    assert_eq!(practice.repair().await["complete"], true);
    practice.assert_equal(&practice.audit().await);
    assert_eq!(practice.stack.kv.keys("new-settings"), ["a-i", "s.example"]);
    assert_eq!(practice.stack.kv.keys("new-query-configs").len(), 1);
}

#[tokio::test]
async fn first_deployment() {
    let practice = Practice::start().await;
    practice.stack.table.put(&shop("a", "old", "s.example"));
    practice.stack.kv.put(SETTINGS, "another exporter's", "{}", None);
    // LATEST: the stream does not carry what is already in the table.
    let poller = practice.poll();
    practice.put(&poller, [index("a", "new")]).await;
    assert!(practice.setting("a-old").is_none());

    let audit = practice.audit().await;
    assert_eq!(audit["settings"]["desired"], 3);
    assert_eq!(audit["settings"]["missing"], 2);
    assert_eq!(audit["settings"]["foreign"], 1);
    assert_eq!(practice.repair().await["complete"], true);
    practice.assert_equal(&practice.audit().await);
}

#[tokio::test]
async fn stopping_everything() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice.put(&poller, [index("a", "i")]).await;
    drop(poller);
    let held = practice.stack.kv.snapshot(SETTINGS);
    practice.stack.table.put(&and(index("a", "i"), json!({"pixel_id": "new"})));
    assert_eq!(practice.stack.kv.snapshot(SETTINGS), held);

    assert_eq!(practice.audit().await["examples"]["stale"], json!(["a-i"]));
    practice.repair().await;
    assert_eq!(practice.setting("a-i").unwrap()["pixel_id"], "new");
}
