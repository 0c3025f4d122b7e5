//! The texts of the template's alarms.

const TEMPLATE: &str = include_str!("../../../../template.yaml");
const RUNBOOK: &str = "docs/runbook";

/// An alarm as it reaches the person on call. It needs to be one of the template's.
pub(super) fn alarm(name: &str) -> String {
    let name = format!("${{Environment}}-ecom-settings-exporter-{name}");
    let text = text(&name).unwrap_or_else(|| panic!("the template has no alarm {name}"));
    let text = text.replace("${RunbookUrl}", RUNBOOK);
    format!("{}\n  {text}\n", name.replace("${Environment}", "local"))
}

fn text(name: &str) -> Option<&'static str> {
    let after = TEMPLATE.split_once(&format!("AlarmName: !Sub {name}\n"))?.1;
    after.split_once("AlarmDescription: !Sub ")?.1.lines().next()
}
