//! What the benches carry: settings records of 3 KB, and minimal ones.

use std::time::UNIX_EPOCH;

use serde_json::{Value, json};

/// Accounts in large batches and tables.
pub const ACCOUNTS: usize = 200;

/// A stream event of `records` changes, spread over `accounts`.
pub fn event(records: usize, accounts: usize, image: impl Fn(usize) -> Value) -> Value {
    // A record that is more than a minute old would be another case.
    let now = UNIX_EPOCH.elapsed().unwrap_or_default().as_secs();
    let record = |number: usize| {
        json!({
            "eventID": format!("{number:032x}"),
            "eventName": "MODIFY",
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": "us-east-1",
            "dynamodb": {
                "ApproximateCreationDateTime": now,
                "Keys": keys(number, accounts),
                "NewImage": image(number),
                "SequenceNumber": format!("{:021}", number + 1),
                "SizeBytes": 3_000,
                "StreamViewType": "NEW_IMAGE",
            },
            "eventSourceARN":
                "arn:aws:dynamodb:us-east-1:000000000000:table/local-EcomIndexSettingsTable/stream/s",
        })
    };
    json!({"Records": (0..records).map(record).collect::<Vec<_>>()})
}

pub fn keys(number: usize, accounts: usize) -> Value {
    json!({
        "pk": {"S": format!("account-{:05}", number % accounts)},
        "sk": {"S": format!("INDEX#index-{number:06}")},
    })
}

/// An image as the item that the table holds.
pub fn item(number: usize, accounts: usize, mut image: Value) -> Value {
    let keys = keys(number, accounts);
    image["pk"] = keys["pk"].clone();
    image["sk"] = keys["sk"].clone();
    image
}

/// The smallest image that is exported.
pub fn minimal(number: usize) -> Value {
    json!({"index_endpoint": {"S": format!("https://index-{number}.example.com")}})
}

/// Settings whose record takes about 3 KB of an event, and whose value takes 1.7 KB of KV.
pub fn typical(number: usize) -> Value {
    let field = |field: usize| {
        json!({"M": {
            "name": {"S": format!("attribute_{field}_of_the_product")},
            "weight": {"N": format!("{}.5", field % 7)},
            "facet": {"BOOL": field.is_multiple_of(2)},
            "synonyms": {"L": [{"S": "trainers"}, {"S": "sneakers"}]},
        }})
    };
    json!({
        "index_endpoint": {"S": format!("https://index-{number}.search.example.com/v1")},
        "shop_id": {"S": format!("shop-{number:06}.myshopify.com")},
        "pixel_id": {"S": "px-0123456789"},
        "search_config": {"M": {
            "fields": {"L": (0..10).map(field).collect::<Vec<_>>()}, "limit": {"N": "48"},
        }},
        "collections_config": {"M": {"sort": {"S": "manual"}, "page_size": {"N": "24"}}},
        "feature_flags": {"M": {
            "typo_tolerance": {"BOOL": true}, "vector_search": {"BOOL": false},
            "note": {"S": "x".repeat(300)},
        }},
        "agentic_config": {"M": {"enabled": {"BOOL": true}, "model": {"S": "small"}}},
        "index_aliases": {"M": {"doc_reads": {"M": {"enabled": {"BOOL": true}, "targets": {"L": [
            {"M": {"index_id": {"S": format!("account-{number}-v2")}, "weight": {"N": "1"}}},
        ]}}}}},
        "create_index_config": {"M": {"shards": {"N": "2"}, "replicas": {"N": "1"}}},
    })
}

/// A query config, in DynamoDB JSON with its keys.
pub fn query_config(account: &str, index: &str, number: usize) -> Value {
    json!({
        "pk": {"S": account},
        "sk": {"S": format!("INDEX#{index}#QUERY#query number {number:07}")},
        "pinned": {"L": [{"S": format!("product-{number}")}, {"S": "product-2"}]},
        "boost": {"N": "1.25"},
        "filters": {"M": {"in_stock": {"BOOL": true}}},
    })
}
