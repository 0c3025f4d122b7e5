//! What the exporter relies on of Cloudflare KV, asked of KV itself: each probe is a sentence.
//!
//! `make test` asks the stand-in, `make probe-local` wrangler's local KV, and `make probe` a namespace of
//! its own at Cloudflare. `docs/probes.md` says which ran where. Each probe has keys of its own, and
//! deletes them.

use std::time::{Duration, Instant};

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use testbed::kv::{Kv, KvOptions};
use tokio::time::sleep;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

#[derive(Debug)]
struct Answer {
    status: u16,
    body: Value,
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
                let namespaces = vec!["probe".to_owned()];
                let (account, token) = ("account".to_owned(), "token".to_owned());
                let options = KvOptions { port: 0, account, token: token.clone(), namespaces };
                let kv = stand_in.insert(Kv::start(options).await.unwrap());
                let url = kv.url_template().replace("{account_id}", "account");
                (Place::StandIn, url.replace("{namespace_id}", "probe"), token)
            }
        };
        Self { place, url, token, client, _stand_in: stand_in }
    }

    async fn send(&self, method: Method, path: &str, body: String) -> Answer {
        let request = self.client.request(method, format!("{}{path}", self.url)).body(body);
        answer(request.bearer_auth(&self.token)).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, String::new()).await
    }

    async fn put(&self, pairs: Value) -> Answer {
        self.send(Method::PUT, "/bulk", pairs.to_string()).await
    }

    async fn delete(&self, keys: Value) -> Answer {
        self.send(Method::POST, "/bulk/delete", keys.to_string()).await
    }

    async fn values(&self, keys: Value) -> Answer {
        let body = json!({"keys": keys, "type": "text", "withMetadata": true});
        self.send(Method::POST, "/bulk/get", body.to_string()).await
    }
}

async fn answer(request: RequestBuilder) -> Answer {
    let reply = request.header("content-type", "application/json").send().await.unwrap();
    let status = reply.status().as_u16();
    Answer {
        status,
        body: serde_json::from_slice(&reply.bytes().await.unwrap()).unwrap_or_default(),
    }
}

impl Answer {
    fn refused(&self) -> bool {
        (400..500).contains(&self.status) && self.body["success"] == false
    }

    fn code(&self) -> Option<u64> {
        self.body["errors"][0]["code"].as_u64()
    }
}

/// Longer than the second in which KV takes no second write of a key.
async fn a_second() {
    sleep(Duration::from_millis(1_100)).await;
}

#[tokio::test]
async fn kv_is_as_the_exporter_relies_on_it() {
    let kv = Namespace::open().await;
    if kv.place == Place::Cloudflare {
        let title = kv.get("").await.body["result"]["title"].to_string();
        assert!(title.contains("probe"), "the namespace's title {title} should have `probe` in it");
    }
    assert_eq!(kv.get("/keys?limit=10").await.body["result"], json!([]), "it should be empty");
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
    let pair = |key: &String| json!({"key": key, "value": "v"});
    let written = kv.put(many.iter().map(pair).collect()).await;
    let all = json!({"successful_key_count": count, "unsuccessful_keys": []});
    holds("10,000 pairs in a bulk write are answered by key.", written.body["result"] == all);

    let nothing = [kv.put(json!([])).await, kv.delete(json!(["not-there"])).await];
    let succeed = nothing.iter().all(|answer| answer.body["success"] == true);
    holds("Writing nothing and deleting what is absent succeed.", succeed);

    kv.put(json!([{"key": "read", "value": "v", "metadata": {"d": 1}}])).await;
    let read = kv.values(json!(["read", "absent"])).await.body["result"]["values"].take();
    let expected = json!({"read": {"value": "v", "metadata": {"d": 1}}, "absent": null});
    holds("`bulk/get` gives metadata, and null for absent keys.", wrangler || read == expected);

    let soon = kv.put(json!([{"key": "read", "value": "v2"}])).await;
    let by_name = soon.body["result"]["unsuccessful_keys"] == json!(["read"]);
    let refused = soon.status == 429 || by_name;
    holds("A second write of a key within a second is refused.", wrangler || refused);
    a_second().await;
    kv.put(json!([{"key": "read", "value": "v2"}])).await;
    let listed = kv.get("/keys?limit=10&prefix=read").await.body["result"][0].take();
    holds("A write replaces value and metadata.", listed == json!({"name": "read"}));

    let key = |number: u32| format!("listed-{number:02}");
    let pair = |number| json!({"key": key(number), "value": "v", "metadata": {"n": number}});
    kv.put((0..20).map(pair).collect()).await;
    let first = kv.get("/keys?limit=10&prefix=listed-").await.body;
    let cursor = first["result_info"]["cursor"].as_str().unwrap_or_default();
    kv.put(json!([pair(20)])).await;
    let second = kv.get(&format!("/keys?limit=10&prefix=listed-&cursor={cursor}")).await.body;
    let page = |from: u32| -> Value {
        (from..from + 10).map(|n| json!({"name": key(n), "metadata": {"n": n}})).collect()
    };
    let in_order = first["result"] == page(0) && second["result"] == page(10);
    holds("A listing is in order, and its cursor survives a write.", in_order);

    let outside = [kv.get("/keys?limit=9").await, kv.get("/keys?limit=1001").await];
    holds("A listing takes a limit of 10 to 1,000.", outside.iter().all(Answer::refused));

    let twice = json!([{"key": "a", "value": "1"}, {"key": "a", "value": "2"}]);
    holds("A key twice in a bulk write is refused.", kv.put(twice).await.refused());

    let longest = "é".repeat(256);
    let mut right = kv.put(json!([{"key": longest, "value": "v"}])).await.status == 200;
    for key in ["", ".", "..", &"k".repeat(513)] {
        right &= kv.put(json!([{"key": key, "value": "v"}])).await.refused();
    }
    holds("Keys have 1 to 512 bytes, and are not `.` or `..`.", right);

    let metadata = |bytes: usize| {
        let text = "x".repeat(bytes - json!({"m": ""}).to_string().len());
        json!([{"key": "metadata", "value": "v", "metadata": {"m": text}}])
    };
    let over = kv.put(metadata(1_025)).await.refused();
    let largest = kv.put(metadata(1_024)).await.status == 200;
    holds("Metadata has 1,024 bytes at most.", over && largest);

    let names = |count: u32| (0..count).map(|number| number.to_string()).collect::<Value>();
    let hundred = kv.values(names(100)).await.status == 200;
    let more = kv.values(names(101)).await.refused();
    holds("`bulk/get` takes 100 keys at most.", hundred && more);

    let request = kv.client.get(format!("{}/keys", kv.url)).bearer_auth("wrong");
    let wrong = wrangler || answer(request).await.code() == Some(10_000);
    holds("A wrong token gets code 10000.", wrong);

    let (beside, _) = kv.url.rsplit_once('/').unwrap();
    let unknown = format!("{beside}/00000000000000000000000000000000/keys");
    let unknown = answer(kv.client.get(unknown).bearer_auth(&kv.token)).await;
    let named = unknown.status == 404 && unknown.code() == Some(10_013);
    holds("An unknown namespace gets 404, code 10013.", wrangler || named);

    let missing = kv.get("/values/not-there").await;
    let named = missing.status == 404 && missing.code() == Some(10_009);
    holds("An absent key gets 404, code 10009.", named);

    let malformed = kv.send(Method::PUT, "/bulk", "{".to_owned()).await;
    holds("A malformed body gets 400.", malformed.status == 400);

    let late = async || kv.values(json!(["late"])).await.body["result"]["values"]["late"].clone();
    assert!(late().await.is_null());
    kv.put(json!([{"key": "late", "value": "v"}])).await;
    let written = Instant::now();
    while late().await.is_null() && written.elapsed() < Duration::from_secs(60) {
        sleep(Duration::from_secs(5)).await;
    }
    holds("What was absent is seen 60 s after its write.", !late().await.is_null());

    a_second().await;
    let others = ["read", &longest, "metadata", "late"].map(str::to_owned);
    let written = many.into_iter().chain((0..=20).map(key)).chain(others);
    let written: Vec<String> = written.collect();
    for keys in written.chunks(count) {
        assert_eq!(kv.delete(json!(keys)).await.body["success"], true, "cleaning up");
    }
    assert_eq!(broken, [""; 0], "{:?}", kv.place);
}

const PAGE: &str = include_str!("../../../../docs/probes.md");
