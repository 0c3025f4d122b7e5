//! The API keys service and Secrets Manager over HTTP.

use std::time::Duration;

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use testbed::api_keys::ApiKeys;
use testbed::faults::Fault;
use testbed::http::Client;
use testbed::secrets::Secrets;

async fn key(service: &ApiKeys, cell: &str, account: &str) -> (u16, Value) {
    let template = service.url_template();
    let url = template.replace("{cell}", cell).replace("{system_account_id}", account);
    let sent = Client::default().send(Method::GET, &url, HeaderMap::new(), "").await;
    let reply = sent.unwrap();
    (reply.status.as_u16(), serde_json::from_slice(&reply.body).unwrap_or_default())
}

#[tokio::test]
async fn each_account_has_a_key_until_it_is_removed_and_each_cell_fails_by_itself() {
    let service = ApiKeys::start(0).await.unwrap();
    assert_eq!(key(&service, "c1", "a%2Fb").await.1["api_key"], "key-a/b");
    service.set("a", "own");
    assert_eq!(key(&service, "c1", "a").await.1["api_key"], "own");
    service.remove("a");
    assert_eq!(key(&service, "c1", "a").await.0, 404);
    assert_eq!(service.count("c1", "a"), 2);

    service.break_cell("c1", Fault::status(503));
    assert_eq!(key(&service, "c1", "b").await.0, 503);
    assert_eq!(key(&service, "c2", "b").await.0, 200);
}

#[tokio::test]
async fn requests_that_overlap_are_counted() {
    let service = ApiKeys::start(0).await.unwrap();
    service.faults().set_latency(Duration::from_millis(250));
    tokio::join!(key(&service, "c1", "a"), key(&service, "c1", "b"), key(&service, "c2", "c"));
    assert_eq!(service.max_in_flight(), 3);
}

#[tokio::test]
async fn a_secret_that_is_not_there_has_the_error_of_secrets_manager() {
    let secrets = Secrets::start(0).await.unwrap();
    secrets.set("local/token", r#"{"token":"t"}"#);
    let get = async |secret_id: &str| {
        let target = HeaderValue::from_static("secretsmanager.GetSecretValue");
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-amz-target"), target)]);
        let body = json!({"SecretId": secret_id}).to_string();
        Client::default().send(Method::POST, &secrets.url(), headers, body).await.unwrap()
    };

    let found: Value = serde_json::from_slice(&get("local/token").await.body).unwrap();
    let missing = get("local/other").await;

    assert_eq!(found["SecretString"], r#"{"token":"t"}"#);
    assert_eq!(missing.status, 400);
    assert_eq!(missing.headers["x-amzn-errortype"], "ResourceNotFoundException");
}
