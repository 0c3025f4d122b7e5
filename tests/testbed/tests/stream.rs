//! The table, its stream, and the mapping that carries it to a function.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Reply;
use testbed::poller::{Poller, PollerOptions};
use testbed::stream::{StartingPosition, sequence_number};
use testbed::table::{self, StreamView, Table, to_item};

const NAME: &str = "local-EcomIndexSettingsTable";

fn options() -> PollerOptions {
    PollerOptions {
        starting_position: StartingPosition::TrimHorizon,
        retry_delay: Duration::ZERO,
        maximum_retry_attempts: Some(1),
        ..PollerOptions::default()
    }
}

fn item(sk: &str) -> Value {
    json!({"pk": "acct", "sk": sk, "n": 1})
}

async fn start(view: StreamView) -> Table {
    Table::start(0, NAME, view).await.unwrap()
}

async fn call(table: &Table, operation: &str, body: Value) -> Reply {
    table::call(&table.url(), operation, &body).await.unwrap()
}

#[tokio::test]
async fn records_are_shaped_as_lambda_delivers_them() {
    let table = start(StreamView::NewImage).await;
    table.put(&item("INDEX#main"));
    table.delete("acct", "INDEX#main");

    let records = table.records();

    let names: Vec<_> = records.iter().map(|record| &record["eventName"]).collect();
    assert_eq!(names, ["INSERT", "REMOVE"]);
    let insert = &records[0];
    assert_eq!(insert["dynamodb"]["NewImage"], to_item(&item("INDEX#main")));
    assert_eq!(insert["eventSource"], "aws:dynamodb");
    assert_eq!(insert["awsRegion"], "us-east-1");
    let arn = insert["eventSourceARN"].as_str().unwrap();
    let table_arn = format!("arn:aws:dynamodb:us-east-1:000000000000:table/{NAME}/stream/");
    assert!(arn.starts_with(&table_arn), "{arn}");
    assert!(insert["dynamodb"]["ApproximateCreationDateTime"].is_u64());
    assert!(records[1]["dynamodb"].get("OldImage").is_none());
}

#[tokio::test]
async fn the_endpoint_plays_faults_hands_keys_back_and_logs() {
    let table = start(StreamView::NewAndOldImages).await;
    table.put(&item("INDEX#a"));
    table.put(&item("INDEX#b"));
    table.faults().add(Rule::operation("Scan", Fault::throttled()));
    table.faults().add(Rule::operation("BatchGetItem", Fault::Unprocessed(1)));

    let throttled = call(&table, "Scan", json!({"TableName": NAME})).await;
    assert_eq!(throttled.headers["x-amzn-errortype"], "ThrottlingException");
    let scanned = call(&table, "Scan", json!({"TableName": NAME})).await;
    assert_eq!(scanned.status, 200);
    let keys = ["INDEX#a", "INDEX#b"].map(|sk| to_item(&json!({"pk": "acct", "sk": sk})));
    let get = json!({"RequestItems": {NAME: {"Keys": keys, "ConsistentRead": true}}});
    let got = call(&table, "BatchGetItem", get).await;
    let got: Value = serde_json::from_slice(&got.body).unwrap();
    assert_eq!(got["Responses"][NAME], json!([to_item(&item("INDEX#a"))]));
    assert_eq!(got["UnprocessedKeys"][NAME]["Keys"], json!([keys[1]]));

    let log = table.log();
    let seen: Vec<_> =
        log.iter().map(|seen| (seen.operation.as_str(), seen.status, seen.items)).collect();
    let expected = [("Scan", Some(400), 0), ("Scan", Some(200), 2), ("BatchGetItem", Some(200), 2)];
    assert_eq!(seen, expected);
    assert!(log[2].consistent);
}

#[tokio::test]
async fn records_that_pass_the_filter_come_in_order_and_in_batches() {
    let table = start(StreamView::NewImage).await;
    table.load_recorded((0..25).map(|n| to_item(&item(&format!("INDEX#{n:02}")))));
    table.put(&item("OTHER#1"));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let options = PollerOptions { batch_size: 10, ..options() };
    let poller = Poller::start(&table, options, move |event| {
        let records = event["Records"].as_array().unwrap().clone();
        sink.lock().unwrap().push(records.len());
        async { Ok::<_, String>(json!({"batchItemFailures": []})) }
    });
    poller.caught_up().await;
    assert_eq!(*seen.lock().unwrap(), [10, 10, 5]);

    let put = json!({"TableName": NAME, "Item": to_item(&item("INDEX#over-http"))});
    assert_eq!(call(&table, "PutItem", put).await.status, 200);
    poller.caught_up().await;
    assert_eq!(*seen.lock().unwrap(), [10, 10, 5, 1]);
}

#[tokio::test]
async fn a_window_gathers_what_is_written_while_it_is_open() {
    let table = start(StreamView::NewImage).await;
    let options = PollerOptions { batch_size: 3, window: Duration::from_secs(60), ..options() };
    let poller = Poller::start(&table, options, |_| async { Ok::<_, String>(Value::Null) });
    for sk in ["INDEX#a", "INDEX#b", "INDEX#c"] {
        table.put(&item(sk));
        tokio::task::yield_now().await;
    }
    poller.caught_up().await;
    let deliveries = poller.deliveries();
    assert_eq!(deliveries.len(), 1);
    assert_eq!(deliveries[0].sequence_numbers.len(), 3);
}

#[tokio::test]
async fn a_record_that_always_fails_is_cut_out_and_given_up_while_the_others_pass() {
    let table = start(StreamView::NewImage).await;
    table.load_recorded((0..8).map(|n| to_item(&item(&format!("INDEX#{n}")))));
    let poison = sequence_number(&table.records()[5]).unwrap().to_owned();
    let failing = poison.clone();
    let poller = Poller::start(&table, options(), move |event| {
        let poisoned = event.to_string().contains(&failing);
        async move { if poisoned { Err("boom") } else { Ok(json!({})) } }
    });

    poller.caught_up().await;

    let given_up = poller.given_up();
    assert_eq!(given_up.len(), 1);
    let message = &given_up[0];
    assert_eq!(message["requestContext"]["condition"], "RetryAttemptsExhausted");
    assert_eq!(message["responseContext"]["functionError"], "Unhandled");
    let batch = &message["DDBStreamBatchInfo"];
    assert_eq!(batch["batchSize"], 1);
    assert_eq!(batch["startSequenceNumber"], poison);
    assert_eq!(batch["endSequenceNumber"], poison);
    assert!(batch["streamArn"].as_str().unwrap().contains(NAME));
    assert!(batch["approximateArrivalOfFirstRecord"].as_str().unwrap().ends_with('Z'));
    assert!(message.get("Records").is_none(), "a queue gets no records");
}

#[tokio::test]
async fn what_is_too_old_is_given_up_before_it_is_sent() {
    let table = start(StreamView::NewImage).await;
    table.load_recorded([to_item(&item("INDEX#old"))]);
    let options = PollerOptions { maximum_retry_attempts: None, ..options() };
    options.clock.pass(options.maximum_record_age + Duration::from_secs(2));
    let poller = Poller::start(&table, options, |_| async { Ok::<_, String>(Value::Null) });

    poller.caught_up().await;

    assert!(poller.deliveries().is_empty());
    let [message] = poller.given_up().try_into().unwrap();
    assert_eq!(message["requestContext"]["condition"], "RecordAgeExceeded");
    assert_eq!(message["requestContext"]["approximateInvokeCount"], 0);
    assert_eq!(message.get("responseContext"), None, "there was no answer");
}

#[tokio::test]
async fn scans_and_queries_are_logged_with_the_read_units_of_all_that_they_went_over() {
    let table = start(StreamView::NewImage).await;
    // 9 KB are three units of 4 KB, the first item alone is two; half of that if a read need not be
    // consistent.
    table.put(&json!({"pk": "a", "sk": "1", "text": "x".repeat(5_000)}));
    table.put(&json!({"pk": "b", "sk": "1", "text": "x".repeat(4_000)}));
    let scan = |consistent: bool| {
        json!({
            "TableName": NAME, "ConsistentRead": consistent, "ProjectionExpression": "pk",
            "FilterExpression": "pk = :none",
            "ExpressionAttributeValues": {":none": {"S": "none"}},
        })
    };
    let query = json!({
        "TableName": NAME, "KeyConditionExpression": "pk = :a",
        "ExpressionAttributeValues": {":a": {"S": "a"}},
    });

    for (operation, body) in [("Scan", scan(true)), ("Scan", scan(false)), ("Query", query)] {
        assert_eq!(call(&table, operation, body).await.status, 200);
    }

    let log = table.log();
    let units: Vec<f64> = log.iter().map(|request| request.read_units).collect();
    assert_eq!(units, [3.0, 1.5, 1.0]);
    let items: Vec<usize> = log.iter().map(|request| request.items).collect();
    assert_eq!(items, [0, 0, 1]);
}
