//! The alarms, evaluated as CloudWatch's documentation says: each rings for its own event, and no two for one.

use std::collections::{BTreeMap, BTreeSet};

use super::template::{ALARMS, read, resources};

/// An alarm with the template's defaults.
struct Alarm {
    name: String,
    topic: String,
    /// The metrics by the ids of the expression, or the only one as `value`.
    metrics: BTreeMap<String, String>,
    expression: Option<String>,
    statistic: String,
    operator: String,
    threshold: f64,
    periods: usize,
    points: usize,
    missing: String,
}

/// What stands in a line of YAML after a name, with quotes removed.
fn after<'a>(body: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("{name}: ");
    body.lines()
        .find_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(&*start))
        .map(|text| text.trim_matches('"'))
}

/// The entries of a mapping of the template, by name: the fields of each are lines of its body.
pub fn mapping(name: &str) -> Vec<(String, String)> {
    let template = read(ALARMS);
    let text = template.split(&format!("\n  {name}:\n")).nth(1).unwrap();
    let mut entries: Vec<(String, String)> = Vec::new();
    let lines = text.lines().take_while(|line| line.starts_with("    "));
    for line in lines.filter(|line| !line.trim().starts_with('#')) {
        match line.strip_prefix("    ").unwrap().split_once(':') {
            Some((entry, fields)) if !entry.starts_with(' ') => {
                let fields = fields.trim().trim_start_matches("{ ").trim_end_matches(" }");
                let (fields, text) = fields.split_once("Text: ").unwrap_or((fields, ""));
                let fields = fields.replace(", ", "\n");
                entries.push((entry.to_owned(), format!("{fields}\nText: {text}\n")));
            }
            _ => entries.last_mut().unwrap().1.push_str(&format!("{}\n", line.trim())),
        }
    }
    entries
}

/// The alarms of one metric, those on shares, and those that are written out.
fn alarms() -> Vec<Alarm> {
    let of_one_metric = mapping("Alarms").into_iter().map(|(name, row)| {
        let field = |name| after(&row, name).unwrap().to_owned();
        let times = field("Times").parse().unwrap();
        let kinds = mapping("Kinds");
        let kind = &kinds.iter().find(|(kind, _)| *kind == field("Kind")).unwrap().1;
        Alarm {
            topic: field("Topic"),
            metrics: BTreeMap::from([("value".to_owned(), field("Metric"))]),
            expression: None,
            statistic: after(kind, "Statistic").unwrap().to_owned(),
            operator: "GreaterThanOrEqualToThreshold".to_owned(),
            threshold: field("AtLeast").parse().unwrap(),
            periods: times,
            points: times,
            missing: after(kind, "Missing").unwrap().to_owned(),
            name,
        }
    });
    let on_shares = mapping("Shares").into_iter().map(|(name, row)| {
        let field = |name| after(&row, name).unwrap().to_owned();
        let metrics = [("found", field("Metric")), ("desired", "KeysDesired".to_owned())];
        Alarm {
            topic: "page".to_owned(),
            metrics: metrics.map(|(id, metric)| (id.to_owned(), metric)).into(),
            expression: Some(field("Expression")),
            statistic: field("Statistic"),
            operator: "GreaterThanOrEqualToThreshold".to_owned(),
            threshold: 1.0,
            periods: 1,
            points: 1,
            missing: "ignore".to_owned(),
            name,
        }
    });
    of_one_metric.chain(on_shares).chain(written_out()).collect()
}

fn written_out() -> impl Iterator<Item = Alarm> {
    resources(ALARMS, "AWS::CloudWatch::Alarm").into_values().map(|body| {
        let field = |name| after(&body, name).map(str::to_owned);
        let number = |text: String| match text.as_str() {
            "!FindInMap [Promise, !Ref ProxyCacheTtl, Alarm]" => 60_000.0,
            "!FindInMap [EveryMinutes, !Ref ReconcileEveryMinutes, InADay]" => 96.0,
            text => text.parse::<f64>().unwrap(),
        };
        let name = field("AlarmName").unwrap();
        let name = name.split_once("ecom-settings-exporter-").unwrap().1.to_owned();
        let text = field("AlarmDescription").unwrap();
        assert!(text.ends_with(&format!(" ${{RunbookUrl}}/{name}.md")), "{text}");
        let metrics = match body.split_once("Metrics:\n") {
            None => BTreeMap::from([("value".to_owned(), field("MetricName").unwrap())]),
            Some((_, metrics)) => {
                let parts = metrics.split("- Id: ").skip(2);
                let one = |part: &str| {
                    let id = part.lines().next().unwrap();
                    (id.to_owned(), after(part, "MetricName").unwrap().to_owned())
                };
                parts.map(one).collect()
            }
        };
        let periods = number(field("EvaluationPeriods").unwrap()) as usize;
        let points = field("DatapointsToAlarm").map_or(periods, |points| number(points) as usize);
        Alarm {
            topic: if body.contains("NoticeTopicArn") { "notice" } else { "page" }.to_owned(),
            metrics,
            expression: field("Expression"),
            statistic: field("Statistic").or(field("Stat")).unwrap(),
            operator: field("ComparisonOperator").unwrap(),
            threshold: number(field("Threshold").unwrap()),
            periods,
            points,
            missing: field("TreatMissingData").unwrap(),
            name,
        }
    })
}

/// The values of metrics, one for each period of the alarm that watches them.
type Series = BTreeMap<&'static str, Vec<f64>>;

impl Alarm {
    /// The value in one period, if there is one. The template's expressions, by hand.
    fn value(&self, series: &Series, period: usize) -> Option<f64> {
        let of = |id: &str| series.get(&*self.metrics[id])?.get(period).copied();
        let filled = |id: &str| of(id).unwrap_or(0.0);
        let is_tenth = |found: f64, desired: f64| found >= 10.0 && found * 10.0 >= desired;
        let Some(expression) = &self.expression else {
            return if self.statistic == "SampleCount" {
                of("value").map(|_| 1.0)
            } else {
                of("value")
            };
        };
        match expression.as_str() {
            "MAX([FILL(waiting, 0), FILL(lag, 0)])" => Some(filled("waiting").max(filled("lag"))),
            "FILL(delivered, 0) + FILL(dropped, 0) + FILL(undelivered, 0)" => {
                Some(filled("delivered") + filled("dropped") + filled("undelivered"))
            }
            "IF(found >= 1000 || found == desired || (found >= 10 && found * 10 >= desired), found, 0)" =>
            {
                let (found, desired) = (of("found")?, of("desired")?);
                let many = found >= 1000.0 || found == desired || is_tenth(found, desired);
                Some(if many { found } else { 0.0 })
            }
            "IF(desired == 0 || (found >= 10 && found * 10 >= desired), found, 0)" => {
                let (found, desired) = (of("found")?, of("desired")?);
                Some(if desired == 0.0 || is_tenth(found, desired) { found } else { 0.0 })
            }
            "IF(found > 100 && found * 50 > FILL(desired, 0), found, 0)" => {
                let found = of("found")?;
                let many = found > 100.0 && found * 50.0 > filled("desired");
                Some(if many { found } else { 0.0 })
            }
            "IF(FILL(refused, 0) > 0 || (FILL(rewritten, 0) > 100 && FILL(rewritten, 0) * 50 > FILL(desired, 0)) || (FILL(missing, 0) >= 10 && FILL(missing, 0) * 10 >= FILL(desired, 0)), 0, drifted)" =>
            {
                let missing = is_tenth(filled("missing"), filled("desired"));
                let rewritten = filled("rewritten");
                let rewritten = rewritten > 100.0 && rewritten * 50.0 > filled("desired");
                let said = filled("refused") > 0.0 || rewritten || missing;
                of("drifted").map(|drifted| if said { 0.0 } else { drifted })
            }
            expression => panic!("{expression}"),
        }
    }

    /// Whether it rings in any of the periods.
    fn rings(&self, series: &Series) -> bool {
        let breaches = |value: f64| match self.operator.as_str() {
            "GreaterThanThreshold" => value > self.threshold,
            "GreaterThanOrEqualToThreshold" => value >= self.threshold,
            "LessThanThreshold" => value < self.threshold,
            operator => panic!("{operator}"),
        };
        let missing = self.missing.contains(" breaching");
        let breached: Vec<bool> =
            (0..96).map(|period| self.value(series, period).map_or(missing, breaches)).collect();
        breached
            .windows(self.periods)
            .any(|window| window.iter().filter(|breach| **breach).count() >= self.points)
    }
}

/// The alarms that ring for an event. Reconciles find nothing in 40,000 keys, unless the event says otherwise.
fn ringing(event: &[(&'static str, &[f64])]) -> BTreeSet<String> {
    let findings =
        ["DriftedKeys", "KeysMissing", "ItemsRejected"].map(|metric| (metric, vec![0.0; 96]));
    let mut series = Series::from(findings);
    series.insert("KeysDesired", vec![4e4; 96]);
    for (metric, values) in event {
        let mut values = values.to_vec();
        // An empty list says that the metric does not come at all.
        if series.contains_key(metric) && !values.is_empty() {
            values.resize(96, if *metric == "KeysDesired" { 4e4 } else { 0.0 });
        }
        series.insert(metric, values);
    }
    let ringing = alarms().into_iter().filter(|alarm| alarm.rings(&series));
    ringing.map(|alarm| alarm.name).collect()
}

/// Metrics with their values, one for each period.
type Event = &'static [(&'static str, &'static [f64])];

const EVENTS: &[(&str, Event)] = &[
    ("changes-late", &[("IteratorAge", &[90e3, 150e3, 210e3])]),
    ("changes-late", &[("SettingsLag", &[70e3, 5e3, 70e3]), ("IteratorAge", &[9e3, 50e3, 50e3])]),
    ("records-parked", &[("RecordsParked", &[1.0]), ("IteratorAge", &[70e3])]),
    ("removals-held", &[("RemovalsHeld", &[500.0])]),
    ("records-given-up", &[("OnFailureDestinationDeliveredEventCount", &[100.0])]),
    ("records-given-up", &[("DroppedEventCount", &[1.0])]),
    ("put-back-failed", &[("PutBacksFailed", &[1.0])]),
    ("keys-missing", &[("KeysMissing", &[4e4, 0.0]), ("DriftedKeys", &[4e4, 0.0])]),
    ("keys-missing", &[("KeysMissing", &[5e3, 5e3]), ("DriftedKeys", &[5e3, 5e3])]),
    ("keys-missing", &[("KeysMissing", &[1e3]), ("DriftedKeys", &[1e3])]),
    ("keys-missing", &[("KeysMissing", &[3.0]), ("KeysDesired", &[3.0]), ("DriftedKeys", &[3.0])]),
    ("many-items-rejected", &[("ItemsRejected", &[4e3, 4e3])]),
    ("many-items-rejected", &[("ItemsRejected", &[2.0]), ("KeysDesired", &[0.0])]),
    ("repair-refused", &[("RepairRefused", &[7e3, 7e3]), ("DriftedKeys", &[7e3, 7e3])]),
    ("keys-rewritten", &[("KeysRewritten", &[6e3]), ("DriftedKeys", &[6e3])]),
    ("keys-rewritten", &[("KeysRewritten", &[9e2, 9e2]), ("DriftedKeys", &[9e2, 9e2])]),
    ("dangling-aliases", &[("DanglingAliases", &[1.0, 1.0])]),
    ("records-rejected", &[("RecordsRejected", &[1.0]), ("ItemsRejected", &[1.0, 1.0, 0.0])]),
    ("items-rejected", &[("ItemsRejected", &[1.0; 96])]),
    ("drifted-keys", &[("DriftedKeys", &[5.0, 5.0])]),
    ("drifted-keys", &[("DriftedKeys", &[150.0, 150.0]), ("KeysRewritten", &[150.0, 150.0])]),
    ("reconcile-keys-failed", &[("ReconcileKeysFailed", &[9.0, 9.0])]),
    (
        "reconcile-silent",
        &[("DriftedKeys", &[]), ("KeysMissing", &[]), ("KeysDesired", &[]), ("ItemsRejected", &[])],
    ),
    ("keys-conflicting", &[("KeysConflicting", &[1.0, 1.0])]),
    ("keys-withheld", &[("KeysWithheld", &[1.0, 1.0])]),
    ("cloudflare-requests", &[("CloudflareKvRequests", &[1000.0])]),
];

#[test]
fn each_event_rings_its_own_alarm_and_no_other() {
    for (alarm, event) in EVENTS {
        assert_eq!(ringing(event), BTreeSet::from([(*alarm).to_owned()]), "{event:?}");
    }
    let of_events: BTreeSet<&str> = EVENTS.iter().map(|(alarm, _)| *alarm).collect();
    let alarms = alarms();
    assert_eq!(of_events, alarms.iter().map(|alarm| alarm.name.as_str()).collect());
}

#[test]
fn what_is_no_event_rings_nothing() {
    let quiet: &[Event] = &[
        &[],
        &[("IteratorAge", &[9e4]), ("SettingsLag", &[9e4])],
        &[("DriftedKeys", &[80.0]), ("KeysRewritten", &[80.0])],
        &[("KeysMissing", &[9.0]), ("DriftedKeys", &[9.0])],
        &[("DanglingAliases", &[1.0]), ("KeysWithheld", &[1.0]), ("KeysConflicting", &[1.0])],
        &[("ItemsRejected", &[1.0; 95])],
        &[("ReconcileKeysFailed", &[9.0])],
        // A reconcile at its pace.
        &[("CloudflareKvRequests", &[700.0; 9])],
        &[("ApiKeysReused", &[7.0; 9]), ("RecordsFailed", &[7.0])],
        // An environment that is still empty.
        &[("KeysDesired", &[0.0; 96])],
    ];
    for event in quiet {
        assert_eq!(ringing(event), BTreeSet::new(), "{event:?}");
    }
}

#[test]
fn the_page_of_alarms_has_those_of_the_template_on_their_topics_and_so_has_the_dashboard() {
    let page = read("docs/alarms.md");
    let rows = page.lines().filter_map(|row| row.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = rows.filter_map(|row| match row.split(" | ").collect::<Vec<_>>()[..] {
        [_, name, topic] => Some((name.strip_prefix('`')?.trim_end_matches('`'), topic)),
        _ => None,
    });
    let of_page: BTreeMap<&str, &str> = rows.collect();
    let alarms = alarms();
    let of_template = alarms.iter().map(|alarm| (alarm.name.as_str(), alarm.topic.as_str()));
    assert_eq!(of_page, of_template.collect());

    let template = read(ALARMS);
    let shown = template.split(r#""alarms": ["#).nth(1).unwrap().split(']').next().unwrap();
    let shown: BTreeSet<&str> =
        shown.split("${Alarm}-").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    assert_eq!(shown, of_page.into_keys().collect());
}

#[test]
fn what_a_reconcile_finds_stays_in_alarm_until_a_reconcile_no_longer_finds_it() {
    for alarm in alarms() {
        let found = ["Keys", "Items", "Aliases", "Repair"];
        let finding =
            alarm.metrics.values().any(|name| found.iter().any(|word| name.contains(word)))
                && alarm.name != "reconcile-silent";
        assert_eq!(finding, alarm.missing == "ignore", "{}", alarm.name);
        // Of what is counted with each run, the whole chain's counts.
        let whole = if alarm.name == "keys-rewritten" { "Sum" } else { "Maximum" };
        assert!(!finding || alarm.statistic == whole, "{}", alarm.name);
    }
}

/// A metric that comes late is filled with 0 at first.
#[test]
fn no_page_on_filled_metrics_looks_at_one_period_alone() {
    for alarm in alarms().iter().filter(|alarm| alarm.missing == "notBreaching") {
        let filled =
            alarm.expression.as_ref().is_some_and(|expression| expression.contains("FILL"));
        assert!(!filled || alarm.periods > 1, "{}", alarm.name);
    }
}
