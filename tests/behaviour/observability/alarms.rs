//! The template's alarms, evaluated as CloudWatch's documentation says: each rings for its own event, and no
//! two for one.

use std::collections::{BTreeMap, BTreeSet};

use super::template::{read, resources};

/// What stands in a line of an alarm after a name.
fn after<'a>(body: &'a str, start: &str) -> Option<&'a str> {
    body.lines().find_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(start))
}

struct Alarm {
    name: String,
    topic: &'static str,
    body: String,
}

fn alarms() -> Vec<Alarm> {
    let alarm = |body: String| {
        let name = after(&body, "AlarmName: !Sub ${Environment}-ecom-settings-exporter-").unwrap();
        let name = name.to_owned();
        let text = after(&body, "AlarmDescription: !Sub ").unwrap();
        assert!(text.ends_with(&format!(" ${{RunbookUrl}}/{name}.md")), "{text}");
        let topic = if body.contains("HasNoticeTopic") { "notice" } else { "page" };
        Alarm { name, topic, body }
    };
    resources("AWS::CloudWatch::Alarm").into_values().map(alarm).collect()
}

/// The values of metrics, one for each period of the alarm that watches them.
type Series = BTreeMap<&'static str, Vec<f64>>;

impl Alarm {
    /// The metrics by the ids of the expression, or the only one.
    fn metrics(&self) -> BTreeMap<&str, &str> {
        let Some(metrics) = self.body.split_once("Metrics:\n") else {
            return BTreeMap::from([("value", after(&self.body, "MetricName: ").unwrap())]);
        };
        let parts = metrics.1.split("- Id: ").skip(2);
        parts
            .map(|part| (part.lines().next().unwrap(), after(part, "MetricName: ").unwrap()))
            .collect()
    }

    /// The value in one period, if there is one.
    fn value(&self, series: &Series, period: usize) -> Option<f64> {
        let metrics = self.metrics();
        let of = |id: &str| series.get(metrics[id])?.get(period).copied();
        let filled = |id: &str| of(id).unwrap_or(0.0);
        match after(&self.body, "Expression: ") {
            None if self.body.contains("Statistic: SampleCount") => of("value").map(|_| 1.0),
            None => of("value"),
            Some("MAX([FILL(waiting, 0), FILL(lag, 0)])") => {
                Some(filled("waiting").max(filled("lag")))
            }
            Some("FILL(delivered, 0) + FILL(dropped, 0) + FILL(undelivered, 0)") => {
                Some(filled("delivered") + filled("dropped") + filled("undelivered"))
            }
            Some(
                "IF(FILL(refused, 0) > 0 || FILL(missing, 0) >= 10 || FILL(rewritten, 0) > 2, 0, drifted)",
            ) => {
                let said = filled("refused") > 0.0
                    || filled("missing") >= 10.0
                    || filled("rewritten") > 2.0;
                of("drifted").map(|drifted| if said { 0.0 } else { drifted })
            }
            Some(expression) => panic!("{expression}"),
        }
    }

    /// Whether it rings in any of the periods, with the template's defaults.
    fn rings(&self, series: &Series) -> bool {
        let number = |start: &str| {
            let text = after(&self.body, start)?;
            Some(match text {
                "!FindInMap [Promise, !Ref ProxyCacheTtl, Alarm]" => 60_000.0,
                "!FindInMap [EveryMinutes, !Ref ReconcileEveryMinutes, InADay]" => 96.0,
                "!Ref DriftAlarmThreshold" => 0.0,
                text => text.parse::<f64>().unwrap(),
            })
        };
        let count = |start: &str| number(start).map(|number| number as usize);
        let threshold = number("Threshold: ").unwrap();
        let breaches = |value: f64| match after(&self.body, "ComparisonOperator: ").unwrap() {
            "GreaterThanThreshold" => value > threshold,
            "GreaterThanOrEqualToThreshold" => value >= threshold,
            "LessThanThreshold" => value < threshold,
            operator => panic!("{operator}"),
        };
        let missing = self.body.contains("breaching, notBreaching]");
        let periods = count("EvaluationPeriods: ").unwrap();
        let points = count("DatapointsToAlarm: ").unwrap_or(periods);
        let breached: Vec<bool> =
            (0..96).map(|period| self.value(series, period).map_or(missing, breaches)).collect();
        breached
            .windows(periods)
            .any(|window| window.iter().filter(|breach| **breach).count() >= points)
    }
}

/// Which alarms ring for an event. Reconciles find nothing, unless the event says otherwise.
fn ringing(event: &[(&'static str, &[f64])]) -> BTreeSet<String> {
    let mut series = Series::from([("DriftedKeys", vec![0.0; 96])]);
    for (metric, values) in event {
        let mut values = values.to_vec();
        // An empty list says that the metric does not come at all.
        if *metric == "DriftedKeys" && !values.is_empty() {
            values.resize(96, 0.0);
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
    ("keys-missing", &[("KeysMissingPercent", &[100.0, 0.0]), ("DriftedKeys", &[2e4, 0.0])]),
    ("keys-missing", &[("KeysMissingPercent", &[12.0, 12.0]), ("DriftedKeys", &[2e3, 2e3])]),
    (
        "many-items-rejected",
        &[("ItemsRejectedPercent", &[25.0, 25.0]), ("ItemsRejected", &[5e3, 5e3])],
    ),
    ("repair-refused", &[("RepairRefused", &[7e3, 7e3]), ("DriftedKeys", &[7e3, 7e3])]),
    (
        "keys-rewritten",
        &[("KeysRewrittenPercent", &[30.0]), ("KeysRewritten", &[6e3]), ("DriftedKeys", &[6e3])],
    ),
    ("keys-rewritten", &[("KeysRewrittenPercent", &[9.0, 9.0]), ("DriftedKeys", &[1e3, 1e3])]),
    ("dangling-aliases", &[("DanglingAliases", &[1.0, 1.0])]),
    ("records-rejected", &[("RecordsRejected", &[1.0]), ("ItemsRejected", &[1.0, 1.0, 0.0])]),
    ("items-rejected", &[("ItemsRejected", &[1.0; 96])]),
    ("drifted-keys", &[("DriftedKeys", &[5.0, 5.0])]),
    ("reconcile-keys-failed", &[("ReconcileKeysFailed", &[9.0, 9.0])]),
    ("reconcile-silent", &[("DriftedKeys", &[])]),
    ("keys-conflicting", &[("KeysConflicting", &[1.0, 1.0])]),
    ("keys-withheld", &[("KeysWithheld", &[1.0, 1.0])]),
    (
        "cloudflare-requests",
        &[("CloudflareKvRequestsUnpaced", &[450.0]), ("CloudflareKvRequests", &[990.0])],
    ),
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
        &[("DriftedKeys", &[80.0]), ("KeysRewritten", &[80.0]), ("KeysRewrittenPercent", &[0.0])],
        &[("DanglingAliases", &[1.0]), ("KeysWithheld", &[1.0]), ("KeysConflicting", &[1.0])],
        &[("ItemsRejected", &[1.0; 95]), ("ItemsRejectedPercent", &[1.0; 95])],
        &[("ReconcileKeysFailed", &[9.0])],
        &[("CloudflareKvRequests", &[600.0; 9]), ("CloudflareKvRequestsUnpaced", &[3.0; 9])],
        &[("ApiKeysReused", &[7.0; 9]), ("RecordsFailed", &[7.0])],
    ];
    for event in quiet {
        assert_eq!(ringing(event), BTreeSet::new(), "{event:?}");
    }
}

#[test]
fn the_page_of_alarms_has_those_of_the_template_on_their_topics() {
    let page = read("docs/alarms.md");
    let rows = page.lines().filter_map(|row| row.strip_prefix("| ")?.strip_suffix(" |"));
    let rows = rows.filter_map(|row| match row.split(" | ").collect::<Vec<_>>()[..] {
        [_, name, topic] => Some((name.strip_prefix('`')?.trim_end_matches('`'), topic)),
        _ => None,
    });
    let of_page: BTreeMap<&str, &str> = rows.collect();
    let alarms = alarms();
    let of_template = alarms.iter().map(|alarm| (alarm.name.as_str(), alarm.topic));
    assert_eq!(of_page, of_template.collect());
}

#[test]
fn what_a_reconcile_finds_stays_in_alarm_until_a_reconcile_no_longer_finds_it() {
    for Alarm { name, body, .. } in alarms() {
        let finding = body.contains("Seconds]") && name != "reconcile-silent";
        assert_eq!(finding, body.contains("TreatMissingData: ignore"), "{name}");
        let maximum = body.contains("Statistic: Maximum") || body.contains("Stat: Maximum");
        assert!(!finding || maximum, "{name}");
    }
}
