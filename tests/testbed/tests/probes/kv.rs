//! Cloudflare KV. Each probe has keys of its own, and deletes them.

use std::thread::sleep;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Probe;
use super::place::Where::{self, Wrangler};
use super::place::{Answer, Place};

pub const PROBES: &[Probe] = &[
    ("10,000 pairs in a bulk write are answered by key.", &[], ten_thousand),
    ("Writing nothing and deleting what is absent succeed.", &[], nothing),
    ("`bulk/get` gives metadata, and null for absent keys.", &[Wrangler], read),
    ("A write replaces value and metadata.", &[], replaced),
    ("A listing is in order, and its cursor survives a write.", &[], listing),
    ("A listing takes a limit of 10 to 1,000.", &[], limits_of_a_listing),
    ("A key twice in a bulk write is refused.", &[], twice),
    ("Keys have 1 to 512 bytes, and are not `.` or `..`.", &[], keys),
    ("Metadata has 1,024 bytes at most.", &[], metadata),
    ("`bulk/get` takes 100 keys at most.", &[], hundred),
    ("A second write of a key within a second is refused.", &[Wrangler], soon),
    ("A wrong token gets code 10000.", &[Wrangler], token),
    ("An unknown namespace gets 404, code 10013.", &[Wrangler], namespace),
    ("An absent key gets 404, code 10009.", &[], missing),
    ("A malformed body gets 400.", &[], malformed),
    ("Each answer has `Ratelimit`.", &[Wrangler], ratelimit),
    ("What was absent is seen 60 s after its write.", &[], absence),
];

/// Fails where the namespace is not one for probes.
pub fn guard(place: &Place) {
    if place.is == Where::Service {
        let title = place.send("GET", "", "").body["result"]["title"].to_string();
        assert!(title.contains("probe"), "the namespace's title {title} should have `probe` in it");
    }
    let listed = place.send("GET", "/keys?limit=10", "");
    let is_empty = listed.body["result"].as_array().is_some_and(Vec::is_empty);
    assert!(is_empty, "the namespace should be empty");
}

fn put(place: &Place, pairs: Value) -> Answer {
    place.send("PUT", "/bulk", &pairs.to_string())
}

fn delete(place: &Place, keys: Value) -> Answer {
    place.send("POST", "/bulk/delete", &keys.to_string())
}

fn get(place: &Place, keys: Value) -> Answer {
    let body = json!({"keys": keys, "type": "text", "withMetadata": true});
    place.send("POST", "/bulk/get", &body.to_string())
}

/// Deletes keys a second after they were written.
fn clean(place: &Place, keys: Value) -> Result<(), String> {
    sleep(Duration::from_millis(1_100));
    let deleted = delete(place, keys);
    deleted.holds(deleted.body["result"]["unsuccessful_keys"] == json!([]))
}

fn refused(answer: &Answer) -> Result<(), String> {
    answer.holds((400..500).contains(&answer.status) && answer.body["success"] == false)
}

fn ten_thousand(place: &Place) -> Result<(), String> {
    // The time that wrangler takes grows with the square.
    let count = if place.is == Wrangler { 500 } else { 10_000 };
    let keys: Vec<String> = (0..count).map(|number| format!("many-{number}")).collect();
    let written = put(place, keys.iter().map(|key| json!({"key": key, "value": "v"})).collect());
    let result = json!({"successful_key_count": count, "unsuccessful_keys": []});
    written.holds(written.status == 200 && written.body["result"] == result)?;
    clean(place, json!(keys))
}

fn nothing(place: &Place) -> Result<(), String> {
    for answer in [put(place, json!([])), delete(place, json!(["not-there"]))] {
        answer.holds(answer.status == 200 && answer.body["success"] == true)?;
    }
    Ok(())
}

fn read(place: &Place) -> Result<(), String> {
    put(place, json!([{"key": "read", "value": "v", "metadata": {"d": 1}}]));
    let got = get(place, json!(["read", "absent"]));
    let expected = json!({"read": {"value": "v", "metadata": {"d": 1}}, "absent": null});
    got.holds(got.body["result"]["values"] == expected)?;
    clean(place, json!(["read"]))
}

fn replaced(place: &Place) -> Result<(), String> {
    put(place, json!([{"key": "replaced", "value": "v1", "metadata": {"d": 1}}]));
    sleep(Duration::from_millis(1_100));
    put(place, json!([{"key": "replaced", "value": "v2"}]));
    let listed = place.send("GET", "/keys?limit=10&prefix=replaced", "");
    listed.holds(listed.body["result"][0].get("metadata").is_none())?;
    clean(place, json!(["replaced"]))
}

fn listing(place: &Place) -> Result<(), String> {
    let key = |number: u32| format!("listed-{number:02}");
    let pair = |number| json!({"key": key(number), "value": "v", "metadata": {"n": number}});
    put(place, (0..20).map(pair).collect());
    let first = place.send("GET", "/keys?limit=10&prefix=listed-", "");
    let cursor = first.body["result_info"]["cursor"].as_str().unwrap_or_default();
    put(place, json!([pair(20)]));
    let path = format!("/keys?limit=10&prefix=listed-&cursor={cursor}");
    let second = place.send("GET", &path, "");
    for (answer, from) in [(&first, 0), (&second, 10)] {
        let listed = (from..from + 10).map(|n| json!({"name": key(n), "metadata": {"n": n}}));
        answer.holds(answer.body["result"] == listed.collect::<Value>())?;
    }
    clean(place, (0..21).map(key).collect())
}

fn limits_of_a_listing(place: &Place) -> Result<(), String> {
    refused(&place.send("GET", "/keys?limit=9", ""))?;
    refused(&place.send("GET", "/keys?limit=1001", ""))
}

fn twice(place: &Place) -> Result<(), String> {
    refused(&put(place, json!([{"key": "a", "value": "1"}, {"key": "a", "value": "2"}])))
}

fn keys(place: &Place) -> Result<(), String> {
    let longest = "é".repeat(256);
    let taken = put(place, json!([{"key": longest, "value": "v"}]));
    taken.holds(taken.status == 200)?;
    for key in ["", ".", "..", &"k".repeat(513)] {
        refused(&put(place, json!([{"key": key, "value": "v"}])))?;
    }
    clean(place, json!([longest]))
}

fn metadata(place: &Place) -> Result<(), String> {
    let pair = |bytes: usize| {
        let text = "x".repeat(bytes - json!({"m": ""}).to_string().len());
        json!([{"key": "metadata", "value": "v", "metadata": {"m": text}}])
    };
    refused(&put(place, pair(1_025)))?;
    let taken = put(place, pair(1_024));
    taken.holds(taken.status == 200)?;
    clean(place, json!(["metadata"]))
}

fn hundred(place: &Place) -> Result<(), String> {
    let keys = |count: u32| (0..count).map(|number| number.to_string()).collect::<Value>();
    let taken = get(place, keys(100));
    taken.holds(taken.status == 200)?;
    refused(&get(place, keys(101)))
}

fn soon(place: &Place) -> Result<(), String> {
    put(place, json!([{"key": "soon", "value": "1"}]));
    let second = put(place, json!([{"key": "soon", "value": "2"}]));
    let by_name = second.body["result"]["unsuccessful_keys"] == json!(["soon"]);
    clean(place, json!(["soon"]))?;
    second.holds(second.status == 429 || by_name)
}

fn token(place: &Place) -> Result<(), String> {
    let answer = place.send_with_wrong_token("/keys");
    answer.holds(matches!(answer.status, 401 | 403) && answer.code() == Some(10_000))
}

fn namespace(place: &Place) -> Result<(), String> {
    let answer = place.send_elsewhere("/keys");
    answer.holds(answer.status == 404 && answer.code() == Some(10_013))
}

fn missing(place: &Place) -> Result<(), String> {
    let answer = place.send("GET", "/values/not-there", "");
    answer.holds(answer.status == 404 && answer.code() == Some(10_009))
}

fn malformed(place: &Place) -> Result<(), String> {
    let answer = place.send("PUT", "/bulk", "{");
    answer.holds(answer.status == 400)
}

fn ratelimit(place: &Place) -> Result<(), String> {
    let answer = place.send("GET", "/keys", "");
    let header = answer.headers.lines().find_map(|line| line.strip_prefix("ratelimit: "));
    answer.holds(header.is_some_and(|header| header.contains(";r=") && header.contains(";t=")))
}

fn absence(place: &Place) -> Result<(), String> {
    let seen = || get(place, json!(["late"])).body["result"]["values"]["late"].clone();
    assert!(seen().is_null(), "the key should not be there yet");
    put(place, json!([{"key": "late", "value": "v"}]));
    let written = Instant::now();
    while seen().is_null() {
        if written.elapsed() > Duration::from_secs(60) {
            return Err("(not within 60 s)".to_owned());
        }
        sleep(Duration::from_secs(5));
    }
    clean(place, json!(["late"]))
}
