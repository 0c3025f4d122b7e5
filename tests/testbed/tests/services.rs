//! The API keys service and Secrets Manager over HTTP.

use std::time::Duration;

use hyper::Method;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use testbed::api_keys::ApiKeys;
use testbed::faults::Fault;
use testbed::http::{Client, Reply};
use testbed::secrets::Secrets;

async fn key(service: &ApiKeys, cell: &str, account: &str) -> (u16, Value) {
    let template = service.url_template();
    let url = template.replace("{cell}", cell).replace("{system_account_id}", account);
    let sent = Client::default().send(Method::GET, &url, HeaderMap::new(), "").await;
    let reply = sent.unwrap();
    (reply.status.as_u16(), serde_json::from_slice(&reply.body).unwrap_or_default())
}

#[tokio::test]
async fn every_account_has_a_key_until_it_is_removed() {
    let service = ApiKeys::start(0).await.unwrap();
    assert_eq!(key(&service, "c1", "a%2Fb").await.1["api_key"], "key-a/b");
    service.set("a", "own");
    assert_eq!(key(&service, "c1", "a").await.1["api_key"], "own");
    service.remove("a");
    assert_eq!(key(&service, "c1", "a").await.0, 404);
    assert_eq!(service.count("c1", "a"), 2);
}

#[tokio::test]
async fn requests_that_overlap_are_counted_and_cells_fail_by_themselves() {
    let service = ApiKeys::start(0).await.unwrap();
    service.faults().set_latency(Duration::from_millis(250));
    tokio::join!(key(&service, "c1", "a"), key(&service, "c1", "b"), key(&service, "c2", "c"));
    assert_eq!(service.max_in_flight(), 3);

    service.break_cell("c1", Fault::status(503));
    assert_eq!(key(&service, "c1", "a").await.0, 503);
    assert_eq!(key(&service, "c2", "a").await.0, 200);
}

async fn secret(secrets: &Secrets, operation: &str, body: Value) -> (Reply, Value) {
    let target = HeaderValue::from_str(&format!("secretsmanager.{operation}")).unwrap();
    let headers = HeaderMap::from_iter([(HeaderName::from_static("x-amz-target"), target)]);
    let url = secrets.url();
    let sent = Client::default().send(Method::POST, &url, headers, body.to_string()).await;
    let reply = sent.unwrap();
    let answer = serde_json::from_slice(&reply.body).unwrap();
    (reply, answer)
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_told_as_secrets_manager_tells_it() {
    let secrets = Secrets::start(0).await.unwrap();
    secrets.set("local/token", r#"{"token":"t"}"#);

    let (_, found) = secret(&secrets, "GetSecretValue", json!({"SecretId": "local/token"})).await;
    let (missing, _) = secret(&secrets, "GetSecretValue", json!({"SecretId": "local/other"})).await;

    assert_eq!(found["SecretString"], r#"{"token":"t"}"#);
    assert_eq!(missing.status, 400);
    assert_eq!(missing.headers["x-amzn-errortype"], "ResourceNotFoundException");
    assert_eq!(secrets.log().len(), 2);
}

#[tokio::test]
async fn a_secret_is_rotated_and_turned_back() {
    let secrets = Secrets::start(0).await.unwrap();
    secrets.set("t", "old");
    let ask = async |operation: &str, more: Value| {
        let mut body = json!({"SecretId": "t"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        secret(&secrets, operation, body).await
    };
    let value = async || ask("GetSecretValue", json!({})).await.1["SecretString"].clone();
    ask("PutSecretValue", json!({"SecretString": "new"})).await;
    assert_eq!(value().await, "new");

    let versions = ask("ListSecretVersionIds", json!({})).await.1["Versions"].clone();
    let with = |label: &str| {
        let mut versions = versions.as_array().unwrap().iter();
        versions.find(|version| version["VersionStages"][0] == label).unwrap()["VersionId"].clone()
    };
    let turn_back = |from: &Value| {
        json!({"VersionStage": "AWSCURRENT", "MoveToVersionId": with("AWSPREVIOUS"),
            "RemoveFromVersionId": from})
    };
    let (refused, _) = ask("UpdateSecretVersionStage", turn_back(&with("AWSPREVIOUS"))).await;
    assert_eq!(refused.status, 400);
    assert_eq!(value().await, "new");
    ask("UpdateSecretVersionStage", turn_back(&with("AWSCURRENT"))).await;
    assert_eq!(value().await, "old");
}
