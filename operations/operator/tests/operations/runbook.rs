//! The commands of the runbook's pages, run as they stand there.

use std::collections::BTreeSet;

use serde_json::json;

use crate::desk::Desk;

/// The commands of the operator's program. The others are parts of a deployment.
const COMMANDS: &str = "doctor explain follow history re-export reconcile status stop-reconciles";

fn pages() -> Vec<String> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/runbook");
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// What stands between pairs of backticks, and in the lines of blocks.
fn code(page: &str) -> impl Iterator<Item = &str> {
    let blocks = page.split("```").skip(1).step_by(2).flat_map(str::lines);
    let inline = page.split("```").step_by(2).flat_map(|text| text.split('`').skip(1).step_by(2));
    blocks.chain(inline)
}

fn desk() -> Desk {
    let report = json!({"complete": true, "settings": {"listed": 1}, "query_configs": {}});
    let ended = json!({"type": "ExecutionSucceeded",
        "executionSucceededEventDetails": {"output": report.to_string()}});
    Desk::of("prod")
        .answers("aws lambda invoke *", "{}")
        .answers("aws stepfunctions start-execution *", r#"{"executionArn": "arn:1"}"#)
        .answers(
            "aws stepfunctions get-execution-history *",
            json!({"events": [ended]}).to_string(),
        )
        .answers("*list-executions *", r#"{"executions": [{"executionArn": "arn:1"}]}"#)
        .answers("aws stepfunctions stop-execution *", "")
        .answers("aws logs start-query *", r#"{"queryId": "q"}"#)
        .answers("aws logs get-query-results *", r#"{"status": "Complete", "results": []}"#)
        .answers("* --output text", "fine")
}

#[test]
fn every_command_of_a_page_runs_as_it_stands_there() {
    let pages = pages();
    let commands: BTreeSet<String> = pages
        .iter()
        .flat_map(|page| code(page))
        .filter(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some("make")
                && words
                    .next()
                    .is_some_and(|word| COMMANDS.split(' ').any(|command| command == word))
        })
        // A sentence that only names one of those that need to be told an index.
        .filter(|line| !["make explain", "make history", "make re-export"].contains(line))
        // Those for the local stack need one.
        .filter(|line| !line.contains("LOCAL=true"))
        // What only the person knows.
        .map(|line| line.trim().replace("=n", "=7").replace('…', "x"))
        .collect();
    assert!(commands.len() >= 15, "{commands:?}");
    let desk = desk();
    for command in &commands {
        let made = desk.shell(command);
        assert_eq!(made.code, Some(0), "{command}: {made:?}");
    }
}

#[test]
fn every_block_of_a_page_is_a_shells() {
    let mut blocks = 0;
    for page in pages() {
        for block in page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap()) {
            let made = Desk::new().shell(&format!("sh -n <<'END'\n{block}\nEND"));
            assert_eq!(made.code, Some(0), "{block}: {made:?}");
            blocks += 1;
        }
    }
    assert!(blocks > 5, "{blocks}");
}
