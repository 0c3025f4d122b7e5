//! The runbook's procedures.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::kv::KvVerb;
use testbed::stack::{QUERY_CONFIGS, SETTINGS, TOKEN_SECRET};
use testbed::table::to_item;

use super::practice::*;
use super::query::query;
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
    let failure = practice.invoke(audit()).await.unwrap_err();
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

/// `make try-token` with a file that holds this text.
async fn try_token(practice: &Practice, secret: &str) -> bool {
    let file = format!("{}/token-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    std::fs::write(&file, secret).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/operations/try-token");
    let mut tried = tokio::process::Command::new(script);
    tried.arg(&file).env("ENVIRONMENT", "local").env("CLOUDFLARE_ACCOUNT_ID", "local-account");
    tried.env("CLOUDFLARE_KV_NAMESPACE_ID", SETTINGS);
    tried.env("CLOUDFLARE_KV_QCFG_NAMESPACE_ID", QUERY_CONFIGS);
    tried.env("CLOUDFLARE_KV_URL", practice.stack.kv.url_template());
    let output = tried.output().await.unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!said.contains("new-token"), "{said}");
    assert_eq!(said.contains("the token is no good"), !output.status.success(), "{said}");
    output.status.success()
}

#[tokio::test]
async fn a_new_token_is_tried_with_a_write_and_a_delete_in_both_namespaces() {
    let practice = Practice::start().await;
    practice.stack.kv.set_token("new-token");
    practice.stack.kv.clock().set_speed(1);
    for secret in ["new-token", "new-token\n", r#"{"token":"new-token"}"#] {
        practice.stack.kv.clear_log();
        practice.stack.kv.clock().pass(Duration::from_secs(1));
        assert!(try_token(&practice, secret).await);
        let sent = practice.stack.kv.log();
        let sent: Vec<_> =
            sent.iter().map(|request| (request.namespace.as_str(), request.verb)).collect();
        assert_eq!(
            sent,
            [
                (SETTINGS, KvVerb::PutBulk),
                (SETTINGS, KvVerb::DeleteBulk),
                (QUERY_CONFIGS, KvVerb::PutBulk),
                (QUERY_CONFIGS, KvVerb::DeleteBulk),
            ]
        );
    }
    assert!(practice.stack.kv.keys(SETTINGS).is_empty());
    assert!(practice.stack.kv.keys(QUERY_CONFIGS).is_empty());

    practice.stack.kv.clock().pass(Duration::from_secs(1));
    assert!(!try_token(&practice, "mistyped-new-token").await);
    // A token that may only read.
    let refused = Rule::on("PUT", "/query-configs/bulk", Fault::status(403));
    practice.stack.kv.faults().add(refused.forever());
    assert!(!try_token(&practice, "new-token").await);
}

#[tokio::test]
async fn stopping_everything_while_a_repair_is_under_way() {
    let practice = Practice::with(&[("KV_BULK_MAX_PAIRS", "10")]).await;
    let shops: Vec<_> = (0..30).map(|n| index("a", &format!("i{n}"))).collect();
    practice.stack.table.load(shops.iter().map(to_item));
    let kv = practice.stack.kv.clone();
    let revoke = move || kv.set_token("another");
    practice.stack.kv.faults().add(Rule::on("PUT", "/settings/bulk", Fault::after(revoke)));

    let stopped = practice.invoke(repair()).await;

    // What was written before stays, nothing comes after it, and the log says how far it came.
    assert_eq!(practice.stack.kv.keys(SETTINGS).len(), 10, "{stopped:?}");
    let line = practice.ask(&query("invocations")).pop().unwrap();
    assert_eq!(line["settings_written"], 10);
    let errors = practice.ask(&query("errors"));
    let refused = |line: &Value| line["error"].as_str().unwrap().contains("CloudflareAuthRejected");
    assert!(errors.iter().any(refused), "{errors:?}");
    let held = practice.stack.kv.snapshot(SETTINGS);
    practice.re_export("a", "i29").await.unwrap_err();
    let poller = practice.poll();
    let mut deliveries = poller.subscribe();
    practice.stack.table.put(&with(index("a", "i0"), json!({"pixel_id": "new"})));
    deliveries.recv().await.unwrap();
    assert_eq!(practice.stack.kv.snapshot(SETTINGS), held);

    practice.stack.secrets.set(TOKEN_SECRET, "another");
    practice.stack.kv.faults().clear();
    poller.caught_up().await;
    assert_eq!(practice.audit().await.get("refused"), None);
    assert_eq!(practice.repair().await["complete"], true);
    practice.assert_equal(&practice.audit().await);
    assert_eq!(practice.stack.kv.keys(SETTINGS).len(), 30);
    assert_eq!(practice.setting("a-i0").unwrap()["pixel_id"], "new");
}

#[tokio::test]
async fn a_revocation_between_a_delete_and_its_put_back_is_told_by_name() {
    let practice = Practice::start().await;
    practice.stack.table.put(&index("a", "live"));
    practice.stack.table.put(&index("a", "old"));
    practice.repair().await;
    practice.stack.table.delete("a", "INDEX#old");
    let (kv, table) = (practice.stack.kv.clone(), practice.stack.table.clone());
    let revoke = move || {
        table.put(&index("a", "old"));
        kv.set_token("another");
    };
    practice.stack.kv.faults().add(Rule::on("POST", "/settings/bulk/delete", Fault::after(revoke)));

    let _ = practice.invoke(repair()).await;

    assert!(practice.setting("a-old").is_none(), "the delete got through");
    let errors = practice.ask(&query("errors"));
    assert!(errors.iter().any(|line| line["key"] == "a-old"), "{errors:?}");
    practice.stack.secrets.set(TOKEN_SECRET, "another");
    practice.re_export("a", "old").await.unwrap();
    assert!(practice.setting("a-old").is_some());
}

/// What the predecessor wrote: no metadata, and fields in another order.
fn of_the_predecessor(value: &Value) -> String {
    let fields = value.as_object().unwrap().iter().rev();
    let fields: Vec<String> = fields.map(|(name, value)| format!("{name:?}: {value}")).collect();
    format!("{{{}}}", fields.join(", "))
}

#[tokio::test]
async fn replacing_the_python_exporter_and_the_way_back() {
    let practice = Practice::start().await;
    let shops: Vec<_> =
        (0..510).map(|n| shop("a", &format!("i{n}"), &format!("s{n}.example"))).collect();
    practice.stack.table.load(shops.iter().map(to_item));
    practice.repair().await;
    let ours = practice.stack.kv.snapshot(SETTINGS);
    for (key, stored) in &ours {
        let mut value = stored.json();
        if value["index_name"] == "i7" {
            value["pixel_id"] = json!("only the predecessor's");
        }
        practice.stack.kv.put(SETTINGS, key, &of_the_predecessor(&value), None);
    }
    practice.stack.kv.put(SETTINGS, "z-gone", r#"{"index_name":"gone"}"#, None);
    let theirs = practice.stack.kv.snapshot(SETTINGS);

    let audit = practice.audit().await;
    let found = ["missing", "stale", "orphaned", "foreign"];
    let found = found.map(|class| audit["settings"][class].as_u64().unwrap());
    assert_eq!(found, [0, 1_020, 0, 1]);
    assert_eq!(audit["refused"], json!({"delete": 0, "rewrite": 1_020}));
    for (key, differs) in [("s3.example", json!(["(value)"])), ("s7.example", json!(["pixel_id"]))]
    {
        let report = practice.invoke(json!({"explain": {"key": key}})).await.unwrap();
        let keys = report["keys"].as_array().unwrap();
        let asked = keys.iter().find(|found| found["key"] == key).unwrap();
        assert_eq!(asked["verdict"], "stale");
        assert_eq!(asked["differs"], differs, "{report}");
    }
    let allowed = json!({"rewrite_up_to": 1_020});
    assert_eq!(practice.reconcile(allowed).await.get("refused"), None);
    assert_eq!(practice.repair().await["refused"]["rewrite"], 1_020, "without the number");
    assert_eq!(practice.stack.kv.snapshot(SETTINGS), theirs);

    let poller = practice.poll();
    practice.put(&poller, [shop("a", "new", "new.example")]).await;
    let report = practice.reconcile(json!({"apply": true, "rewrite_up_to": 1_020})).await;
    assert_eq!(
        (&report["complete"], &report["settings"]["written"]),
        (&json!(true), &json!(1_020))
    );
    practice.assert_equal(&practice.audit().await);
    assert_eq!(practice.setting("s7.example").unwrap().get("pixel_id"), None);
    assert!(practice.stack.kv.get(SETTINGS, "z-gone").is_some(), "nobody's");

    // The way back: the old exporter writes over the new values, and a change of places is possible again.
    for (key, stored) in &theirs {
        practice.stack.kv.put(SETTINGS, key, &stored.value, None);
    }
    let audit = practice.audit().await;
    let found =
        ["missing", "stale", "orphaned"].map(|class| audit["settings"][class].as_u64().unwrap());
    assert_eq!(found, [0, 1_020, 0], "the values of the old exporter, and one new index of ours");
}
