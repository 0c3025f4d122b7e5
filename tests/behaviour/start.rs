//! The start of the process: its configuration, dry runs, and services that are down.

use ecom_settings_exporter::COMMIT;
use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::lambda::{Function, FunctionOptions, Invocation, StartError};

use crate::helpers::*;
use crate::process;

fn event() -> Value {
    testbed::stream::event([
        written(1, &index("a", "i")),
        written(2, &query_config("a", "i", "q", 1)),
    ])
}

#[tokio::test]
async fn every_problem_of_the_configuration_is_printed_and_the_process_ends() {
    let env = [
        ("API_KEYS_URL", "not a url"),
        ("CLOUDFLARE_API_TOKEN", "s3cret"),
        ("HTTP_TIMEOUT_MS", "soon"),
    ];
    let env = env.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let options = FunctionOptions::new(process::BINARY, env.into());
    let function = Function::start(options).await.unwrap();

    let Err(StartError { failure, logs }) = function.warm().await else {
        panic!("the process should not have started");
    };

    let lines: Vec<Value> =
        logs.iter().filter_map(|line| serde_json::from_str(&line.text).ok()).collect();
    let [line] = lines.as_slice() else { panic!("one line of JSON: {logs:?}") };
    assert_eq!(line["message"], "the configuration is not usable");
    let printed = process::text(&logs);
    for variable in ["ENVIRONMENT", "API_KEYS_URL", "HTTP_TIMEOUT_MS"] {
        assert!(line["error"].as_str().unwrap().contains(variable), "{variable}: {printed}");
    }
    assert!(!printed.contains("s3cret"));
    assert_eq!(failure.error_type, "Runtime.ExitError");
}

#[tokio::test]
async fn a_dry_run_does_all_but_the_calls_to_cloudflare_and_warns_each_time() {
    let stack = process::stack().await;
    stack.table.put(&shop("a", "i", "s.example"));
    stack.table.put(&query_config("a", "i", "q", 1));
    let function = process::function(&stack, &[("CLOUDFLARE_ACCOUNT_ID", "")]).await;

    let batch = process::invoke(&function, &event()).await;
    let removal = testbed::stream::event([
        removed(3, "b", "INDEX#gone"),
        removed(4, "b", "INDEX#gone#QUERY#q"),
    ]);
    let removal = process::invoke(&function, &removal).await;
    let report = process::invoke(&function, &re_export_all("a", "i")).await;
    let repaired = process::invoke(&function, &repair()).await.result.unwrap();
    let explained = process::invoke(&function, &explain_index("a", "i")).await.result.unwrap();

    assert_eq!(batch.result, Ok(json!({"batchItemFailures": []})));
    assert_eq!(removal.result, Ok(json!({"batchItemFailures": []})));
    let report_json = report.result.clone().unwrap();
    assert_eq!(report_json["outcome"], "dry_run");
    assert_eq!(report_json["query_configs"]["exported"], 1);
    assert_eq!(repaired["dry_run"], true, "{repaired}");
    let done = ["written", "deleted"].map(|class| &repaired["settings"][class]);
    assert_eq!(done, [0, 0], "{repaired}");
    assert_eq!(explained["item"], "exportable");
    let warned = |invocation: &Invocation| {
        let warnings = invocation.logs.iter().filter(|line| line.text.contains("WARN"));
        warnings.filter(|line| line.text.contains("dry run")).count()
    };
    assert_eq!([&batch, &removal, &report].map(warned), [2, 1, 1], "at the start, and each time");
    assert!(stack.kv.log().is_empty() && stack.secrets.log().is_empty());
    assert!(!stack.api_keys.log().is_empty() && !stack.table.log().is_empty());
}

#[tokio::test]
async fn secrets_manager_may_be_down_at_the_start_of_the_process_and_back_later() {
    let stack = process::stack().await;
    let down = Rule::any(Fault::aws(500, "InternalServiceError", "down")).forever();
    stack.secrets.faults().add(down);
    let function = process::function(&stack, &[]).await;

    let failed = process::invoke(&function, &event()).await;
    stack.secrets.faults().clear();
    let done = process::invoke(&function, &event()).await;

    let failures = json!([{"itemIdentifier": "1"}, {"itemIdentifier": "2"}]);
    assert_eq!(failed.result, Ok(json!({"batchItemFailures": failures})));
    assert_eq!(done.result, Ok(json!({"batchItemFailures": []})));
    assert_eq!(function.starts(), 1);
}

#[tokio::test]
async fn the_process_reads_its_token_once_and_says_which_commit_it_was_built_from() {
    let (stack, function) = process::start().await;
    function.warm().await.unwrap();

    for _ in 0..2 {
        process::invoke(&function, &event()).await;
    }

    let logs = function.logs();
    let lines = logs.iter().filter_map(|line| serde_json::from_str::<Value>(&line.text).ok());
    let starts: Vec<Value> = lines.filter(|line| line["message"] == "start").collect();
    let [start] = starts.as_slice() else { panic!("{starts:?}") };
    assert_eq!((&start["level"], &start["commit"]), (&json!("INFO"), &json!(COMMIT)));
    assert_eq!(stack.secrets.log().len(), 1);
}
