//! The templates: what runs, and what watches it.

use std::collections::{BTreeMap, BTreeSet};

use super::alarms::mapping;
use crate::printed::{COUNTS, DURATIONS};

const EXPORTER: &str = "template.yaml";
pub const ALARMS: &str = "operations/alarms.yaml";

pub fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The names of all `EcomSettingsExporter` metrics in the template of the alarms.
fn metrics_of_the_template() -> BTreeSet<String> {
    let template = read(ALARMS);
    let lines: Vec<&str> = template.lines().map(str::trim).collect();
    let alarms = lines.windows(2).filter_map(|pair| {
        (pair[0] == "Namespace: EcomSettingsExporter")
            .then(|| pair[1].strip_prefix("MetricName: "))?
            .filter(|name| !name.starts_with('!'))
    });
    let (mappings, resources) = template.split_once("\nResources:\n").unwrap();
    let rows = mappings.split(" Metric: ").skip(1);
    let rows = rows.filter_map(|rest| rest.split([',', '\n']).next());
    let graphs = resources.split(r#"["EcomSettingsExporter", ""#).skip(1);
    let graphs = graphs.filter_map(|rest| rest.split('"').next());
    let dimension = r#""Environment", "${Environment}""#;
    let of_dimension = resources.matches(dimension).count();
    assert_eq!(of_dimension, resources.matches(r#"["EcomSettingsExporter", ""#).count());
    alarms.chain(rows).chain(graphs).map(str::to_owned).collect()
}

/// The resources of a type that a template writes out, by logical id.
pub fn resources(template: &str, kind: &str) -> BTreeMap<String, String> {
    let template = read(template);
    let resources = template.split("\nResources:\n").nth(1).unwrap();
    let resources = resources.split("\nOutputs:\n").next().unwrap();
    let mut found = BTreeMap::new();
    let mut lines = resources.lines().peekable();
    while let Some(line) = lines.next() {
        let id = line.strip_prefix("  ").and_then(|line| line.strip_suffix(':'));
        let Some(id) = id.filter(|id| id.chars().all(char::is_alphanumeric)) else { continue };
        let mut body = String::new();
        while let Some(line) = lines.next_if(|line| line.is_empty() || line.starts_with("   ")) {
            body += line;
            body.push('\n');
        }
        if body.contains(&format!("Type: {kind}\n")) {
            found.insert(id.to_owned(), body);
        }
    }
    found
}

#[test]
fn the_template_watches_every_metric_of_the_function_and_no_other() {
    let known: BTreeSet<String> =
        COUNTS.iter().chain(DURATIONS).map(|name| (*name).to_owned()).collect();

    assert_eq!(metrics_of_the_template(), known);
}

#[test]
fn the_alarms_on_slow_changes_ring_before_the_promise_is_broken() {
    const PROMISE: u64 = 150;
    let template = read(ALARMS);
    let rows = template.split("\n  Promise:\n").nth(1).unwrap().lines();
    let mut ttls = Vec::new();
    for row in rows.take_while(|row| row.starts_with("    \"")) {
        let numbers: Vec<u64> = row
            .split(|letter: char| !letter.is_ascii_digit())
            .filter_map(|number| number.parse().ok())
            .collect();
        let [ttl, left, alarm] = numbers[..] else { panic!("{row}") };
        assert_eq!(left, (PROMISE - ttl) * 1000, "{row}");
        assert_eq!(alarm, left * 2 / 3, "{row}");
        ttls.push(format!("\"{ttl}\""));
    }
    let parameter = template.split("\n  ProxyCacheTtl:\n").nth(1).unwrap();
    assert!(parameter.contains(&format!("AllowedValues: [{}]", ttls.join(", "))), "{ttls:?}");
    let alarm = &resources(ALARMS, "AWS::CloudWatch::Alarm")["ChangesLateAlarm"];
    assert!(alarm.contains("Threshold: !FindInMap [Promise, !Ref ProxyCacheTtl, Alarm]"));
}

/// Lambda takes a line without a level for INFO, and the metrics are such lines.
#[test]
fn the_log_level_drops_no_metrics() {
    assert!(read(EXPORTER).contains("ApplicationLogLevel: INFO\n"));
}

#[test]
fn the_saved_queries_are_those_of_the_runbook_word_for_word() {
    let of_the_runbook: BTreeMap<String, String> = read("docs/runbook/queries.md")
        .split("\n## ")
        .skip(1)
        .map(|part| {
            let name = part.lines().next().unwrap().to_owned();
            (name, part.split("```").nth(1).unwrap().trim().to_owned())
        })
        .collect();
    let queries = mapping("Queries").into_iter();
    let text = |body: &str| body.split_once("Text: |\n").unwrap().1.trim().to_owned();
    let saved: BTreeMap<String, String> = queries.map(|(name, body)| (name, text(&body))).collect();
    assert_eq!(saved.len(), 7);
    assert_eq!(saved, of_the_runbook);
}

/// The loops list what the mappings have: a row that no loop names would be no alarm.
#[test]
fn every_row_of_a_mapping_is_a_resource() {
    let template = read(ALARMS);
    for name in ["Alarms", "Shares", "Queries"] {
        let looped = template.split(&format!("Fn::ForEach::{name}:\n    - Name\n    - ")).nth(1);
        let looped = looped.unwrap().split("\n    - \"&").next().unwrap();
        let words = looped.split(|letter: char| letter.is_whitespace() || "[],".contains(letter));
        let looped: Vec<&str> = words.filter(|word| !["", "-"].contains(word)).collect();
        let rows = mapping(name);
        assert_eq!(rows.iter().map(|(row, _)| row.as_str()).collect::<Vec<_>>(), looped, "{name}");
    }
}

#[test]
fn a_release_publishes_the_next_version_and_no_update_moves_the_live_one() {
    let exporter = &resources(EXPORTER, "AWS::Serverless::Function")["Exporter"];
    assert!(exporter.contains("AutoPublishCodeSha256: !Ref Release\n"), "{exporter}");
    assert!(exporter.contains("AutoPublishAlias: next\n"), "{exporter}");
    // CloudFormation touches a resource only where its properties change.
    let live = &resources(EXPORTER, "AWS::Lambda::Alias")["Live"];
    let constant =
        "      FunctionName: !Ref Exporter\n      Name: live\n      FunctionVersion: $LATEST\n";
    assert!(live.trim_end().ends_with(constant.trim_end()), "{live}");
    let mapping = &resources(EXPORTER, "AWS::Lambda::EventSourceMapping")["ExporterStream"];
    assert!(mapping.contains("FunctionName: !Ref Live\n"), "{mapping}");
    let machine = &resources(EXPORTER, "AWS::Serverless::StateMachine")["Reconcile"];
    assert!(machine.contains("LiveArn: !Ref Live\n"), "{machine}");
    assert!(machine.contains("NextArn: !Ref Exporter.Alias\n"), "{machine}");
}

/// CloudFormation takes 51,200 bytes without one.
#[test]
fn the_templates_need_no_bucket() {
    for template in [EXPORTER, ALARMS] {
        assert!(read(template).len() < 51_200, "{template}: {}", read(template).len());
    }
}

/// Whoever may send a template, or write to the bucket, becomes a deployer with the next deployment.
#[test]
fn on_call_may_change_no_template_no_zip_and_read_nothing_of_others() {
    let policy = &resources(EXPORTER, "AWS::IAM::ManagedPolicy")["OnCallPolicy"];
    for right in
        ["UpdateStack", "ChangeSet", "s3:", "UpdateFunction", "GetTemplate", "GetSecretValue"]
    {
        assert!(!policy.contains(right), "{right}");
    }
    let (_, around) = policy.split_once("Sid: LookAround").unwrap();
    assert_eq!(policy.matches("Resource: \"*\"").count(), 1, "{policy}");
    let around = around.split("Sid:").next().unwrap();
    assert!(around.contains("Resource: \"*\""), "{around}");
    for reads in ["lambda:", "cloudformation:", "logs:Filter", "states:"] {
        assert!(!around.contains(reads), "{reads}");
    }
}

/// `operations/stack.py` publishes a version for every other parameter.
#[test]
fn what_publishes_no_version_when_it_changes_is_no_part_of_the_function() {
    let program = read("operations/stack.py");
    let set = program.split("NOT_OF_THE_FUNCTION = {").nth(1).unwrap();
    let named: BTreeSet<&str> =
        set.split('}').next().unwrap().split('"').skip(1).step_by(2).collect();
    assert!(named.len() > 7, "{named:?}");
    // A version has its own value of everything but these.
    let of_no_version = ["ReservedConcurrentExecutions: ", "AutoPublish", "VersionDescription: "];
    let exporter = resources(EXPORTER, "AWS::Serverless::Function").remove("Exporter").unwrap();
    let exporter =
        exporter.lines().filter(|line| !of_no_version.iter().any(|part| line.contains(part)));
    let exporter: String = exporter.collect();
    for name in named {
        assert!(read(EXPORTER).contains(&format!("\n  {name}:\n    Type:")), "{name}");
        assert!(!exporter.contains(name), "{name}");
    }
}
