//! The metrics that the template watches.

use std::collections::BTreeSet;

use crate::printed::{COUNTS, DURATIONS};

/// The names of all `EcomSettingsExporter` metrics in the template.
fn metrics_of_the_template() -> BTreeSet<String> {
    let template =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/template.yaml")).unwrap();
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

#[test]
fn the_template_watches_every_metric_of_the_function_and_no_other() {
    let known: BTreeSet<String> =
        COUNTS.iter().chain(DURATIONS).map(|name| (*name).to_owned()).collect();

    assert_eq!(metrics_of_the_template(), known);
}
