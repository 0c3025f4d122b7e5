//! One invocation: payload → use case → answer.

use std::time::Duration;

use lambda_runtime::Diagnostic;
use tokio::time::Instant;
use tracing::{error, warn};

use super::answer::{Answer, stream_answer};
use super::payload::{Payload, invalid};
use crate::config::ExporterConfig;
use crate::export::api_keys::TIME_FOR_API_KEYS;
use crate::export::batch::{self, Flood, Outcome, RecordOutcome, export_batch};
use crate::export::error::log_rejected;
use crate::export::explain::{Subject, explain};
use crate::export::invocation::{Budget, Invocation};
use crate::export::re_export::re_export;
use crate::export::reconcile::reconcile;
use crate::index::IndexRef;
use crate::item::StreamRecord;
use crate::item::stream_record::EVENT_SOURCE;
use crate::kv::Source;
use crate::ports::Services;
use crate::telemetry::Stats;
use crate::text::Chain;

/// The time that is left for the answer when the work has to stop. It is enough for a slow CPU and the way back.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);

/// The longest wait that a re-export or an explain grants a service. Somebody is looking at the prompt.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

pub struct Handler<S> {
    services: S,
    config: ExporterConfig,
    flood: Flood,
}

/// With what it counted.
pub type Handled = (Result<Answer, Diagnostic>, Stats);

impl<S: Services> Handler<S> {
    pub fn new(services: S, config: ExporterConfig) -> Self {
        warn_of_dry_run(&config);
        Self { services, config, flood: Flood::default() }
    }

    /// Returns the answer within `time_left`. The payload, up to 6 MB, is dropped as soon as it is decoded.
    pub async fn handle(&self, payload: impl AsRef<str>, time_left: Duration) -> Handled {
        let started = Instant::now();
        let request = Payload::parse(payload.as_ref(), &self.config.environment);
        drop(payload);
        warn_of_dry_run(&self.config);
        let (name, source, account) = match &request {
            Err(_) => ("invalid", Source::Stream, None),
            Ok(Payload::Stream(_)) => ("stream", Source::Stream, None),
            Ok(Payload::ReExport(_)) => ("re-export", Source::ReExport, None),
            Ok(Payload::Reconcile(request)) => {
                ("reconcile", Source::Reconcile, request.system_account_id.clone())
            }
            Ok(Payload::Explain(request)) => {
                let account = match &request.subject {
                    Subject::Index(IndexRef { account, .. }) | Subject::Account { account, .. } => {
                        Some(account)
                    }
                    Subject::Item(key, _) => Some(&key.pk),
                    Subject::Key(_) => None,
                };
                // It compares KV with what a re-export would write, and writes nothing.
                ("explain", Source::ReExport, account.cloned())
            }
        };
        let budget = budget(source, started, time_left);
        let invocation = Invocation::new(&self.services, &self.config, budget, source);
        let use_case = async {
            Ok(match request? {
                Payload::Stream(records) => stream(&invocation, records, &self.flood).await?,
                Payload::ReExport(it) => Answer::ReExport(re_export(&invocation, &it).await?),
                Payload::Reconcile(it) => {
                    Answer::Reconcile(Box::new(reconcile(&invocation, &it).await?))
                }
                Payload::Explain(it) => Answer::Explain(Box::new(explain(&invocation, &it).await?)),
            })
        };
        // Boxed, because the futures of the use cases are deep.
        let result: Result<Answer, Diagnostic> = Box::pin(use_case).await;
        let mut stats = invocation.stats();
        stats.duration_ms = started.elapsed();
        // The whole story in one line, and its error in another.
        let outcome = result.as_ref().map_or_else(|error| error.error_type.as_str(), |_| "ok");
        let (apply, complete) = match &result {
            Ok(Answer::Reconcile(report)) => (Some(report.apply), Some(report.complete)),
            _ => (None, None),
        };
        stats.log(name, outcome, apply, account.as_deref(), complete);
        if let Err(Diagnostic { error_type, error_message }) = &result {
            error!(error_type, error = error_message, "invocation failed");
        }
        (result, stats)
    }
}

/// Returns what an invocation may take that began at `started`.
fn budget(source: Source, started: Instant, time_left: Duration) -> Budget {
    let all = Budget::until(started + (time_left - ANSWER_MARGIN.min(time_left / 4)));
    match source {
        Source::Reconcile => all,
        Source::ReExport => {
            Budget { longest_wait: LONGEST_WAIT, api_keys: TIME_FOR_API_KEYS, ..all }
        }
        Source::Stream => Budget {
            writes_until: all.deadline.min(started + batch::TIME_TO_WRITE),
            api_keys: TIME_FOR_API_KEYS,
            first_read: batch::TIME_FOR_FIRST_READ,
            ..all
        },
    }
}

fn warn_of_dry_run(config: &ExporterConfig) {
    if config.dry_run {
        warn!("dry run: CLOUDFLARE_ACCOUNT_ID is absent, so nothing is sent to Cloudflare");
    }
}

async fn stream<S: Services>(
    invocation: &Invocation<'_, S>,
    records: Vec<StreamRecord>,
    flood: &Flood,
) -> Result<Answer, Diagnostic> {
    check_origin(&records, invocation.config)?;
    let sequence_numbers: Vec<Option<String>> =
        records.iter().map(|record| record.sequence_number.clone()).collect();
    let outcomes = export_batch(invocation, records, flood).await;
    let mut failed = Vec::new();
    for (outcome, sequence_number) in outcomes.iter().zip(sequence_numbers) {
        log_record(outcome, sequence_number.as_deref());
        if matches!(outcome, (_, Outcome::Failed(_))) {
            failed.push(sequence_number);
        }
    }
    stream_answer(failed)
}

/// Refuses records of another stream: a mapping that is wired wrongly would export one environment's settings
/// to another. A local event need not name its stream, nor does a malformed record beside others.
fn check_origin(records: &[StreamRecord], config: &ExporterConfig) -> Result<(), Diagnostic> {
    let table = &config.table_name;
    let ours = format!(":table/{table}/stream/");
    let mut sources = records.iter().filter_map(|record| record.event_source.as_deref());
    if sources.any(|source| source != EVENT_SOURCE) {
        return invalid(&format!("Records hold another event source than {EVENT_SOURCE}"));
    }
    let mut arns = records.iter().filter_map(|record| record.source_arn.as_ref()).peekable();
    let names_none = arns.peek().is_none() && !records.is_empty();
    if config.in_aws && names_none || arns.any(|arn| !arn.contains(&ours)) {
        return invalid(&format!(
            "Records hold another table's than {table}: check the event source mapping"
        ));
    }
    Ok(())
}

/// One line for each record that was not exported as it should be.
fn log_record((item, outcome): &RecordOutcome, sequence_number: Option<&str>) {
    let (message, error) = match outcome {
        Outcome::Rejected(rejection) => {
            return log_rejected(item.as_ref(), sequence_number, rejection);
        }
        Outcome::Failed(error) => ("record failed", error),
        Outcome::Parked(error) => ("record parked", error),
        // All held records share one line of their own.
        Outcome::Skipped | Outcome::Exported | Outcome::Postponed => return,
    };
    error!(
        message,
        system_account_id = item.as_ref().map(|item| &item.index.account),
        index_name = item.as_ref().map(|item| &item.index.name),
        normalized_query = item.as_ref().and_then(|item| item.query.as_ref()),
        cell = error.cell(),
        sequence_number,
        error = %Chain(error),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::{Fakes, KvFault, TIME_LEFT, index_item, kv_error};
    use crate::ports::{ErrorKind, ServiceError};
    use serde_json::{Value, json};

    fn handler(fakes: Fakes, in_aws: bool) -> Handler<Fakes> {
        let config = ExporterConfig { in_aws, ..fakes.config.clone() };
        Handler::new(fakes, config)
    }

    /// A record of index `i`, with these fields beside what happened.
    fn record(fields: &Value) -> Value {
        let mut record = json!({"eventName": "INSERT", "dynamodb": {
            "Keys": {"pk": {"S": "a"}, "sk": {"S": "INDEX#i"}},
            "NewImage": {"index_endpoint": {"S": "https://h"}},
            "SequenceNumber": "7",
        }});
        record.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        record
    }

    async fn answer<S: Services>(handler: &Handler<S>, payload: &Value) -> String {
        let (result, _) = handler.handle(payload.to_string(), TIME_LEFT).await;
        let error = |it: Diagnostic| format!("{}: {}", it.error_type, it.error_message);
        result.map_or_else(error, |answer| serde_json::to_string(&answer).unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn records_of_another_stream_are_refused_whole() {
        let arn = |table: &str| json!({"eventSourceARN": format!("arn:aws:dynamodb:r:1:table/{table}/stream/t")});
        let ours = || arn("prod-EcomIndexSettingsTable");
        let malformed = || json!({"dynamodb": 7});
        let (aws, local) = (true, false);
        for (name, in_aws, fields, is_taken) in [
            ("our table", aws, vec![ours()], true),
            ("our table, local", local, vec![ours()], true),
            ("another table", aws, vec![arn("dev-EcomIndexSettingsTable")], false),
            ("another table, local", local, vec![arn("dev-EcomIndexSettingsTable")], false),
            ("a longer name", aws, vec![arn("x-prod-EcomIndexSettingsTable")], false),
            ("no table", aws, vec![json!({})], false),
            ("no table, local", local, vec![json!({})], true),
            ("one of two", aws, vec![ours(), arn("dev-EcomIndexSettingsTable")], false),
            ("ours beside a malformed one", aws, vec![malformed(), ours()], true),
            ("malformed ones alone", aws, vec![malformed(), malformed()], false),
            ("another service", local, vec![json!({"eventSource": "aws:sqs"})], false),
        ] {
            let records: Vec<Value> = fields.iter().map(record).collect();
            let handler = handler(Fakes::new(), in_aws);
            let answer = answer(&handler, &json!({ "Records": records })).await;
            let is_refused = answer.starts_with("InvalidPayload: Records hold another");
            let is_exported = answer == r#"{"batchItemFailures":[]}"#;
            assert_eq!((is_exported, is_refused), (is_taken, !is_taken), "{name}: {answer}");
            assert_eq!(!handler.services.kv.keys().is_empty(), is_taken, "{name}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_writes_for_60_s_and_whoever_asks_by_hand_waits_no_longer_than_20_s_at_a_time()
    {
        let batch = json!({"Records": [record(&json!({}))]});
        let re_export = json!({"system_account_id": "a", "index_name": "i"});
        let explain = json!({ "explain": re_export });
        let asked_wait = Some(Duration::from_secs(21));
        let asks = KvFault::Fails(ServiceError { asked_wait, ..kv_error(ErrorKind::Transient) });
        for (payload, fault, seconds, [start, end]) in [
            (batch, KvFault::Hangs, 60, ["", r#"{"batchItemFailures":[{"itemIdentifier":"7"}]}"#]),
            (re_export, asks.clone(), 0, ["ReExportIncomplete: ", "it asks to wait 21 s"]),
            (explain, asks, 0, ["ExplainIncomplete: ", "it asks to wait 21 s"]),
        ] {
            let (fakes, began) = (Fakes::new(), Instant::now());
            fakes.table.put(index_item("i", &json!({})));
            fakes.kv.faults.then([fault]);
            let answer = answer(&handler(fakes, false), &payload).await;
            assert!(answer.starts_with(start) && answer.ends_with(end), "{answer}");
            assert_eq!(began.elapsed(), Duration::from_secs(seconds), "{answer}");
        }
    }
}
