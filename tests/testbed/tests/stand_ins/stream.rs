//! The table, its stream, and the mapping that carries it to a function.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::poller::{Poller, PollerOptions};
use testbed::stream::{StartingPosition, sequence_number};
use testbed::table::{self, StreamView, Table, to_item};

const NAME: &str = "local-EcomIndexSettingsTable";

fn options() -> PollerOptions {
    PollerOptions {
        starting_position: StartingPosition::TrimHorizon,
        retry_delay: Duration::ZERO,
        ..PollerOptions::default()
    }
}

fn item(sk: &str) -> Value {
    json!({"pk": "acct", "sk": sk, "n": 1})
}

/// A table whose stream has this many records.
async fn with_records(count: usize) -> Table {
    let table = Table::start(0, NAME, StreamView::NewImage).await.unwrap();
    (0..count).for_each(|number| table.put(&item(&format!("INDEX#{number:02}"))));
    table
}

/// A mapping to a function that fails a batch from one of its records on, and how its records came.
fn deliver(
    table: &Table,
    options: PollerOptions,
    failing: Value,
) -> (Poller, Arc<Mutex<Vec<usize>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sizes = seen.clone();
    let poller = Poller::start(table, options, move |event| {
        let records = event["Records"].as_array().unwrap();
        sizes.lock().unwrap().push(records.len());
        let fails = records.iter().any(|record| record["dynamodb"]["SequenceNumber"] == failing);
        let failures = if fails { json!([{"itemIdentifier": failing}]) } else { json!([]) };
        async move { Ok::<_, String>(json!({"batchItemFailures": failures})) }
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
async fn the_endpoint_plays_faults_hands_keys_back_and_logs() {
    let table = with_records(2).await;
    table.faults().add(Rule::operation("Scan", Fault::throttled()));
    table.faults().add(Rule::operation("BatchGetItem", Fault::Unprocessed(1)));
    let call = async |operation: &str, body: Value| {
        table::call(&table.url(), operation, &body).await.unwrap()
    };

    let throttled = call("Scan", json!({"TableName": NAME})).await;
    assert_eq!(throttled.headers["x-amzn-errortype"], "ThrottlingException");
    assert_eq!(call("Scan", json!({"TableName": NAME})).await.status, 200);
    let keys = ["INDEX#00", "INDEX#01"].map(|sk| to_item(&json!({"pk": "acct", "sk": sk})));
    let get = json!({"RequestItems": {NAME: {"Keys": keys, "ConsistentRead": true}}});
    let got: Value = serde_json::from_slice(&call("BatchGetItem", get).await.body).unwrap();
    assert_eq!(got["Responses"][NAME], json!([to_item(&item("INDEX#00"))]));
    assert_eq!(got["UnprocessedKeys"][NAME]["Keys"], json!([keys[1]]));

    let log = table.log();
    let seen: Vec<_> =
        log.iter().map(|seen| (seen.operation.as_str(), seen.status, seen.items)).collect();
    let expected = [("Scan", Some(400), 0), ("Scan", Some(200), 2), ("BatchGetItem", Some(200), 2)];
    assert_eq!(seen, expected);
    assert!(log[2].consistent);
}

#[tokio::test]
async fn records_come_in_order_and_in_batches() {
    let table = with_records(25).await;
    let options = PollerOptions { batch_size: 10, ..options() };
    let (poller, seen) = deliver(&table, options, Value::Null);
    poller.caught_up().await;
    assert_eq!(*seen.lock().unwrap(), [10, 10, 5]);
    let delivered = poller.deliveries().into_iter().flat_map(|batch| batch.sequence_numbers);
    let records = table.records();
    let written: Vec<_> = records.iter().filter_map(sequence_number).collect();
    assert_eq!(delivered.collect::<Vec<_>>(), written);

    let put = json!({"TableName": NAME, "Item": to_item(&item("INDEX#over-http"))});
    assert_eq!(table::call(&table.url(), "PutItem", &put).await.unwrap().status, 200);
    poller.caught_up().await;
    assert_eq!(*seen.lock().unwrap(), [10, 10, 5, 1]);
}

#[tokio::test]
async fn a_window_gathers_what_is_written_while_it_is_open() {
    let table = with_records(0).await;
    let options = PollerOptions { batch_size: 3, window: Duration::from_secs(60), ..options() };
    let (poller, seen) = deliver(&table, options, Value::Null);
    for sk in ["INDEX#a", "INDEX#b", "INDEX#c"] {
        table.put(&item(sk));
        tokio::task::yield_now().await;
    }
    poller.caught_up().await;
    assert_eq!(*seen.lock().unwrap(), [3]);
}

#[tokio::test]
async fn what_failed_is_sent_again_from_its_record_on_until_its_retries_are_used_up() {
    let table = with_records(8).await;
    let failing = table.records()[5]["dynamodb"]["SequenceNumber"].clone();
    let options = PollerOptions { maximum_retry_attempts: Some(2), ..options() };
    let (poller, seen) = deliver(&table, options, failing);
    poller.caught_up().await;
    assert_eq!(*seen.lock().unwrap(), [8, 3, 3]);
}

#[tokio::test]
async fn what_is_too_old_is_given_up_before_it_is_sent() {
    let table = with_records(1).await;
    let options = options();
    options.clock.pass(options.maximum_record_age + Duration::from_secs(2));
    let (poller, seen) = deliver(&table, options, Value::Null);
    poller.caught_up().await;
    assert!(seen.lock().unwrap().is_empty());
}
