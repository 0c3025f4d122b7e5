//! Payloads, and the reports of the function.

use serde_json::{Value, json};

use crate::desk::{Desk, Ended, serve};

/// Asks a function that answers so.
fn asked(answer: &Value, words: &[&str]) -> (Ended, Desk) {
    let desk = Desk::of("prod").answers("aws lambda invoke *", answer.to_string());
    (desk.make(words), desk)
}

#[test]
fn a_payload_goes_once_to_the_version_that_is_live_or_to_the_next() {
    let event = include_str!("../../../../events/explain-key.json");
    let event = serde_json::from_str(event).unwrap();
    for (words, qualifier, payload) in [
        (&["explain", "KEY=k"][..], "live", json!({"explain": {"key": "k", "values": false}})),
        (
            &["explain", "KEY=k", "QUALIFIER=next"],
            "next",
            json!({"explain": {"key": "k", "values": false}}),
        ),
        (
            &["re-export", "ACCOUNT=a", "INDEX=i", "QUERY_CONFIGS=true"],
            "live",
            json!({"system_account_id": "a", "index_name": "i", "include_query_configs": true}),
        ),
        (&["invoke-remote", "EVENT=events/explain-key.json"], "live", event),
    ] {
        let (ended, desk) = asked(&json!({"x": 1}), words);
        assert_eq!((ended.code, &*ended.stdout), (Some(0), "x: 1\n"), "{ended:?}");
        let [call] = &desk.calls()[..] else { panic!("{:?}", desk.calls()) };
        let (arguments, sent) = call.split_at(call.find(" {").unwrap());
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let begin = "aws lambda invoke --cli-read-timeout 0 --function-name the-function";
        assert_eq!(arguments[..7].join(" "), begin);
        let file = arguments[10].strip_prefix("fileb://").unwrap();
        assert_eq!(
            arguments[7..],
            ["--qualifier", qualifier, "--payload", arguments[10], file, "--output", "json"]
        );
        assert!(!std::path::Path::new(file).exists(), "{file}");
        assert_eq!(serde_json::from_str::<Value>(sent).unwrap(), payload);
    }
}

#[test]
fn an_error_of_the_function_ends_with_1_and_is_named() {
    let error = json!({"errorType": "IndexNotFound", "errorMessage": "no such index"});
    let desk = Desk::of("prod").answers("aws lambda invoke *", error.to_string());
    let ended = desk.operator(&["re-export", "ACCOUNT=a", "INDEX=i"]);
    assert!(ended.stderr.ends_with("\nIndexNotFound: no such index\n"), "{ended:?}");
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
}

#[test]
fn samples_of_a_stream_are_written_to_no_environment_in_aws() {
    let (ended, desk) = asked(&json!({}), &["invoke-remote", "EVENT=events/stream-insert.json"]);
    assert!(ended.stderr.starts_with("a stream event goes only to a local function"), "{ended:?}");
    assert!(desk.calls().is_empty());
}

#[test]
fn no_name_of_a_key_reaches_a_shell_or_make() {
    let pwned = Desk::new().path("pwned").display().to_string();
    for name in [
        format!("x'; touch {pwned}; echo '"),
        format!("x\"; touch {pwned}; echo \""),
        format!("`touch {pwned}`$(touch {pwned})"),
        format!("$(shell touch {pwned})$$HOME ${{HOME}}"),
        r#"a"b\c, #d"#.to_owned(),
        "=\u{1}".to_owned(),
    ] {
        let (ended, desk) = asked(&json!({}), &["explain", &format!("KEY={name}")]);
        assert_eq!(ended.code, Some(0), "{name}: {ended:?}");
        let payload = json!({"explain": {"key": name, "values": false}}).to_string();
        assert!(desk.calls()[0].ends_with(&payload), "{:?}", desk.calls());
    }
    assert!(!std::path::Path::new(&pwned).exists());
}

fn explained() -> Value {
    let named = |index: &str| json!({"system_account_id": "it's", "index_name": index});
    json!({
        "system_account_id": "it's", "index_name": "main", "item": "exportable",
        "keys": [
            {"key": "s.example\u{202e}\u{1b}[31m", "verdict": "stale", "named": named("main"),
                "source": "stream", "differs": ["pixel_id", "shop_id"], "claimed_by": [named("other")]},
            {"key": "it's-main", "verdict": "missing", "claimed_by": [named("main")]},
        ],
        "pointed_at_by": [named("live")],
    })
}

#[test]
fn explain_shows_a_name_a_line_and_what_to_do_in_the_words_of_the_page() {
    let (ended, _) = asked(&explained(), &["explain", "KEY=s.example"]);
    assert_eq!(
        ended.stdout,
        "index_name: main
item: exportable
keys
  s.example\\u202e\\u001b[31m: stale
    claimed_by
      it's/other
    differs
      pixel_id
      shop_id
    named: it's/main
    source: stream
  it's-main: missing
    claimed_by
      it's/main
pointed_at_by
  it's/live
system_account_id: it's
what to do
  missing: make re-export ACCOUNT='it'\\''s' INDEX=main
  stale: make re-export ACCOUNT='it'\\''s' INDEX=other. If only marqo_api_key differs:
  make reconcile APPLY=true ACCOUNT='it'\\''s', for all indexes of the account.
"
    );
    let (raw, _) = asked(&explained(), &["explain", "KEY=s.example", "RAW=true"]);
    assert!(!raw.stdout.contains('\u{202e}'), "{raw:?}");
    assert_eq!(serde_json::from_str::<Value>(&raw.stdout).unwrap(), explained());
}

/// What trying an item answers, and the file that it is in.
fn tried(breaks: &[&str], words: &[&str]) -> (Ended, Desk) {
    let key = |key: &str, verdict: &str| json!({"key": key, "verdict": verdict, "differs": []});
    let mut stale = key("s.example", "stale");
    stale["differs"] = json!(["pixel_id"]);
    let report = json!({
        "system_account_id": "a", "index_name": "i", "item": "exportable",
        "keys": [stale, key("a-i", "missing"), key("old.example", "orphaned")],
        "pointed_at_by": [{"system_account_id": "b", "index_name": "live"}],
        "targets": [
            {"index_id": "a-v2", "verdict": "right", "points_at": ["a-v3"], "another_account": true},
        ],
        "warning": "the weights sum to 0.5, not to 1.0", "breaks": breaks,
    });
    let desk = Desk::of("prod").answers("aws lambda invoke *", report.to_string());
    let file = desk.path("item.json");
    let item = json!({"Item": {"pk": {"S": "a"}, "sk": {"S": "INDEX#i"}}});
    std::fs::write(&file, item.to_string()).unwrap();
    let ended = desk.operator(&[&["try", &format!("ITEM={}", file.display())], words].concat());
    (ended, desk)
}

#[test]
fn trying_an_item_prints_a_plan_and_ends_with_3_where_something_would_break() {
    let (ended, desk) = tried(&[], &["REMOVED=true"]);
    let plan = "a/i: exportable
  ~ s.example: would be written
      pixel_id
  + a-i: would be written
  - old.example: would be removed
pointed at by
  b/live
points at
  a-v2: right, an alias of a-v3, of another account
warning: the weights sum to 0.5, not to 1.0
";
    assert_eq!((ended.code, &*ended.stdout), (Some(0), plan), "{ended:?}");
    let sent: Value = desk.calls()[0]
        .split_once(" {")
        .map(|(_, sent)| format!("{{{sent}"))
        .unwrap()
        .parse()
        .unwrap();
    let item = json!({"pk": {"S": "a"}, "sk": {"S": "INDEX#i"}});
    assert_eq!(sent, json!({"explain": {"item": item, "removed": true, "values": false}}));

    let (ended, _) = tried(&["the key s.example would be taken from a/other"], &[]);
    let broken = format!("{plan}would break\n  the key s.example would be taken from a/other\n");
    assert_eq!((ended.code, ended.stdout), (Some(3), broken));
    let (raw, _) = tried(&["x"], &["RAW=true"]);
    assert_eq!(raw.code, Some(3));
    assert_eq!(serde_json::from_str::<Value>(&raw.stdout).unwrap()["breaks"], json!(["x"]));
}

#[test]
fn values_are_shown_as_a_diff() {
    let values = json!([
        {"path": "search_config.limit", "held": 20, "wanted": 40},
        {"path": "marqo_api_key", "held": "****", "wanted": "****"},
        {"path": "pixel_id", "wanted": "px\u{202e}"},
    ]);
    let key = json!({"key": "k", "verdict": "stale", "differs": ["search_config.limit"], "values": values});
    let (ended, _) =
        asked(&json!({"item": "exportable", "keys": [key]}), &["explain", "KEY=k", "VALUES=true"]);
    let shown = "  k: stale
    values
      search_config.limit
        - 20
        + 40
      marqo_api_key
        - \"****\"
        + \"****\"
      pixel_id
        + \"px\\u202e\"
";
    assert!(ended.stdout.contains(shown), "{}", ended.stdout);
}

#[test]
fn an_account_is_listed_to_its_end() {
    let keys = json!([{"key": "s.example", "verdict": "missing"}]);
    let index =
        |name: &str| json!({"index_name": name, "item": "rejected", "path": "cell", "keys": keys});
    let first = json!({"system_account_id": "a", "indexes": [index("i")], "continue": "i"});
    let last = json!({"system_account_id": "a", "indexes": [index("j")]});
    let url = serve(move |_, body| {
        let asked: Value = serde_json::from_str(body).unwrap();
        let is_first = asked["explain"].get("continue").is_none();
        if is_first { first.to_string() } else { last.to_string() }
    });
    let desk = Desk::new().with("AWS_ENDPOINT_URL_LAMBDA", url);
    let ended = desk.operator(&["explain", "ACCOUNT=a", "LOCAL=true"]);
    let listed =
        "i: rejected at cell\n  s.example: missing\nj: rejected at cell\n  s.example: missing\n";
    assert_eq!((ended.code, &*ended.stdout), (Some(0), listed), "{ended:?}");
}

#[test]
fn an_index_that_only_an_alias_knows_is_dangling_and_one_that_is_right_needs_nothing() {
    let key = |verdict: &str| json!([{"key": "a-i", "verdict": verdict}]);
    let pointer = json!([{"system_account_id": "a", "index_name": "live"}]);
    let of = |item: &str, verdict: &str| json!({"item": item, "keys": key(verdict)});
    let mut dangling = of("absent", "foreign");
    dangling["pointed_at_by"] = pointer;
    for (report, advice) in [
        (dangling, "dangling: Have"),
        (of("absent", "foreign"), "foreign: Nothing"),
        (of("exportable", "right"), "right: Nothing.\n"),
        (of("rejected", "right"), "rejected: Have the field"),
    ] {
        let (ended, _) = asked(&report, &["explain", "KEY=a-i"]);
        let (_, said) = ended.stdout.split_once("what to do\n  ").unwrap();
        assert!(said.starts_with(advice), "{ended:?}");
    }
}

#[test]
fn the_page_has_a_row_with_advice_for_each_verdict_of_the_reports() {
    let page = include_str!("../../../../docs/runbook/explain.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `"));
    let verdicts: Vec<&str> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split(" | ").collect();
            assert!(cells.len() == 4 && cells[2].len() > 5, "{row}");
            cells[0].trim_end_matches('`')
        })
        .collect();
    let worst_first =
        "conflicting rejected failed missing stale dangling withheld orphaned foreign right";
    assert_eq!(verdicts.join(" "), worst_first);
}
