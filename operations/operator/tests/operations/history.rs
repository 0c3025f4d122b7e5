//! `make history`.

use serde_json::{Value, json};

use crate::desk::{Desk, serve};

/// Lines of a log, the newest last, with a shop id and an index id that try to pass for others.
fn log() -> Vec<Value> {
    let line = |minute: u32, message: &str, more: Value| {
        let mut line = json!({
            "timestamp": format!("2026-11-22T14:{minute:02}:00.000Z"), "message": message,
            "system_account_id": "a", "index_name": "i", "source": "stream",
        });
        line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        line
    };
    let of = |key: &str| json!({"key": key, "changed_at": "2026-11-22T13:59:58Z", "digest": "0123456789"});
    let mut other = of("x, s.example, y");
    other["system_account_id"] = json!("mallory");
    let held = "removals held: too many";
    vec![
        line(0, "exported", other),
        line(1, "exported", of("s.example")),
        line(2, "exported", of("a-i")),
        line(3, "removed", json!({"key": "s.example"})),
        line(4, "record rejected", json!({"path": "index_endpoint"})),
        line(5, held, json!({"items": ["a/i", "b/i"], "index_name": null})),
        line(0, held, json!({"items": ["b/i, a/i"], "index_name": null})),
        line(6, held, json!({"items": "[\"a/i\"]", "system_account_id": null})),
        line(7, "invocation", json!({"key": "s.example"})),
    ]
}

const OF_KEY: &str = "\
s.example
  2026-11-22T14:03:00.000Z removed stream
  2026-11-22T14:01:00.000Z exported stream 2026-11-22T13:59:58Z 01234567
";

const OF_INDEX: &str = "\
not exported
  2026-11-22T14:06:00.000Z removals held: too many stream
  2026-11-22T14:05:00.000Z removals held: too many stream
  2026-11-22T14:04:00.000Z record rejected index_endpoint stream
a-i
  2026-11-22T14:02:00.000Z exported stream 2026-11-22T13:59:58Z 01234567
";

#[test]
fn in_aws_a_query_of_the_log_says_what_was_served_and_no_name_can_forge_it() {
    let message = |line: &Value| json!([{"field": "@message", "value": line.to_string()}]);
    let rows: Vec<Value> = log().iter().map(message).collect();
    let results = json!({"status": "Complete", "results": rows});
    let desk = Desk::of("prod")
        .answers("aws logs start-query --cli-input-json {* --output json", r#"{"queryId": "q"}"#)
        .answers("aws logs get-query-results --query-id q --output json", results.to_string());

    let ended = desk.make(&["history", "KEY=s.example", "SINCE=2d"]);

    assert_eq!((ended.code, &*ended.stdout), (Some(0), OF_KEY), "{ended:?}");
    let input = desk.calls()[0].split_once("json ").unwrap().1.replace(" --output json", "");
    let input: Value = serde_json::from_str(&input).unwrap();
    assert_eq!(input["logGroupName"], "/aws/lambda/the-function");
    let seconds = input["endTime"].as_u64().unwrap() - input["startTime"].as_u64().unwrap();
    assert_eq!(seconds, 2 * 86_400);
    assert_eq!(
        input["queryString"],
        "filter (message in [\"exported\", \"removed\", \"record rejected\", \"record parked\"] or \
         message like \"removals held\") and @message like \"s.example\" | fields @message \
         | sort @timestamp desc | limit 10000"
    );
    let odd = desk.make(&["history", "KEY=x\" or message = \"longest.part"]);
    assert!(odd.stderr.contains("The log has nothing of it."), "{odd:?}");
    assert!(desk.calls()[2].contains(r#"@message like \"longest.part\" | fields"#));
}

#[test]
fn on_the_local_stack_the_same_command_reads_the_functions_log() {
    let log: String = log().iter().map(|line| format!("{line}\n")).collect();
    let stack =
        serve(move |path, _| if path.ends_with("/log") { log.clone() } else { String::new() });
    let desk = Desk::of("local").with("AWS_ENDPOINT_URL_LAMBDA", stack);

    assert_eq!(desk.make(&["history", "KEY=s.example"]).stdout, OF_KEY);
    let of_index = desk.make(&["history", "ACCOUNT=a", "INDEX=i"]).stdout;
    assert_eq!(of_index, [OF_INDEX, OF_KEY].concat());
}
