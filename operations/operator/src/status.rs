//! What is deployed and how it is, in a screen: what rings first.

use serde_json::Value;

use crate::aws::Call;
use crate::failure::Failure;
use crate::function::Place;
use crate::report::{plain, show_fields};

/// How long a line of parameters may be.
const WIDTH: usize = 100;

/// A line of the screen, or several.
type Field = (String, String);

/// `status`: asks each service at once.
pub fn status(place: &Place) -> Result<(), Failure> {
    let Place::Aws(stack) = place else {
        return Err(Failure::usage("the local stack has no status"));
    };
    let own = format!("{}-ecom-settings-exporter", stack.environment);
    let aws = &stack.aws;
    let prefix = format!("{own}-");
    let alarms = "cloudwatch describe-alarms --state-value ALARM --alarm-name-prefix";
    let ringing = aws.begin(alarms, &[&prefix]);
    let described = match stack.describe() {
        Ok(described) => described,
        Err(failure) => {
            show_fields(&answered("RINGS", ringing, |alarms| alarms_that_ring(alarms, &prefix)))?;
            return Err(failure);
        }
    };
    let output = |name: &str| stack.output_in(&described, name).unwrap_or_default();
    let function = output("FunctionName");
    let given = [&*function, "--qualifier", "live"];
    let live = aws.begin("lambda get-function --function-name", &given);
    let mapping = output("StreamMappingId");
    let mapping = aws.begin("lambda get-event-source-mapping --uuid", &[&mapping]);
    let name = format!("{own}-reconcile");
    let schedule = aws.begin("scheduler get-schedule --name", &[&name]);
    let machine = output("StateMachineArn");
    let executions =
        "stepfunctions list-executions --no-paginate --max-results 5 --state-machine-arn";
    let last = aws.begin(executions, &[&machine]);
    let url = output("OnFailureQueueUrl");
    let count = "ApproximateNumberOfMessages";
    let attributes = format!("sqs get-queue-attributes --attribute-names {count} --queue-url");
    let queue = aws.begin(&attributes, &[&url]);

    let mut fields = answered("RINGS", ringing, |alarms| alarms_that_ring(alarms, &prefix));
    fields.extend(stack_line(&described));
    fields.extend(answered("live", live, live_version));
    fields.extend(answered("stream", mapping, |mapping| {
        let parts = &mapping["ParallelizationFactor"];
        let [state, result] = ["State", "LastProcessingResult"].map(|name| text(&mapping[name]));
        one("stream", format!("{state}, {result}, {parts} batches of a shard at a time"))
    }));
    fields.extend(answered("schedule", schedule, |schedule| {
        let input = text(&schedule["Target"]["Input"]);
        let [state, when] = ["State", "ScheduleExpression"].map(|name| text(&schedule[name]));
        one("schedule", format!("{state}, {when}, {input}"))
    }));
    fields.extend(answered("reconciles", last, last_reconciles));
    fields.extend(answered("on-failure queue", queue, |queue| {
        one("on-failure queue", format!("{} messages", text(&queue["Attributes"][count])))
    }));
    fields.extend(parameters(&described));
    show_fields(&fields)
}

fn one(name: &str, said: String) -> Vec<Field> {
    vec![(name.to_owned(), said)]
}

/// What a service says; what can't be had does not hide the rest.
fn answered(
    name: &str,
    call: Result<Call, Failure>,
    said: impl FnOnce(&Value) -> Vec<Field>,
) -> Vec<Field> {
    match call.and_then(Call::answer) {
        Ok(answer) => said(&answer),
        Err(failure) => one(name, format!("not known: {}", failure.said().unwrap_or_default())),
    }
}

fn alarms_that_ring(alarms: &Value, prefix: &str) -> Vec<Field> {
    let rings = |alarm: &Value| {
        let name = text(&alarm["AlarmName"]);
        let name = name.strip_prefix(prefix).unwrap_or(&name).to_owned();
        let since = text(&alarm["StateUpdatedTimestamp"]);
        let said = text(&alarm["AlarmDescription"]);
        [("RINGS".to_owned(), format!("{name} since {since}")), (String::new(), said)]
    };
    let alarms = alarms["MetricAlarms"].as_array().map_or(&[][..], Vec::as_slice);
    if alarms.is_empty() {
        one("RINGS", "nothing".to_owned())
    } else {
        alarms.iter().flat_map(rings).collect()
    }
}

fn stack_line(stack: &Value) -> Vec<Field> {
    let tags = stack["Tags"].as_array().map_or(&[][..], Vec::as_slice);
    let commit = tags.iter().find(|tag| tag["Key"] == "commit");
    let commit = commit.map_or_else(String::new, |tag| format!(", commit {}", text(&tag["Value"])));
    let [status, changed] = ["StackStatus", "LastUpdatedTime"].map(|name| text(&stack[name]));
    one("stack", format!("{status}, changed {changed}{commit}"))
}

fn live_version(function: &Value) -> Vec<Field> {
    let of = |name: &str| text(&function["Configuration"][name]);
    let reserved = &function["Concurrency"]["ReservedConcurrentExecutions"];
    let concurrency = match reserved.as_u64() {
        Some(0) => "concurrency 0: NOTHING RUNS".to_owned(),
        Some(reserved) => format!("concurrency {reserved}"),
        None => "no concurrency reserved".to_owned(),
    };
    let [version, commit, since] = ["Version", "Description", "LastModified"].map(of);
    one("live", format!("version {version} ({commit}) of {since}, {concurrency}"))
}

fn last_reconciles(listed: &Value) -> Vec<Field> {
    let executions = listed["executions"].as_array().map_or(&[][..], Vec::as_slice);
    let names = std::iter::once("reconciles").chain(std::iter::repeat(""));
    let line = |execution: &Value| {
        ["startDate", "status", "name"].map(|name| text(&execution[name])).join(" ")
    };
    names.zip(executions).map(|(name, execution)| (name.to_owned(), line(execution))).collect()
}

/// All that are not empty, in lines of some length.
fn parameters(stack: &Value) -> Vec<Field> {
    let parameters = stack["Parameters"].as_array().map_or(&[][..], Vec::as_slice);
    let mut named: Vec<String> = parameters
        .iter()
        .map(|one| (text(&one["ParameterKey"]), text(&one["ParameterValue"])))
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    named.sort();
    let mut fields: Vec<Field> = Vec::new();
    for parameter in named {
        match fields.last_mut() {
            Some((_, line)) if line.len() + parameter.len() < WIDTH => {
                line.push(' ');
                line.push_str(&parameter);
            }
            last => {
                let name = if last.is_none() { "parameters" } else { "" };
                fields.push((name.to_owned(), parameter));
            }
        }
    }
    fields
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => plain(text),
        other => other.to_string(),
    }
}
