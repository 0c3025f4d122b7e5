//! What mutation starts from: the sample events, their records, replies of KV and the table, and headers.

use serde_json::Value;

const REPLIES: &[&str] = &[
    r#"{"result":{"successful_key_count":2,"unsuccessful_keys":["a","b"]},"success":true,"errors":[],"messages":[]}"#,
    r#"{"result":null,"success":false,"errors":[{"code":10012,"message":"could not parse \"x\""}],"messages":[]}"#,
    r#"{"result":{"values":{"a":{"value":"{\"system_account_id\":\"a\",\"index_name\":\"i\",\"marqo_api_key\":\"k\"}","metadata":{"digest":"d"}},"b":"text","c":null}},"success":true,"errors":[],"messages":[]}"#,
    r#"{"result":[{"name":"a","metadata":{"digest":"d","exported_at":"t","source":"stream","system_account_id":"a","index_name":"i"}},{"name":"b","expiration":1}],"success":true,"errors":[],"messages":[],"result_info":{"count":2,"cursor":"c"}}"#,
    r#"{"system_account_id":"a","index_name":"i","shop_id":"s","marqo_api_key":"k","index_url":"https://h"}"#,
    r#"{"Count":2,"Items":[{"pk":{"S":"a"},"sk":{"S":"INDEX#i#QUERY#q"},"ids":{"SS":["x","y"]}},{"sk":{"S":"INDEX#i"},"pk":{"S":"a"}}],"LastEvaluatedKey":{"pk":{"S":"a"},"sk":{"S":"z"}}}"#,
    r#"{"Responses":{"t":[{"pk":{"S":"a"},"sk":{"S":"INDEX#i"},"m":{"M":{"n":{"N":"1.5"}}}}]},"UnprocessedKeys":{"t":{"Keys":[{"pk":{"S":"a"},"sk":{"S":"b"}}]}}}"#,
];

/// Values of `Retry-After`, as JSON strings.
const HEADERS: &[&str] = &[
    r#""7""#,
    r#""18446744073709551615""#,
    r#""-1.5e9""#,
    r#""Wed, 21 Oct 2026 07:28:00 GMT""#,
    r#"" 0 ""#,
];

/// The decoders that get an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The decoder of payloads and of the records in them.
    Payload,
    /// The decoder of stream records.
    Record,
    /// The decoders of answers of KV and the table, and of what KV holds.
    Reply,
    /// The decoders of headers.
    Header,
}

/// All seeds, each with its target.
pub fn all() -> Vec<(Target, Value)> {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/events");
    let mut files: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let mut seeds = Vec::new();
    for file in files {
        let event: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        let records = event["Records"].as_array().cloned().unwrap_or_default();
        seeds.extend(records.into_iter().map(|record| (Target::Record, record)));
        seeds.push((Target::Payload, event));
    }
    let headers = HEADERS.iter().map(|header| serde_json::from_str(header).unwrap());
    seeds.extend(headers.map(|header| (Target::Header, header)));
    let replies = REPLIES.iter().map(|reply| serde_json::from_str(reply).unwrap());
    seeds.extend(replies.map(|reply| (Target::Reply, reply)));
    seeds
}
