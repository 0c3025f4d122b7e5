//! The table, its stream, and the mapping that carries it to a function.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::poller::{Poller, PollerOptions};
use testbed::table::{self, StreamView, Table, to_item};

const NAME: &str = "local-EcomIndexSettingsTable";

fn item(sk: &str) -> Value {
    json!({"pk": "acct", "sk": sk, "n": 1})
}

/// A table whose stream has this many records.
async fn with_records(count: usize) -> Table {
    let table = Table::start(0, NAME, StreamView::NewImage).await.unwrap();
    (0..count).for_each(|number| table.put(&item(&format!("INDEX#{number:02}"))));
    table
}

/// The sort keys of each batch that a function got.
type Seen = Arc<Mutex<Vec<Vec<String>>>>;

/// A mapping to a function that fails the record of one sort key once.
fn deliver(table: &Table, window: Duration, failing: &'static str) -> (Poller, Seen) {
    let seen = Seen::default();
    let log = seen.clone();
    let options = PollerOptions { window, retry_delay: Duration::ZERO };
    let poller = Poller::start(table, options, move |event| {
        let records = event["Records"].as_array().unwrap();
        let sk =
            |record: &Value| record["dynamodb"]["Keys"]["sk"]["S"].as_str().unwrap().to_owned();
        let mut log = log.lock().unwrap();
        let is_first = !log.iter().flatten().any(|seen| seen == failing);
        log.push(records.iter().map(sk).collect());
        let failed = records.iter().filter(|record| is_first && sk(record) == failing);
        let failures = failed.map(|it| json!({"itemIdentifier": it["dynamodb"]["SequenceNumber"]}));
        let answer = json!({"batchItemFailures": failures.collect::<Vec<_>>()});
        async move { Ok::<_, String>(answer) }
    });
    (poller, seen)
}

#[tokio::test]
async fn records_are_shaped_as_lambda_delivers_them() {
    let table = with_records(1).await;
    table.delete("acct", "INDEX#00");

    let records = table.records();

    let names: Vec<_> = records.iter().map(|record| &record["eventName"]).collect();
    assert_eq!(names, ["INSERT", "REMOVE"]);
    let insert = &records[0];
    assert_eq!(insert["dynamodb"]["NewImage"], to_item(&item("INDEX#00")));
    assert_eq!(insert["eventSource"], "aws:dynamodb");
    let arn = insert["eventSourceARN"].as_str().unwrap();
    let table_arn = format!("arn:aws:dynamodb:us-east-1:000000000000:table/{NAME}/stream/");
    assert!(arn.starts_with(&table_arn), "{arn}");
    assert!(insert["dynamodb"]["ApproximateCreationDateTime"].is_u64());
    assert!(records[1]["dynamodb"].get("OldImage").is_none());
}

#[tokio::test]
async fn the_endpoint_plays_faults_and_logs() {
    let table = with_records(2).await;
    table.faults().add(Rule::operation("Scan", Fault::throttled()));
    let call = async |operation: &str, body: Value| {
        table::call(&table.url(), operation, &body).await.unwrap()
    };

    let throttled = call("Scan", json!({"TableName": NAME})).await;
    assert_eq!(throttled.headers["x-amzn-errortype"], "ThrottlingException");
    assert_eq!(call("Scan", json!({"TableName": NAME})).await.status, 200);
    let keys = ["INDEX#00", "INDEX#01"].map(|sk| to_item(&json!({"pk": "acct", "sk": sk})));
    let get = json!({"RequestItems": {NAME: {"Keys": keys, "ConsistentRead": true}}});
    assert_eq!(call("BatchGetItem", get).await.status, 200);

    let log = table.log();
    let seen: Vec<_> =
        log.iter().map(|seen| (seen.operation.as_str(), seen.items, seen.consistent)).collect();
    assert_eq!(seen, [("Scan", 0, false), ("Scan", 2, false), ("BatchGetItem", 2, true)]);
}

#[tokio::test]
async fn records_come_in_order_and_what_failed_comes_again_from_its_record_on() {
    let table = with_records(4).await;
    let (poller, seen) = deliver(&table, Duration::ZERO, "INDEX#02");
    poller.caught_up().await;
    let all = ["INDEX#00", "INDEX#01", "INDEX#02", "INDEX#03"];
    assert_eq!(*seen.lock().unwrap(), [&all[..], &all[2..]]);

    let put = json!({"TableName": NAME, "Item": to_item(&item("INDEX#over-http"))});
    assert_eq!(table::call(&table.url(), "PutItem", &put).await.unwrap().status, 200);
    poller.caught_up().await;
    assert_eq!(seen.lock().unwrap()[2..], [["INDEX#over-http"]]);
}

#[tokio::test]
async fn a_window_gathers_what_is_written_while_it_is_open() {
    let table = with_records(0).await;
    let (poller, seen) = deliver(&table, Duration::from_secs(1), "");
    for sk in ["INDEX#a", "INDEX#b", "INDEX#c"] {
        table.put(&item(sk));
        tokio::task::yield_now().await;
    }
    poller.caught_up().await;
    assert_eq!(*seen.lock().unwrap(), [["INDEX#a", "INDEX#b", "INDEX#c"]]);
}
