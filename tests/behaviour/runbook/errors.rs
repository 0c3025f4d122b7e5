//! Symptoms: the function or a service that it needs fails.

use std::time::Duration;

use serde_json::json;
use testbed::faults::{Fault, Rule};
use testbed::poller::PollerOptions;
use testbed::stack::{DEFAULT_CELL, SETTINGS, Stack, TOKEN_SECRET};
use testbed::stream::event;
use testbed::table::to_item;

use super::practice::*;
use super::query::*;
use crate::helpers::*;

/// What the query `errors` finds after a batch with these faults.
async fn errors_with(arrange: fn(&Stack)) -> (Practice, Vec<String>) {
    let practice = Practice::start().await;
    arrange(&practice.stack);
    let records = [written(1, &index("a", "i"))];
    let answer = practice.invoke(event(records)).await.unwrap();
    assert_eq!(answer["batchItemFailures"][0]["itemIdentifier"], "1");
    let found = practice.ask(&query("errors"));
    let errors = found.iter().map(|line| line["error"].as_str().unwrap().to_owned()).collect();
    (practice, errors)
}

/// What the error names, and what causes it.
type Outage = (&'static [&'static str], fn(&Stack));

#[tokio::test]
async fn exporter_errors_are_told_apart_by_what_they_name() {
    let outages: [Outage; 5] = [
        (&["CloudflareAuthRejected"], |stack| stack.kv.set_token("another")),
        (&[TOKEN_SECRET, "AccessDenied"], |stack| {
            stack.secrets.faults().add(Rule::operation("GetSecretValue", denied()).forever());
        }),
        (&["Cloudflare", "429"], |stack| {
            stack.kv.faults().add(Rule::any(Fault::status(429)).forever())
        }),
        (&["Cloudflare", "503"], |stack| {
            stack.kv.faults().add(Rule::any(Fault::status(503)).forever())
        }),
        (&["API keys service", "500"], |stack| {
            stack.api_keys.break_cell(DEFAULT_CELL, Fault::status(500))
        }),
    ];
    for (names, arrange) in outages {
        let (_, errors) = errors_with(arrange).await;
        let [error] = errors.as_slice() else { panic!("{errors:?}") };
        assert!(names.iter().all(|name| error.contains(name)), "{names:?} in {error}");
    }
    for (fault, name) in [(denied(), "AccessDenied"), (Fault::throttled(), "Throttling")] {
        let practice = Practice::start().await;
        practice.stack.table.faults().add(Rule::any(fault).forever());
        let failure = practice.re_export("a", "i").await.unwrap_err();
        let found = practice.ask(&query("errors"));
        let error = found[0]["error"].as_str().unwrap();
        assert!(error.contains("table") && error.contains(name), "{error}");
        assert_eq!(error, failure.error_message);
    }
    let practice = Practice::start().await;
    let refused = practice.invoke(json!({"reconcile": {"aply": true}})).await.unwrap_err();
    assert_eq!(refused.error_type, "InvalidPayload");
    assert!(refused.error_message.contains("Payloads taken"), "{refused}");
}

#[tokio::test]
async fn the_on_failure_queue_is_not_empty() {
    let practice = Practice::start().await;
    let options = PollerOptions { batch_size: 1, ..PollerOptions::default() };
    let clock = options.clock.clone();
    let poller = practice.stack.poll(&practice.function, options);
    let mut deliveries = poller.subscribe();
    practice.stack.kv.faults().add(Rule::any(Fault::status(503)).forever());
    practice.stack.table.put(&shop("a", "i", "s.example"));
    // It waits behind the first one, and is never sent.
    practice.stack.table.put(&query_config("a", "i", "q", 1));
    deliveries.recv().await.unwrap();
    clock.pass(Duration::from_secs(3_602));
    poller.caught_up().await;
    let [stuck, waiting] = poller.given_up().try_into().unwrap();
    for message in [&stuck, &waiting] {
        assert_eq!(message["requestContext"]["condition"], "RecordAgeExceeded");
        assert_eq!(message["DDBStreamBatchInfo"]["batchSize"], 1);
    }
    assert!(stuck["requestContext"]["approximateInvokeCount"].as_u64().unwrap() > 0);
    assert_eq!(stuck["responseContext"]["statusCode"], 200);
    assert_eq!(waiting["requestContext"]["approximateInvokeCount"], 0);
    assert_eq!(waiting.get("responseContext"), None);
    let found = practice.ask(&query("records"));
    assert!(found.iter().all(|line| line["message"] == "record failed"));
    assert!(found.iter().any(|line| line["system_account_id"] == "a" && line["index_name"] == "i"));

    practice.stack.kv.faults().clear();
    practice.repair().await;

    practice.assert_equal(&practice.audit().await);
    assert_eq!(practice.stack.kv.keys(SETTINGS), ["a-i", "s.example"]);
}

#[tokio::test]
async fn cloudflare_down() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice.put(&poller, [index("a", "i")]).await;

    practice.stack.kv.faults().add(Rule::any(Fault::status(503)).forever());
    let mut deliveries = poller.subscribe();
    practice.stack.table.put(&with(index("a", "i"), json!({"pixel_id": "new"})));
    deliveries.recv().await.unwrap();
    assert!(practice.setting("a-i").unwrap().get("pixel_id").is_none(), "served as it was");
    practice.stack.kv.faults().clear();
    poller.caught_up().await;
    assert_eq!(practice.setting("a-i").unwrap()["pixel_id"], "new", "retried without an operator");
}

#[tokio::test]
async fn records_parked() {
    let practice = Practice::start().await;
    let cell = |name: &str| index_with("b", name, json!({"cell": "cell-2"}));
    let items = [cell("known"), cell("new"), cell("urgent"), index("a", "other")];
    let poller = practice.poll();
    practice.put(&poller, [cell("known")]).await;
    drop(poller);
    practice.stack.table.load(items.iter().map(to_item));
    practice.stack.api_keys.break_cell("cell-2", Fault::status(503));

    let records = (1..).zip(&items).map(|(number, item)| late(written(number, item)));
    let answer = practice.invoke(event(records)).await.unwrap();

    assert_eq!(answer, json!({"batchItemFailures": []}), "the shard goes on");
    assert!(practice.setting("a-other").is_some());
    let found = practice.ask(&query("records"));
    let parked: Vec<_> = found.iter().map(|line| (&line["index_name"], &line["cell"])).collect();
    let cell_2 = json!("cell-2");
    assert_eq!(parked, [(&json!("new"), &cell_2), (&json!("urgent"), &cell_2)]);
    // A reconcile can't write them either.
    assert_eq!(practice.repair().await["settings"]["failed"], 3);

    practice.stack.api_keys.faults().clear();
    practice.re_export("b", "urgent").await.unwrap();
    assert!(practice.setting("b-urgent").is_some());
    practice.repair().await;
    assert!(practice.setting("b-new").is_some());
    practice.assert_equal(&practice.audit().await);
}
