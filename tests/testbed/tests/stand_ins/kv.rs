//! The KV stand-in's faults, and the limits that the probes do not ask of every KV.

use hyper::Method;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::{Client, Reply};
use testbed::kv::{Kv, KvOptions};

const NS: &str = "ns";

struct Caller {
    kv: Kv,
    client: Client,
}

impl Caller {
    async fn new() -> Self {
        let options = KvOptions {
            port: 0,
            account: "acc".to_owned(),
            token: "secret".to_owned(),
            namespaces: vec![NS.to_owned()],
        };
        Self { kv: Kv::start(options).await.unwrap(), client: Client::default() }
    }

    async fn send(&self, method: Method, path: &str, body: &str) -> Result<Reply, String> {
        let headers = HeaderMap::from_iter([
            (AUTHORIZATION, HeaderValue::from_static("Bearer secret")),
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        ]);
        let template = self.kv.url_template().replace("{account_id}", "acc");
        let url = format!("{}/{path}", template.replace("{namespace_id}", NS));
        self.client.send(method, &url, headers, body.to_owned()).await
    }

    async fn json(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let reply = self.send(method, path, &body.to_string()).await.unwrap();
        (reply.status.as_u16(), serde_json::from_slice(&reply.body).unwrap())
    }

    async fn put(&self, pairs: Value) -> (u16, Value) {
        self.json(Method::PUT, "bulk", pairs).await
    }
}

fn code(answer: &Value) -> Option<u64> {
    assert_eq!(answer["success"], false);
    answer["errors"][0]["code"].as_u64()
}

#[tokio::test]
async fn what_is_too_large_or_of_another_type_is_refused_whole() {
    let caller = Caller::new().await;
    let pairs = |count: usize| (0..count).map(|n| json!({"key": n.to_string(), "value": ""}));
    for body in [
        json!(pairs(10_001).collect::<Vec<_>>()),
        json!([{"key": "a", "value": "1"}, {"key": "b", "value": {"not": "a string"}}]),
        json!([{"key": "a", "value": "1"}, {"key": "b", "value": "v".repeat(25 * 1024 * 1024 + 1)}]),
    ] {
        let (status, answer) = caller.put(body).await;
        assert!((400..500).contains(&status), "{status}");
        assert_eq!(code(&answer), Some(10_012));
    }
    assert_eq!(caller.kv.keys(NS), [""; 0]);
}

#[tokio::test]
async fn faults_come_in_the_order_of_their_rules_and_then_end() {
    let caller = Caller::new().await;
    let faults = caller.kv.faults();
    faults.add(Rule::on("PUT", "/bulk", Fault::status(503)));
    faults.add(Rule::on("PUT", "/bulk", Fault::DropConnection));
    faults.add(Rule::on("PUT", "/bulk", Fault::ApplyThenDrop));
    faults.add(Rule::on("PUT", "/bulk", Fault::ApplyThenStatus(524)));
    faults.add(Rule::on("PUT", "/bulk", Fault::TruncatedBody));
    let put = async |key: &str| {
        let body = json!([{"key": key, "value": "1"}]).to_string();
        let reply = caller.send(Method::PUT, "bulk", &body).await;
        (reply.ok().map(|reply| reply.status.as_u16()), caller.kv.get(NS, key).is_some())
    };

    assert_eq!(put("a").await, (Some(503), false));
    assert_eq!(put("b").await, (None, false));
    assert_eq!(put("c").await, (None, true));
    assert_eq!(put("d").await, (Some(524), true));
    assert_eq!(put("e").await, (None, true));
    assert_eq!(put("f").await, (Some(200), true));
}
