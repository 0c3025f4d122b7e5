//! DynamoDB. The items of a probe are its account's.

use serde_json::{Value, json};

use super::Probe;
use super::place::{Answer, Place};

pub const PROBES: &[Probe] = &[
    ("`BatchGetItem` refuses the same key twice.", &[], duplicates),
    ("`BatchGetItem` takes 100 keys at most.", &[], hundred),
    ("`UnprocessedKeys` names what 16 MB do not hold.", &[], unprocessed),
    ("A scan's `Count` counts its items.", &[], count),
    ("A consistent scan finds each item once, page by page.", &[], pages),
];

/// Fails where the table is not one for probes.
pub fn guard(place: &Place) {
    assert!(place.table.contains("probe"), "the table's name should have `probe` in it");
    let found = scan(place, json!({"Limit": 1}));
    assert_eq!(found.body["Count"], 0, "the table should be empty");
}

fn key(number: u32) -> Value {
    json!({"pk": {"S": "probe"}, "sk": {"S": format!("INDEX#{number:03}")}})
}

fn scan(place: &Place, mut asked: Value) -> Answer {
    asked["TableName"] = json!(place.table);
    asked["ConsistentRead"] = json!(true);
    place.operation("Scan", &asked)
}

fn get(place: &Place, keys: impl Iterator<Item = u32>) -> Answer {
    let keys: Vec<Value> = keys.map(key).collect();
    let tables = json!({&place.table: {"Keys": keys, "ConsistentRead": true}});
    place.operation("BatchGetItem", &json!({"RequestItems": tables}))
}

/// Writes or deletes items, as many as a request takes.
fn write(place: &Place, numbers: &[u32], request: impl Fn(u32) -> Value) -> Result<(), String> {
    for numbers in numbers.chunks(25) {
        let requests: Vec<Value> = numbers.iter().map(|number| request(*number)).collect();
        let body = json!({"RequestItems": {&place.table: requests}});
        let answer = place.operation("BatchWriteItem", &body);
        answer.holds(answer.status == 200 && answer.body["UnprocessedItems"] == json!({}))?;
    }
    Ok(())
}

/// Tries something with so many items of so many bytes.
fn with_items(
    place: &Place,
    count: u32,
    bytes: usize,
    probe: impl Fn() -> Result<(), String>,
) -> Result<(), String> {
    let numbers: Vec<u32> = (0..count).collect();
    let filler = "x".repeat(bytes);
    write(place, &numbers, |number| {
        let mut item = key(number);
        item["filler"] = json!({"S": filler});
        json!({"PutRequest": {"Item": item}})
    })?;
    let probed = probe();
    write(place, &numbers, |number| json!({"DeleteRequest": {"Key": key(number)}}))?;
    probed
}

fn refused(answer: &Answer) -> Result<(), String> {
    let kind = answer.body["__type"].as_str().unwrap_or_default();
    answer.holds(answer.status == 400 && kind.ends_with("ValidationException"))
}

fn duplicates(place: &Place) -> Result<(), String> {
    refused(&get(place, [1, 1].into_iter()))
}

fn hundred(place: &Place) -> Result<(), String> {
    let taken = get(place, 0..100);
    taken.holds(taken.status == 200)?;
    refused(&get(place, 0..101))
}

fn unprocessed(place: &Place) -> Result<(), String> {
    with_items(place, 45, 390_000, || {
        let got = get(place, 0..45);
        let count = |list: &Value| list.as_array().map_or(0, Vec::len);
        let found = count(&got.body["Responses"][&place.table]);
        let left = count(&got.body["UnprocessedKeys"][&place.table]["Keys"]);
        got.holds(left > 0 && found + left == 45)
    })
}

fn count(place: &Place) -> Result<(), String> {
    with_items(place, 3, 1, || {
        let found = scan(place, json!({}));
        found.holds(found.body["Count"] == 3 && found.body["Items"].as_array().unwrap().len() == 3)
    })
}

fn pages(place: &Place) -> Result<(), String> {
    with_items(place, 25, 1, || {
        let mut names = Vec::new();
        let mut asked = json!({"Limit": 10});
        for _ in 0..4 {
            let page = scan(place, asked.clone());
            let items = page.body["Items"].as_array().cloned().unwrap_or_default();
            names.extend(items.iter().map(|item| item["sk"]["S"].to_string()));
            match page.body.get("LastEvaluatedKey") {
                Some(last) => asked["ExclusiveStartKey"] = last.clone(),
                None => break,
            }
        }
        names.sort();
        names.dedup();
        if names.len() == 25 { Ok(()) } else { Err(format!("({} items)", names.len())) }
    })
}
