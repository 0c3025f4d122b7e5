//! The three procedures that nothing else plays: a token that is replaced, a stopped exporter, and the
//! cut-over from the Python exporter.

use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::kv::KvVerb::{DeleteBulk, PutBulk};
use testbed::lambda::Function;
use testbed::stack::{QUERY_CONFIGS, SETTINGS, Stack, TOKEN_SECRET};
use testbed::table::to_item;

use crate::helpers::*;
use crate::process;

/// The answer to a payload that succeeds.
async fn done(function: &Function, payload: Value) -> Value {
    process::invoke(function, &payload).await.result.unwrap_or_else(|error| panic!("{error}"))
}

/// Expects that an audit finds nothing to do.
async fn expect_equal(function: &Function) {
    let audit = done(function, audit()).await;
    for namespace in ["settings", "query_configs"] {
        for class in ["missing", "stale", "orphaned", "failed"] {
            assert_eq!(audit[namespace][class], 0, "{namespace} {class} in {audit}");
        }
    }
}

#[tokio::test]
async fn a_token_is_replaced_without_a_deployment() {
    let (stack, function) = process::start().await;
    stack.table.put(&index("a", "i"));
    done(&function, repair()).await;

    // Both tokens are valid while the secret gets the new one. Then the old one is revoked.
    stack.secrets.set(TOKEN_SECRET, r#"{"token":"new-token"}"#);
    expect_equal(&function).await;
    stack.kv.set_token("new-token");
    expect_equal(&function).await;
    assert_eq!(function.starts(), 1);

    stack.secrets.set(TOKEN_SECRET, "mistyped");
    stack.kv.set_token("newest");
    let failure = process::invoke(&function, &audit()).await.result.unwrap_err();
    assert_eq!(failure.error_type, "CloudflareAuthRejected");
}

/// Runs `operations/try-token` with a file that holds this text. Returns whether the token is good.
async fn try_token(stack: &Stack, secret: &str) -> bool {
    stack.kv.clock().pass(Duration::from_secs(1));
    let file = format!("{}/token-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
    std::fs::write(&file, secret).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/operations/try-token");
    let mut tried = tokio::process::Command::new(script);
    tried.arg(&file).env("ENVIRONMENT", "local").env("CLOUDFLARE_ACCOUNT_ID", "local-account");
    tried.env("CLOUDFLARE_KV_NAMESPACE_ID", SETTINGS);
    tried.env("CLOUDFLARE_KV_QCFG_NAMESPACE_ID", QUERY_CONFIGS);
    tried.env("CLOUDFLARE_KV_URL", stack.kv.url_template());
    let output = tried.output().await.unwrap();
    let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(!said.contains("new-token"), "{said}");
    output.status.success()
}

#[tokio::test]
async fn a_new_token_is_tried_with_a_write_and_a_delete_in_both_namespaces() {
    let stack = process::stack().await;
    stack.kv.set_token("new-token");
    stack.kv.clock().set_speed(1);
    let spied = spy(stack.kv.faults());
    for secret in ["new-token\n", r#"{"token":"new-token"}"#] {
        stack.kv.clear_log();
        assert!(try_token(&stack, secret).await);
        let sent: Vec<_> =
            stack.kv.log().into_iter().map(|call| (call.namespace, call.verb)).collect();
        let both = [SETTINGS, QUERY_CONFIGS]
            .map(|namespace| [(namespace.to_owned(), PutBulk), (namespace.to_owned(), DeleteBulk)]);
        assert_eq!(sent, both.concat());
    }
    let written: Value = spied.requests()[0].json().unwrap();
    assert_eq!(written[0]["expiration_ttl"], 60, "it goes also where it can't be deleted");
    assert!(!try_token(&stack, "mistyped-new-token").await);

    // What is no single word would configure curl.
    stack.kv.clear_log();
    for secret in ["x\"\noutput = \"written", "new-token\nb", "new-token\"", "new-token\\", "{}"] {
        assert!(!try_token(&stack, secret).await, "{secret}");
    }
    assert!(stack.kv.log().is_empty());
    // A token that may only read.
    let refused = Rule::on("PUT", "/query-configs/bulk", Fault::status(403));
    stack.kv.faults().add(refused.forever());
    assert!(!try_token(&stack, "new-token").await);
}

#[tokio::test]
async fn a_repair_that_is_stopped_by_a_revoked_token_leaves_what_it_wrote_and_is_repeated() {
    let stack = process::stack().await;
    let function = process::function(&stack, &[("KV_BULK_MAX_PAIRS", "10")]).await;
    stack.table.load((0..30).map(|n| to_item(&index("a", &format!("i{n}")))));
    let kv = stack.kv.clone();
    let revoke = move || kv.set_token("another");
    stack.kv.faults().add(Rule::on("PUT", "/settings/bulk", Fault::after(revoke)));

    let stopped = process::invoke(&function, &repair()).await;

    assert_eq!(stack.kv.keys(SETTINGS).len(), 10, "{:?}", stopped.result);
    assert!(process::text(&stopped.logs).contains("CloudflareAuthRejected"));
    let held = stack.kv.snapshot(SETTINGS);
    process::invoke(&function, &re_export("a", "i29")).await.result.unwrap_err();
    assert_eq!(stack.kv.snapshot(SETTINGS), held);

    stack.secrets.set(TOKEN_SECRET, "another");
    done(&function, repair()).await;
    expect_equal(&function).await;
    assert_eq!(stack.kv.keys(SETTINGS).len(), 30);
}

/// What the predecessor wrote: no metadata, and fields in another order.
fn of_the_predecessor(value: &Value) -> String {
    let fields = value.as_object().unwrap().iter().rev();
    let fields: Vec<String> = fields.map(|(name, value)| format!("{name:?}: {value}")).collect();
    format!("{{{}}}", fields.join(", "))
}

#[tokio::test]
async fn the_python_exporter_is_replaced_and_takes_over_again() {
    let (stack, function) = process::start().await;
    let shops = (0..510).map(|n| shop("a", &format!("i{n}"), &format!("s{n}.example")));
    stack.table.load(shops.map(|item| to_item(&item)));
    done(&function, repair()).await;
    for (key, stored) in stack.kv.snapshot(SETTINGS) {
        let mut value = stored.json();
        if value["index_name"] == "i7" {
            value["pixel_id"] = json!("only the predecessor's");
        }
        stack.kv.put(SETTINGS, &key, &of_the_predecessor(&value), None);
    }
    stack.kv.put(SETTINGS, "z-gone", r#"{"index_name":"gone"}"#, None);
    let theirs = stack.kv.snapshot(SETTINGS);
    let found = ["missing", "stale", "orphaned"];

    // Everything is stale. Explain tells which values differ in more than the order of their fields.
    let audited = done(&function, audit()).await;
    assert_eq!(found.map(|class| &audited["settings"][class]), [0, 1_020, 0], "{audited}");
    assert_eq!(audited["refused"], json!({"delete": 0, "rewrite": 1_020}));
    let explained = done(&function, explain_key("s7.example")).await;
    let keys = explained["keys"].as_array().unwrap();
    let asked = keys.iter().find(|found| found["key"] == "s7.example").unwrap();
    assert_eq!((&asked["verdict"], &asked["differs"]), (&json!("stale"), &json!(["pixel_id"])));
    let refused = done(&function, repair()).await;
    assert_eq!(refused["refused"]["rewrite"], 1_020, "without the number");
    assert_eq!(stack.kv.snapshot(SETTINGS), theirs);

    let report = done(&function, repair_with(json!({"rewrite_up_to": 1_020}))).await;
    assert_eq!(report["settings"]["written"], 1_020, "{report}");
    expect_equal(&function).await;
    assert!(stack.kv.get(SETTINGS, "z-gone").is_some(), "nobody's");

    // The way back: the old exporter writes over the new values, and can be replaced once more.
    for (key, stored) in &theirs {
        stack.kv.put(SETTINGS, key, &stored.value, None);
    }
    let audited = done(&function, audit()).await;
    assert_eq!(found.map(|class| &audited["settings"][class]), [0, 1_020, 0], "{audited}");
}
