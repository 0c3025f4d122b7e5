//! What the template watches.

use std::collections::{BTreeMap, BTreeSet};

use crate::printed::{COUNTS, DURATIONS};

pub fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The names of all `EcomSettingsExporter` metrics in the template.
fn metrics_of_the_template() -> BTreeSet<String> {
    let template = read("template.yaml");
    let lines: Vec<&str> = template.lines().map(str::trim).collect();
    let alarms = lines.windows(2).filter_map(|pair| {
        (pair[0] == "Namespace: EcomSettingsExporter")
            .then(|| pair[1].strip_prefix("MetricName: "))?
    });
    let graphs = template.split(r#"["EcomSettingsExporter", ""#).skip(1);
    let graphs = graphs.filter_map(|rest| rest.split('"').next());
    let dimension = r#""Environment", "${Environment}""#;
    let of_dimension = template.matches(dimension).count();
    assert_eq!(of_dimension, template.matches(r#"["EcomSettingsExporter", ""#).count());
    alarms.chain(graphs).map(str::to_owned).collect()
}

/// The resources of a type, by logical id.
pub fn resources(kind: &str) -> BTreeMap<String, String> {
    let template = read("template.yaml");
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
fn the_dashboard_shows_every_alarm() {
    let template = read("template.yaml");
    let shown = template.split(r#""alarms": ["#).nth(1).unwrap().split(']').next().unwrap();
    let shown: BTreeSet<&str> =
        shown.split("${").skip(1).filter_map(|rest| rest.split(".Arn}").next()).collect();
    let alarms = resources("AWS::CloudWatch::Alarm");
    assert_eq!(shown, alarms.keys().map(String::as_str).collect());
}

#[test]
fn the_alarms_on_slow_changes_ring_before_the_promise_is_broken() {
    const PROMISE: u64 = 150;
    let template = read("template.yaml");
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
    let alarm = &resources("AWS::CloudWatch::Alarm")["ChangesLateAlarm"];
    assert!(alarm.contains("Threshold: !FindInMap [Promise, !Ref ProxyCacheTtl, Alarm]"));
}

/// Lambda takes a line without a level for INFO, and the metrics are such lines.
#[test]
fn the_log_level_drops_no_metrics() {
    assert!(read("template.yaml").contains("ApplicationLogLevel: INFO\n"));
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
    let saved: BTreeMap<String, String> = resources("AWS::Logs::QueryDefinition")
        .values()
        .map(|body| {
            assert!(body.contains("LogGroupNames: [!Ref ExporterLogGroup]"), "{body}");
            let (head, text) = body.split_once("QueryString: |\n").unwrap();
            let name = head.split("ecom-settings-exporter/").nth(1).unwrap();
            let lines: Vec<&str> = text.trim_end().lines().map(str::trim).collect();
            (name.lines().next().unwrap().to_owned(), lines.join("\n"))
        })
        .collect();
    assert_eq!(saved.len(), 7);
    assert_eq!(saved, of_the_runbook);
}

#[test]
fn a_release_publishes_the_next_version_and_a_parameter_says_which_one_is_live() {
    let exporter = &resources("AWS::Serverless::Function")["Exporter"];
    assert!(exporter.contains("AutoPublishCodeSha256: !Ref Release\n"), "{exporter}");
    assert!(exporter.contains("AutoPublishAlias: next\n"), "{exporter}");
    let live = &resources("AWS::Lambda::Alias")["ExporterAliaslive"];
    assert!(live.contains("FunctionVersion: !If [HasLiveVersion, !Ref LiveVersion, "), "{live}");
    let mapping = &resources("AWS::Lambda::EventSourceMapping")["ExporterStream"];
    assert!(mapping.contains("FunctionName: !Ref ExporterAliaslive\n"), "{mapping}");
    let machine = &resources("AWS::Serverless::StateMachine")["Reconcile"];
    assert!(machine.contains("LiveArn: !Ref ExporterAliaslive\n"), "{machine}");
    assert!(machine.contains("NextArn: !Ref Exporter.Alias\n"), "{machine}");
}

/// `operations/stack.py` publishes a version for every other parameter.
#[test]
fn what_publishes_no_version_when_it_changes_is_no_part_of_the_function() {
    let program = read("operations/stack.py");
    let set = program.split("NOT_OF_THE_FUNCTION = {").nth(1).unwrap();
    let named: BTreeSet<&str> =
        set.split('}').next().unwrap().split('"').skip(1).step_by(2).collect();
    assert!(named.len() > 8, "{named:?}");
    // A version has its own value of everything but these.
    let of_no_version = ["ReservedConcurrentExecutions: ", "AutoPublish", "VersionDescription: "];
    let exporter = resources("AWS::Serverless::Function").remove("Exporter").unwrap();
    let exporter =
        exporter.lines().filter(|line| !of_no_version.iter().any(|part| line.contains(part)));
    let exporter: String = exporter.collect();
    for name in named {
        assert!(read("template.yaml").contains(&format!("\n  {name}:\n    Type:")), "{name}");
        assert!(!exporter.contains(name), "{name}");
    }
}
