//! The API keys service over HTTP.

use hyper::Method;
use hyper::header::HeaderMap;
use serde_json::Value;
use testbed::api_keys::ApiKeys;
use testbed::faults::Fault;
use testbed::http::Client;

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
    assert_eq!(service.log().len(), 3);

    service.break_cell("c1", Fault::status(503));
    assert_eq!(key(&service, "c1", "b").await.0, 503);
    assert_eq!(key(&service, "c2", "b").await.0, 200);
}
