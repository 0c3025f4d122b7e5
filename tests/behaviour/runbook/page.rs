//! The page itself: its queries, the names in it, and its links.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::stack::SETTINGS;
use testbed::stream::event;

use super::practice::*;
use super::query::*;
use crate::helpers::*;
use crate::printed::Printed;

#[tokio::test]
async fn every_query_finds_real_lines_that_have_its_fields() {
    let practice = Practice::start().await;
    let poller = practice.poll();
    practice.stack.api_keys.break_cell("down", Fault::status(503));
    let items = [
        index("a", "good"),
        index("a", "kept"),
        index("a", "cell"),
        index_with("a", "live", json!({"read_alias": "a-kept"})),
        index_with("a", "broken", json!({"index_endpoint": 7})),
        index_with("a", "failing", json!({"cell": "down"})),
        query_config("a", "good", "q", 1),
    ];
    practice.put(&poller, items).await;
    practice.put(&poller, [index_with("a", "cell", json!({"cell": "down"}))]).await;
    practice.stack.table.delete("a", "INDEX#kept");
    poller.caught_up().await;
    let mut config = written(2, &query_config("a", "broken", "q", 1));
    config["dynamodb"]["NewImage"]["limit"] = json!({"N": "no number"});
    practice.invoke(event([config])).await.unwrap();
    let parked = late(written(1, &index_with("a", "failing", json!({"cell": "down"}))));
    practice.invoke(event([parked])).await.unwrap();
    practice.stack.kv.delete(SETTINGS, "a-good");
    practice.stack.kv.delete(SETTINGS, "a-kept");
    practice.repair().await;
    practice.repair_account("a").await;
    practice.re_export("a", "missing").await.unwrap_err();
    practice.stack.kv.delete(SETTINGS, "a-good");
    practice.stack.kv.faults().add(Rule::on("PUT", "/settings/bulk", Fault::Hang).forever());
    let repair = json!({"reconcile": {"apply": true}});
    let stopped = practice.function.invoke_within(&repair, Duration::from_secs(4)).await.unwrap();
    assert_eq!(stopped.result.unwrap()["complete"], false);

    let mut lines = Printed::of(&practice.function.logs()).lines;
    lines.extend(ends());
    let template = text_of("template.yaml");
    let widget = template.lines().find_map(|line| line.trim().strip_prefix(r#""query": ""#));
    let widget = Query::parse("the dashboard's table", widget.unwrap());
    let queries = queries();
    assert!(queries.len() >= 7, "{queries:?}");
    for query in queries.into_iter().chain([widget]).map(|query| query.about("a", "broken")) {
        let matching: Vec<&Value> = lines.iter().filter(|line| query.matches(line)).collect();
        assert!(!matching.is_empty(), "{} finds nothing", query.name);
        for name in &query.fields {
            let there = matching.iter().any(|line| field(line, name).is_some());
            assert!(there, "{} asks for {name}, which no line has: {matching:#?}", query.name);
        }
        for (name, values) in query.filter.iter().flatten() {
            for value in values {
                let there = matching
                    .iter()
                    .any(|line| field(line, name).is_some_and(|found| found == value.as_str()));
                assert!(there, "{} filters {name} by {value}, which no line has", query.name);
            }
        }
    }
}

/// Lines about invocations that did not end by themselves: Lambda's own, as its documentation shows
/// them, and that of a panic. Nothing here writes them.
fn ends() -> Vec<Value> {
    let line = |status: &str, error: &str| {
        json!({"time": "2026-11-22T10:00:00.000Z", "type": "platform.report", "record": {
            "requestId": "1", "status": status, "errorType": error,
            "metrics": {"maxMemoryUsedMB": 256},
        }})
    };
    vec![
        line("timeout", "Sandbox.Timedout"),
        line("error", "Runtime.OutOfMemory"),
        line("failure", "Runtime.ExitError"),
        json!({"level": "ERROR", "message": "panic", "place": "src/main.rs:1:1"}),
    ]
}

#[test]
fn the_runbook_names_the_alarms_graphs_parameters_and_commands_that_there_are() {
    let runbook = text_of("docs/runbook.md");
    let template = text_of("template.yaml");
    let makefile = text_of("Makefile");
    let alarms: BTreeSet<&str> = template
        .lines()
        .filter_map(|line| {
            line.trim().strip_prefix("AlarmName: !Sub ${Environment}-ecom-settings-exporter-")
        })
        .collect();
    let table =
        runbook.split("## From alarm to symptom").nth(1).unwrap().split("\n## ").next().unwrap();
    let named: BTreeSet<&str> =
        table.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next()).collect();
    assert_eq!(named, alarms);

    let titles: Vec<&str> = template
        .split(r#""title": ""#)
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    let joined = runbook.replace('\n', " ");
    let graphs: Vec<&str> = joined
        .split('*')
        .filter(|part| {
            part.ends_with('?') && part.len() < 60 && part.starts_with(char::is_uppercase)
        })
        .collect();
    assert!(graphs.len() > 10, "{graphs:?}");
    for graph in graphs {
        assert!(titles.iter().any(|title| title.starts_with(graph)), "{graph}: {titles:?}");
    }

    for command in joined.split("make ").skip(1) {
        let target: String = command
            .chars()
            .take_while(|letter| letter.is_ascii_lowercase() || *letter == '-')
            .collect();
        let known = makefile.contains(&format!("\n{target}: "))
            || makefile.contains(&format!("\n{target}:\n"));
        // The word "make" occurs in sentences too.
        let code = joined.contains(&format!("`make {target}"))
            || joined.contains(&format!("  make {target} "));
        assert!(known || !code, "make {target}");
    }
    for parameters in joined.split("PARAMETERS=\"").skip(1) {
        let quoted = parameters.split('"').next().unwrap();
        for parameter in quoted.split([' ', '\'']).filter_map(|word| word.split_once('=')) {
            let name = parameter.0;
            assert!(
                name == "Name" || template.contains(&format!("\n  {name}:\n    Type:")),
                "{name}"
            );
        }
    }
}

#[test]
fn every_output_that_commands_ask_the_stack_for_is_one_of_the_template() {
    let template = text_of("template.yaml");
    let outputs = template.split("\nOutputs:\n").nth(1).unwrap();
    let pages = ["docs/runbook.md", "Makefile", "operations/rollback"];
    let texts = pages.map(text_of).join("\n");
    let asked: BTreeSet<&str> = texts
        .split("operations/stack-output ")
        .skip(1)
        .map(|rest| rest.split(|letter: char| !letter.is_alphanumeric()).next().unwrap())
        .collect();
    assert!(asked.len() >= 4, "{asked:?}");
    for output in asked {
        assert!(outputs.contains(&format!("  {output}:\n")), "{output}");
    }
}

#[test]
fn every_link_in_the_runbook_leads_to_a_heading() {
    let runbook = text_of("docs/runbook.md");
    let anchor = |heading: &str| -> String {
        let letters = heading.to_lowercase().replace(' ', "-");
        letters.chars().filter(|letter| letter.is_alphanumeric() || *letter == '-').collect()
    };
    let anchors: BTreeSet<String> = runbook
        .lines()
        .filter(|line| line.starts_with("##"))
        .map(|line| anchor(line.trim_start_matches(['#', ' '])))
        .collect();
    for link in runbook.split("](#").skip(1) {
        let link = link.split(')').next().unwrap();
        assert!(anchors.contains(link), "{link}");
    }
}
