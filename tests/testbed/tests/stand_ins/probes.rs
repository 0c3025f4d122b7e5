//! What the exporter relies on of Cloudflare KV, asked of KV itself: each probe is a sentence.
//!
//! `make test` asks the stand-in, `make probe-local` wrangler's local KV, and `make probe` a namespace of
//! its own at Cloudflare. `docs/probes.md` says which ran where. Each probe has keys of its own, and
//! deletes them.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use testbed::kv::Kv;
use tokio::time::sleep;

#[derive(Debug, PartialEq, Eq)]
enum Place {
    StandIn,
    Wrangler,
    Cloudflare,
}

/// A KV namespace.
struct Namespace {
    place: Place,
    url: String,
    token: String,
    client: Client,
    _stand_in: Option<Kv>,
}

/// A variable of the environment that is not empty.
#[expect(clippy::disallowed_methods, reason = "the places of probes are in no configuration")]
fn given(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

impl Namespace {
    /// The one that the environment names, else that of a stand-in.
    async fn open() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::builder().timeout(Duration::from_secs(60)).build().unwrap();
        let mut stand_in = None;
        let (place, url, token) = match (given("PROBE_LOCAL_KV_URL"), given("PROBE_KV_URL")) {
            (Some(url), _) => (Place::Wrangler, url, String::new()),
            (_, Some(url)) => (Place::Cloudflare, url, given("PROBE_KV_TOKEN").unwrap()),
            _ => {
                let kv = Kv::start(0, "account", "token", &["probe"]).await.unwrap();
                let url = stand_in.insert(kv).url_template().replace("{account_id}", "account");
                (Place::StandIn, url.replace("{namespace_id}", "probe"), "token".to_owned())
            }
        };
        Self { place, url, token, client, _stand_in: stand_in }
    }

    /// Sends a request, and returns the reply's status and body.
    async fn send(&self, method: Method, path: &str, body: Value) -> (u16, Value) {
        let request = self.client.request(method, format!("{}{path}", self.url));
        answer(request.bearer_auth(&self.token).body(body.to_string())).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.client.get(format!("{}{path}", self.url)).bearer_auth(&self.token)).await
    }

    async fn put(&self, pairs: Value) -> (u16, Value) {
        self.send(Method::PUT, "/bulk", pairs).await
    }

    async fn values(&self, keys: Value) -> (u16, Value) {
        let body = json!({"keys": keys, "type": "text", "withMetadata": true});
        self.send(Method::POST, "/bulk/get", body).await
    }
}

async fn answer(request: RequestBuilder) -> (u16, Value) {
    let reply = request.header("content-type", "application/json").send().await.unwrap();
    let status = reply.status().as_u16();
    (status, serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap_or_default())
}

fn refused((status, body): &(u16, Value)) -> bool {
    (400..500).contains(status) && body["success"] == false
}

#[tokio::test]
async fn kv_is_as_the_exporter_relies_on_it() {
    let kv = Namespace::open().await;
    if kv.place == Place::Cloudflare {
        let title = kv.get("").await.1["result"]["title"].to_string();
        assert!(title.contains("probe"), "the namespace's title {title} should have `probe` in it");
    }
    assert_eq!(kv.get("/keys?limit=10").await.1["result"], json!([]), "it should be empty");
    let wrangler = kv.place == Place::Wrangler;
    let mut broken = Vec::new();
    let mut holds = |sentence: &'static str, holds: bool| {
        assert!(PAGE.contains(&format!("\n{sentence} |")), "the page lacks: {sentence}");
        println!("{}  {sentence}", if holds { "holds" } else { "no   " });
        if !holds {
            broken.push(sentence);
        }
    };

    // The time that wrangler takes grows with the square.
    let count = if wrangler { 500 } else { 10_000 };
    let many: Vec<String> = (0..count).map(|number| format!("many-{number}")).collect();
    let written = kv.put(many.iter().map(|key| json!({"key": key, "value": "v"})).collect()).await;
    let all = json!({"successful_key_count": count, "unsuccessful_keys": []});
    holds("10,000 pairs in a bulk write are answered by key.", written.1["result"] == all);

    let absent = kv.send(Method::POST, "/bulk/delete", json!(["not-there"])).await;
    let succeed = kv.put(json!([])).await.1["success"] == true && absent.1["success"] == true;
    holds("Writing nothing and deleting what is absent succeed.", succeed);

    kv.put(json!([{"key": "read", "value": "v", "metadata": {"d": 1}}])).await;
    let read = kv.values(json!(["read", "absent"])).await.1["result"]["values"].take();
    let expected = json!({"read": {"value": "v", "metadata": {"d": 1}}, "absent": null});
    holds("`bulk/get` gives metadata, and null for absent keys.", wrangler || read == expected);

    let (status, soon) = kv.put(json!([{"key": "read", "value": "v2"}])).await;
    let named = status == 429 || soon["result"]["unsuccessful_keys"] == json!(["read"]);
    holds("A second write of a key within a second is refused.", wrangler || named);
    sleep(SOON).await;
    kv.put(json!([{"key": "read", "value": "v2"}])).await;
    let listed = kv.get("/keys?limit=10&prefix=read").await.1["result"][0].take();
    holds("A write replaces value and metadata.", listed == json!({"name": "read"}));

    let key = |number: u32| format!("listed-{number:02}");
    let pair = |number| json!({"key": key(number), "value": "v", "metadata": {"n": number}});
    kv.put((0..20).map(pair).collect()).await;
    let (_, first) = kv.get("/keys?limit=10&prefix=listed-").await;
    let cursor = first["result_info"]["cursor"].as_str().unwrap_or_default();
    kv.put(json!([pair(20)])).await;
    let (_, second) = kv.get(&format!("/keys?limit=10&prefix=listed-&cursor={cursor}")).await;
    let page = |from: u32| -> Value {
        (from..from + 10).map(|n| json!({"name": key(n), "metadata": {"n": n}})).collect()
    };
    let in_order = first["result"] == page(0) && second["result"] == page(10);
    holds("A listing is in order, and its cursor survives a write.", in_order);

    let outside = [kv.get("/keys?limit=9").await, kv.get("/keys?limit=1001").await];
    holds("A listing takes a limit of 10 to 1,000.", outside.iter().all(refused));

    let twice = json!([{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]);
    holds("A key twice in a bulk write is refused.", refused(&kv.put(twice).await));

    let longest = "é".repeat(256);
    let mut right = kv.put(json!([{"key": longest, "value": "v"}])).await.0 == 200;
    for key in ["", ".", "..", &"k".repeat(513)] {
        right &= refused(&kv.put(json!([{"key": key, "value": "v"}])).await);
    }
    holds("Keys have 1 to 512 bytes, and are not `.` or `..`.", right);

    let metadata = |bytes: usize| {
        let text = "x".repeat(bytes - json!({"m": ""}).to_string().len());
        json!([{"key": "metadata", "value": "v", "metadata": {"m": text}}])
    };
    let over = refused(&kv.put(metadata(1_025)).await);
    holds("Metadata has 1,024 bytes at most.", over && kv.put(metadata(1_024)).await.0 == 200);

    let names = |count: u32| (0..count).map(|number| number.to_string()).collect::<Value>();
    let hundred = kv.values(names(100)).await.0 == 200;
    holds("`bulk/get` takes 100 keys at most.", hundred && refused(&kv.values(names(101)).await));

    let wrong = answer(kv.client.get(format!("{}/keys", kv.url)).bearer_auth("wrong")).await.1;
    holds("A wrong token gets code 10000.", wrangler || wrong["errors"][0]["code"] == 10_000);

    let (beside, _) = kv.url.rsplit_once('/').unwrap();
    let unknown = kv.client.get(format!("{beside}/00000000000000000000000000000000/keys"));
    let (status, unknown) = answer(unknown.bearer_auth(&kv.token)).await;
    let named = status == 404 && unknown["errors"][0]["code"] == 10_013;
    holds("An unknown namespace gets 404, code 10013.", wrangler || named);

    let late = async || kv.values(json!(["late"])).await.1["result"]["values"]["late"].take();
    assert!(late().await.is_null());
    kv.put(json!([{"key": "late", "value": "v"}])).await;
    let written = Instant::now();
    while late().await.is_null() && written.elapsed() < Duration::from_secs(60) {
        sleep(SOON).await;
    }
    holds("What was absent is seen 60 s after its write.", !late().await.is_null());

    sleep(SOON).await;
    let others = ["read", &longest, "metadata", "late"].map(str::to_owned);
    let written: Vec<String> = many.into_iter().chain((0..=20).map(key)).chain(others).collect();
    for keys in written.chunks(count) {
        let deleted = kv.send(Method::POST, "/bulk/delete", json!(keys)).await;
        assert_eq!(deleted.1["success"], true, "cleaning up");
    }
    assert_eq!(broken, [""; 0], "{:?}", kv.place);
}

const PAGE: &str = include_str!("../../../../docs/probes.md");
/// Longer than the second in which KV takes no second write of a key.
const SOON: Duration = Duration::from_millis(1_100);
