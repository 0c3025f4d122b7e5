//! No API key, no token and no settings value in anything that the process prints or answers.

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::http::Reply;
use testbed::lambda::Function;
use testbed::stack::{DEFAULT_CELL, QUERY_CONFIGS, SETTINGS, Stack, TOKEN_SECRET};
use testbed::stream::event;
use testbed::table::to_item;

use crate::helpers::*;
use crate::process;

const KEY: &str = "MARKED-API-KEY";
const TOKEN: &str = "MARKED-TOKEN";
const VALUE: &str = "MARKED-SETTING";

/// An item with a mark in every settings value.
fn marked(account: &str, name: &str, more: Value) -> Value {
    let item = json!({
        "index_endpoint": format!("https://{VALUE}.example.com"),
        "pixel_id": VALUE,
        "search_config": {"nested": [VALUE, {"deeper": VALUE}]},
        "agentic_config": {"prompt": VALUE},
    });
    index_with(account, name, with(item, more))
}

/// Everything that answers said.
#[derive(Default)]
struct Answers(String);

impl Answers {
    async fn invoke(&mut self, function: &Function, payload: &Value) {
        let invocation = process::invoke(function, payload).await;
        self.0.push_str(&format!("{:?}\n", invocation.result));
    }
}

async fn good_batches(stack: &Stack, function: &Function, answers: &mut Answers) {
    let mut config = query_config("a", "i", "q", 1);
    config["filter"] = json!(VALUE);
    let records = [
        written(1, &marked("a", "i", json!({"shop_id": "s.example"}))),
        written(2, &config),
        written(3, &marked("a", "gone", json!({"shop_id": "gone.example"}))),
    ];
    answers.invoke(function, &event(records)).await;
    // Something points at it: the log names the key, and what points at it.
    stack.table.put(&pointing("b", "live", "a-gone"));
    answers.invoke(function, &event([removed(4, "a", "INDEX#gone")])).await;
    stack.table.delete("b", "INDEX#live");
    let table = stack.table.clone();
    let switch_on = move || table.put(&pointing("b", "live", "a-gone"));
    stack.kv.faults().add(deletes(Fault::after(switch_on)));
    answers.invoke(function, &event([removed(5, "a", "INDEX#gone")])).await;
}

async fn mixed_batches(function: &Function, answers: &mut Answers) {
    let mut malformed = written(6, &marked("m", "i1", json!({})));
    malformed["dynamodb"]["NewImage"]["search_config"] = json!({"N": VALUE});
    let mut unreadable = written(7, &marked("m", "i2", json!({})));
    unreadable["dynamodb"]["NewImage"]["pixel_id"] = json!({VALUE: VALUE});
    let mut shapeless = written(8, &marked("m", "i3", json!({})));
    shapeless["dynamodb"]["NewImage"] = json!(VALUE);
    let targets = json!([{"index_id": "x", "weight": 7, "note": VALUE}]);
    let records = [
        malformed,
        unreadable,
        shapeless,
        json!(VALUE),
        json!({"eventName": VALUE, "dynamodb": VALUE}),
        written(9, &marked("m", "i4", json!({"index_endpoint": format!("no url {VALUE}")}))),
        written(10, &marked("m", "i5", json!({"search_config": VALUE}))),
        written(
            11,
            &marked("m", "i6", json!({"index_aliases": {"doc_reads": {"targets": targets}}})),
        ),
        written(12, &marked("keyless", "i", json!({}))),
        written(13, &marked("m", "fine", json!({}))),
    ];
    answers.invoke(function, &event(records)).await;
}

async fn failing_batches(stack: &Stack, function: &Function, answers: &mut Answers) {
    let batch = event([written(20, &marked("a", "i", json!({"shop_id": "s.example"})))]);
    let quote =
        format!(r#"could not parse {{"key":"s.example","value":"{KEY} {VALUE}"}} sent by {TOKEN}"#);
    let said = |status| {
        let errors = json!([{"code": 10_012, "message": quote}]);
        Reply::json(status, &json!({"success": false, "errors": errors, "result": null}))
    };
    let echo = |status, message: String| {
        let errors =
            json!([{"code": 10_012, "message": message}, {"code": 4_711, "message": VALUE}]);
        Fault::Answer(Reply::json(status, &json!({"success": false, "errors": errors})))
    };
    for fault in [
        Fault::Answer(said(400)),
        Fault::Answer(said(200)),
        Fault::Answer(said(403)),
        // No quote, colon or bracket stands before what is echoed.
        echo(400, format!("{KEY}-a is not a value")),
        echo(403, format!("token {TOKEN} may not write {KEY}-a")),
        echo(429, TOKEN.to_owned()),
        Fault::Answer(Reply::new(500, "text/html", format!("<html>{quote}</html>"))),
        Fault::Answer(Reply::new(200, "text/html", format!("<html>{quote}</html>"))),
        Fault::DropConnection,
        Fault::TruncatedBody,
        Fault::unsuccessful(|_| true, 400),
    ] {
        stack.kv.faults().add(Rule::any(fault).times(8));
        answers.invoke(function, &batch).await;
        stack.kv.faults().clear();
    }
    for fault in [
        Fault::Answer(Reply::json(500, &json!({"api_key": KEY}))),
        Fault::Answer(Reply::json(200, &json!({"apiKey": KEY}))),
        Fault::Answer(Reply::json(200, &json!({"api_key": format!("{KEY}\r\n")}))),
        Fault::Answer(Reply::json(200, &json!({"api_key": [KEY]}))),
        Fault::Answer(Reply::new(302, "", "").with("location", &format!("http://x/{KEY}"))),
        Fault::TruncatedBody,
    ] {
        // With a key in KV that can be used again, and without one.
        stack.api_keys.break_cell(DEFAULT_CELL, fault);
        let new = written(21, &marked("new", "i", json!({})));
        answers.invoke(function, &batch).await;
        answers.invoke(function, &event([new])).await;
        stack.api_keys.faults().clear();
    }
    let denied = Fault::aws(400, "AccessDeniedException", &format!("denied: {TOKEN} {KEY}-a"));
    stack.table.faults().add(Rule::any(denied).times(8));
    answers.invoke(function, &event([removed(22, "a", "INDEX#i")])).await;
    stack.table.faults().clear();
    for secret in [format!(r#"{{"key":"{TOKEN}"}}"#), format!("{TOKEN}\n{TOKEN}")] {
        stack.secrets.set(TOKEN_SECRET, &secret);
        stack.kv.set_token("rotated");
        answers.invoke(function, &batch).await;
    }
    stack.secrets.set(TOKEN_SECRET, TOKEN);
    answers.invoke(function, &batch).await;
    stack.kv.set_token(TOKEN);
    answers.invoke(function, &batch).await;
}

async fn re_exports(stack: &Stack, function: &Function, answers: &mut Answers) {
    let mut config = query_config("a", "i", "q", 1);
    config["filter"] = json!(VALUE);
    stack.table.put(&marked("a", "i", json!({"shop_id": "s.example"})));
    stack.table.put(&marked("keyless", "i", json!({})));
    stack.table.put(&marked("broken", "i", json!({"search_config": VALUE})));
    stack.table.put(&config);
    for account in ["a", "keyless", "broken", "missing"] {
        answers.invoke(function, &re_export_all(account, "i")).await;
    }
    stack.kv.faults().add(Rule::any(Fault::status(500)).times(8));
    answers.invoke(function, &re_export_all("a", "i")).await;
    stack.kv.faults().clear();
    for key in ["s.example", "a-gone", "keyless-i", "broken-i", "nobody"] {
        answers.invoke(function, &explain_key(key)).await;
    }
    stack.table.put(&marked("a", "i", json!({"shop_id": "s.example", "pixel_id": "other"})));
    answers.invoke(function, &explain_index("a", "i")).await;
    answers.invoke(function, &json!({"explain": {"system_account_id": "a"}})).await;
    let tried = to_item(&marked("a", "i", json!({"shop_id": "gone.example"})));
    for removed in [false, true] {
        let tried = json!({"explain": {"item": tried, "removed": removed}});
        answers.invoke(function, &tried).await;
    }
    answers.invoke(function, &audit()).await;
    answers.invoke(function, &repair()).await;
    answers.invoke(function, &json!({"search_config": VALUE, "Records": VALUE})).await;
}

/// At the finest log level, which prints what the others do.
#[tokio::test]
async fn nothing_secret_is_printed_answered_or_put_into_metadata() {
    let stack = process::stack().await;
    stack.kv.set_token(TOKEN);
    stack.secrets.set(TOKEN_SECRET, TOKEN);
    for account in ["a", "b", "m", "new"] {
        stack.api_keys.set(account, &format!("{KEY}-{account}"));
    }
    stack.api_keys.remove("keyless");
    let function = process::function(&stack, &[("AWS_LAMBDA_LOG_LEVEL", "TRACE")]).await;
    let mut answers = Answers::default();

    good_batches(&stack, &function, &mut answers).await;
    mixed_batches(&function, &mut answers).await;
    failing_batches(&stack, &function, &mut answers).await;
    re_exports(&stack, &function, &mut answers).await;

    let stored: Vec<_> = [SETTINGS, QUERY_CONFIGS]
        .iter()
        .flat_map(|namespace| stack.kv.snapshot(namespace).into_values())
        .collect();
    let values: String = stored.iter().map(|stored| stored.value.as_str()).collect();
    assert!(values.contains(KEY) && values.contains(VALUE), "the marks should be in KV's values");
    let metadata: String =
        stored.iter().filter_map(|stored| Some(stored.metadata.as_ref()?.to_string())).collect();
    let printed = process::text(&function.logs());
    assert!(printed.contains("record rejected") && printed.contains("record failed"));
    assert!(answers.0.contains("Err(") && answers.0.contains("batchItemFailures"));
    assert_eq!(function.starts(), 1);
    for (place, text) in [("log", &printed), ("answers", &answers.0), ("metadata", &metadata)] {
        for mark in [KEY, TOKEN, VALUE] {
            let shown: Vec<&str> =
                text.lines().filter(|line| line.contains(mark)).take(3).collect();
            assert!(shown.is_empty(), "{mark} in the {place}: {shown:#?}");
        }
    }
}
