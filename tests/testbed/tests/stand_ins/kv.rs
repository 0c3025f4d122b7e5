//! The KV stand-in's faults, and the limits that the probes do not ask of every KV.

use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::{Client, Reply};
use testbed::kv::Kv;
use testbed::stack::{ACCOUNT, SETTINGS, Stack, StackOptions};

/// Sends a bulk write.
async fn put(kv: &Kv, pairs: Value) -> Result<Reply, String> {
    let headers = HeaderMap::from_iter([
        (AUTHORIZATION, HeaderValue::from_static("Bearer local-token")),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
    ]);
    let url = kv.url_template().replace("{account_id}", ACCOUNT);
    let url = url.replace("{namespace_id}", SETTINGS) + "/bulk";
    Client::default().send(Method::PUT, &url, headers, pairs.to_string()).await
}

#[tokio::test]
async fn what_is_too_large_or_of_another_type_is_refused_whole() {
    let Stack { kv, .. } = Stack::start(StackOptions::default()).await.unwrap();
    let pairs = |count: usize| (0..count).map(|n| json!({"key": n.to_string(), "value": ""}));
    let with = |value: Value| json!([{"key": "a", "value": "1"}, {"key": "b", "value": value}]);
    for (body, status) in [
        (pairs(10_001).collect(), 400),
        (with(json!({"not": "a string"})), 400),
        (with(json!("v".repeat(25 * 1024 * 1024 + 1))), 413),
    ] {
        let reply = put(&kv, body).await.unwrap();
        assert_eq!(reply.status, status);
        let answer: Value = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(
            (&answer["success"], &answer["errors"][0]["code"]),
            (&json!(false), &json!(10_012))
        );
    }
    assert_eq!(kv.keys(SETTINGS), [""; 0]);
}

#[tokio::test]
async fn faults_come_in_the_order_of_their_rules_and_then_end() {
    let Stack { kv, .. } = Stack::start(StackOptions::default()).await.unwrap();
    let rows = [
        ("a", Fault::status(503), Some(503), false),
        ("b", Fault::DropConnection, None, false),
        ("c", Fault::ApplyThenDrop, None, true),
        ("d", Fault::ApplyThenStatus(524), Some(524), true),
        ("e", Fault::TruncatedBody, None, true),
    ];
    for (_, fault, ..) in rows.clone() {
        kv.faults().add(Rule::on("PUT", "/bulk", fault));
    }
    for (key, _, status, is_done) in rows {
        let reply = put(&kv, json!([{"key": key, "value": "1"}])).await;
        assert_eq!(reply.ok().map(|reply| reply.status.as_u16()), status, "{key}");
        assert_eq!(kv.get(SETTINGS, key).is_some(), is_done, "{key}");
    }
    let reply = put(&kv, json!([{"key": "f", "value": "1"}])).await;
    assert_eq!(reply.unwrap().status, 200);
}
