//! The pages themselves: their queries, the names in them, and what each has to have.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};
use testbed::faults::{Fault, Rule};
use testbed::poller::PollerOptions;
use testbed::stack::SETTINGS;
use testbed::stream::event;

use super::practice::*;
use super::query::*;
use crate::helpers::*;
use crate::printed::{COUNTS, DURATIONS, Printed};

#[tokio::test]
async fn every_query_finds_real_lines_that_have_its_fields() {
    let practice = Practice::start().await;
    // What fails is given up before it is late.
    let options = PollerOptions { maximum_retry_attempts: Some(3), ..PollerOptions::default() };
    let poller = practice.stack.poll(&practice.function, options);
    practice.stack.api_keys.break_cell("down", Fault::status(503));
    // It was exported before it broke, so that it has a receipt.
    practice.put(&poller, [index("a", "broken")]).await;
    let items = [
        index("a", "good"),
        index("a", "kept"),
        index("a", "cell"),
        pointing("a", "live", "a-kept"),
        broken("a", "broken"),
        in_cell("a", "failing", "down"),
        query_config("a", "good", "q", 1),
    ];
    practice.put(&poller, items).await;
    practice.put(&poller, [in_cell("a", "cell", "down")]).await;
    practice.stack.table.delete("a", "INDEX#kept");
    poller.caught_up().await;
    let mut config = written(2, &query_config("a", "broken", "q", 1));
    config["dynamodb"]["NewImage"]["limit"] = json!({"N": "no number"});
    practice.invoke(event([config])).await.unwrap();
    let parked = late(written(1, &in_cell("a", "failing", "down")));
    practice.invoke(event([parked])).await.unwrap();
    practice.stack.kv.delete(SETTINGS, "a-good");
    practice.stack.kv.delete(SETTINGS, "a-kept");
    practice.repair().await;
    practice.repair_account("a").await;
    practice.re_export("a", "missing").await.unwrap_err();
    practice.stack.kv.delete(SETTINGS, "a-good");
    practice.stack.kv.faults().add(Rule::on("PUT", "/settings/bulk", Fault::status(500)).forever());
    practice.repair().await;
    practice.stack.kv.faults().clear();
    practice.stack.kv.faults().add(Rule::on("PUT", "/settings/bulk", Fault::Hang).forever());
    let repair = repair();
    let stopped = practice.function.invoke_within(&repair, Duration::from_secs(4)).await.unwrap();
    assert_eq!(stopped.result.unwrap()["complete"], false);

    let holds = Practice::on(practice.stack.clone(), &[("REMOVALS_UP_TO", "0")]).await;
    holds.invoke(event([removed(3, "a", "INDEX#gone")])).await.unwrap();

    let mut lines = Printed::of(&practice.function.logs()).lines;
    lines.extend(Printed::of(&holds.function.logs()).lines);
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

/// The pages, by their names.
fn pages() -> BTreeMap<String, String> {
    let folder = format!("{}/docs/runbook", env!("CARGO_MANIFEST_DIR"));
    let names = std::fs::read_dir(folder).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| (name.clone(), text_of(&format!("docs/runbook/{name}")))).collect()
}

/// All pages in one line.
fn joined() -> String {
    pages().into_values().collect::<String>().replace('\n', " ")
}

#[test]
fn each_alarm_has_a_page_that_says_what_it_means_whom_it_hurts_and_what_to_do() {
    let pages = pages();
    let (_, index) = pages["README.md"].split_once("| it rings").unwrap();
    let template = text_of("template.yaml");
    let alarms = template.split("AlarmName: !Sub ${Environment}-ecom-settings-exporter-").skip(1);
    let mut found = 0;
    for alarm in alarms {
        let name = alarm.lines().next().unwrap();
        let page = &pages[&format!("{name}.md")];
        assert!(page.starts_with(&format!("# {name}\n")), "{name}");
        for part in ["**Means.**", "**Hurts**", "**Look.**", "**Do.**", "**Wake**"] {
            // A table of what shows has what to do in it.
            let there = page.contains(part) || part == "**Do.**" && page.contains("| do |");
            assert!(there, "{part} in {name}");
        }
        let now = !alarm.split("AlarmName").next().unwrap().contains("HasNoticeTopic");
        let row = index.lines().find(|row| row.contains(&format!("[{name}]({name}.md)")));
        assert_eq!(row.unwrap().starts_with("| **["), now, "{name}");
        found += 1;
    }
    assert!(found > 15, "{found}");
}

#[test]
fn the_index_leads_to_every_page_fits_a_screen_and_all_pages_are_short() {
    let pages = pages();
    let index = &pages["README.md"];
    assert!(index.lines().count() <= 65, "{}", index.lines().count());
    for name in pages.keys().filter(|name| *name != "README.md") {
        let linked = pages.iter().any(|(other, page)| {
            other != name
                && page.contains(&format!("]({name}"))
                && index.contains(&format!("]({other}"))
        });
        assert!(linked || index.contains(&format!("]({name})")), "{name} is two links away");
    }
    let words: usize = pages.values().map(|page| page.split_whitespace().count()).sum();
    assert!(words <= 6_000, "{words}");
}

#[test]
fn the_pages_name_the_graphs_parameters_and_commands_that_there_are() {
    let joined = joined();
    let template = text_of("template.yaml");
    let makefile = text_of("Makefile");
    let titles: Vec<&str> = template
        .split(r#""title": ""#)
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .collect();
    let graphs: Vec<&str> = joined
        .split('*')
        .filter(|part| {
            part.ends_with('?') && part.len() < 60 && part.starts_with(char::is_uppercase)
        })
        .collect();
    assert!(graphs.len() > 5, "{graphs:?}");
    for graph in graphs {
        assert!(titles.iter().any(|title| title.starts_with(graph)), "{graph}: {titles:?}");
    }
    for command in joined.split("`make ").skip(1) {
        let letter = |letter: &char| letter.is_ascii_lowercase() || *letter == '-';
        let target: String = command.chars().take_while(letter).collect();
        assert!(makefile.contains(&format!("\n{target}: ")), "make {target}");
    }
    for parameters in joined.split("PARAMETERS=\"").skip(1) {
        let quoted = parameters.split('"').next().unwrap();
        for parameter in quoted.split([' ', '\'']).filter_map(|word| word.split_once('=')) {
            let name = parameter.0;
            assert!(template.contains(&format!("\n  {name}:\n    Type:")), "{name}");
        }
    }
}

#[test]
fn every_output_that_commands_ask_the_stack_for_is_one_of_the_template() {
    let template = text_of("template.yaml");
    let outputs = template.split("\nOutputs:\n").nth(1).unwrap();
    let texts = joined() + &text_of("Makefile");
    let asked = texts.split("operations/stack-output ").skip(1);
    let asked: BTreeSet<&str> = asked
        .map(|rest| rest.split(|letter: char| !letter.is_alphanumeric()).next().unwrap())
        .chain(["FunctionName", "StateMachineArn", "StreamMappingId", "OnFailureQueueUrl"])
        .collect();
    for output in asked {
        assert!(outputs.contains(&format!("  {output}:\n")), "{output}");
    }
}

#[test]
fn every_metric_is_explained_and_none_that_there_is_not() {
    let page = text_of("docs/metrics.md");
    let explained: BTreeSet<&str> =
        page.lines().filter_map(|row| row.strip_prefix("| `")?.split('`').next()).collect();
    let known = COUNTS.iter().chain(DURATIONS).copied().collect();
    assert_eq!(explained, known);
}
