//! Reconcile of full namespaces: what it costs, and whether it repairs exactly the planted drift.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};
use testbed::http::{self, Reply, Request, Server};
use testbed::kv::KvVerb;
use testbed::lambda::Function;
use testbed::stack::{Stack, StackOptions};

use crate::drift::{Changes, Counts, Drift, Stage, hold_all_stale};
use crate::exporter::{function, function_in, invoke};
use crate::report::{Outcome, megabytes, row};
use crate::workload::{ACCOUNTS, index_item, query_config, typical};

/// The classes of a report, in its order.
const CLASSES: [&str; 13] = [
    "desired",
    "listed",
    "missing",
    "stale",
    "orphaned",
    "withheld",
    "dangling",
    "foreign",
    "conflicting",
    "rejected",
    "written",
    "deleted",
    "failed",
];

/// How many keys an error names.
const NAMED: usize = 5;

/// Full namespaces with 1 % drift of every class. An audit finds it, a repair removes it, and a
/// second repair finds nothing to do.
pub async fn reconcile(indexes: usize, configs: usize) -> Outcome {
    let drift = Drift::new(indexes, configs)?;
    let stack = Stack::start(StackOptions::default()).await?;
    stack.table.load(drift.items());
    let function = function(&stack).await?;
    let (audit, repair) = (json!({"reconcile": {}}), json!({"reconcile": {"apply": true}}));
    for (name, payload, stage) in [
        ("first fill", &repair, Stage::Fill),
        ("audit of 1 % drift", &audit, Stage::Audit),
        ("repair", &repair, Stage::Repair),
        ("second repair", &repair, Stage::Again),
    ] {
        if stage == Stage::Audit {
            drift.plant(&stack)?;
        }
        stack.kv.clear_log();
        stack.table.clear_log();
        let (answer, time) = invoke(&function, payload).await?;
        let what = format!("reconcile, {} keys: {name}", indexes * 2 + configs);
        report(&what, &stack, &function, &answer, time).await?;
        check(&answer, &drift.expected(stage)).map_err(|error| format!("{what}: {error}"))?;
        compare(&changes(&stack), &drift.changes(stage))
            .map_err(|error| format!("{what}: {error}"))?;
        // A new process for each run, so that each has its own peak of memory.
        function.stop().await;
    }
    Ok(())
}

/// The memory that an audit needs: for empty namespaces, and for namespaces with nothing but stale
/// values.
pub async fn audits(indexes: usize, configs: usize) -> Outcome {
    let stack = Stack::start(StackOptions::default()).await?;
    let table = scan_only(indexes, configs).await?;
    let mut env = stack.env();
    env.insert("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), table.url());
    let function = function_in(env).await?;
    for (name, class) in [("audit of nothing", "missing"), ("audit of all stale", "stale")] {
        if class == "stale" {
            hold_all_stale(&stack, indexes, configs);
        }
        stack.kv.clear_log();
        let (answer, time) = invoke(&function, json!({"reconcile": {}})).await?;
        let what = format!("reconcile, {} keys: {name}", indexes * 2 + configs);
        report(&what, &stack, &function, &answer, time).await?;
        let found = ["settings", "query_configs"].map(|namespace| &answer[namespace][class]);
        if found != [&json!(indexes * 2), &json!(configs)] {
            return Err(format!("{what}: {answer}").into());
        }
        function.stop().await;
    }
    Ok(())
}

/// A table that can only be scanned. The embedded one would take an hour for a million items.
async fn scan_only(indexes: usize, configs: usize) -> std::io::Result<Server> {
    const PAGE_BYTES: usize = 1_000_000;
    let page = move |request: Request| async move {
        let Ok(scan) = request.json::<Value>() else { return http::Outcome::Drop };
        let number = |value: &Value| usize::try_from(value.as_u64().unwrap_or(0)).unwrap_or(0);
        let segments = number(&scan["TotalSegments"]).max(1);
        let from = scan["ExclusiveStartKey"]["sk"]["S"].as_str().map(str::parse);
        let first = from.and_then(Result::ok).unwrap_or(number(&scan["Segment"]));
        let (mut items, mut bytes, mut next) = (Vec::new(), 0, None);
        for place in (first..indexes + configs).step_by(segments) {
            if bytes > PAGE_BYTES {
                next = Some(place);
                break;
            }
            let item = match place.checked_sub(indexes) {
                None => index_item(place, ACCOUNTS, typical(place)),
                Some(number) => query_config("account-00000", "index-000000", number),
            };
            bytes += item.to_string().len();
            items.push(item);
        }
        let mut reply = json!({"Count": items.len(), "ScannedCount": items.len(), "Items": items});
        if let Some(place) = next {
            reply["LastEvaluatedKey"] =
                json!({"pk": {"S": "place"}, "sk": {"S": place.to_string()}});
        }
        Reply::json(200, &reply).into()
    };
    Server::start(0, page).await
}

async fn report(
    what: &str,
    stack: &Stack,
    function: &Function,
    answer: &Value,
    time: Duration,
) -> Outcome {
    let sum = |class: &str| {
        ["settings", "query_configs"]
            .iter()
            .filter_map(|namespace| answer[*namespace][class].as_u64())
            .sum::<u64>()
    };
    let classes = CLASSES.map(|class| format!("{class} {}", sum(class)));
    let memory = function.usage().await.map(|usage| megabytes(usage.peak_memory));
    row(
        what,
        &format!(
            "{:.1} s, {}, {} KV and {} table requests; {}",
            time.as_secs_f64(),
            memory.unwrap_or_default(),
            stack.kv.log().len(),
            stack.table.log().len(),
            classes.join(", ")
        ),
    );
    Ok(())
}

/// Fails if a report counts anything but the planted drift.
fn check(answer: &Value, expected: &BTreeMap<&str, Counts>) -> Outcome {
    if answer["complete"] != true {
        return Err(format!("the report is not complete: {answer}").into());
    }
    for (namespace, expected) in expected {
        let found = answer[*namespace].as_object().ok_or("the report lacks a namespace")?;
        if found.len() != CLASSES.len() {
            return Err(format!("{namespace} has unknown classes, or lacks some: {found:?}").into());
        }
        for class in CLASSES {
            let expected = expected.get(class).copied().unwrap_or(0);
            if found.get(class) != Some(&json!(expected)) {
                let found = &answer[*namespace][class];
                return Err(format!("{namespace}: {class} is {found} instead of {expected}").into());
            }
        }
    }
    Ok(())
}

/// What was written and deleted, according to the log of the KV stand-in.
fn changes(stack: &Stack) -> Changes {
    let mut changes = Changes::new();
    for request in stack.kv.log().into_iter().filter(|request| request.verb.writes()) {
        changes.entry((request.verb, request.namespace)).or_default().extend(request.keys);
    }
    changes.values_mut().for_each(|keys| keys.sort_unstable());
    changes
}

/// Fails if a key was written or deleted without need, twice, or not at all.
fn compare(found: &Changes, expected: &Changes) -> Outcome {
    let of = |changes: &Changes, which: &(KvVerb, String)| {
        changes.get(which).cloned().unwrap_or_default()
    };
    for which in found.keys().chain(expected.keys()) {
        let (found, expected) = (of(found, which), of(expected, which));
        if found == expected {
            continue;
        }
        let not_in = |keys: &[String], others: &[String]| -> Vec<String> {
            let missing = keys.iter().filter(|key| others.binary_search(key).is_err());
            missing.take(NAMED).cloned().collect()
        };
        let (verb, namespace) = which;
        return Err(format!(
            "{verb} of {namespace}: {} keys instead of {}; unexpected {:?}, missing {:?}",
            found.len(),
            expected.len(),
            not_in(&found, &expected),
            not_in(&expected, &found),
        )
        .into());
    }
    Ok(())
}
