//! One invocation: payload → use case → answer.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, warn};

use super::answer::{Answer, HandlerError, stream_answer};
use super::payload::{InvalidPayload, Payload};
use crate::config::ExporterConfig;
use crate::error_chain::Chain;
use crate::export::api_keys::TIME_FOR_API_KEYS;
use crate::export::batch::{self, Flood, Outcome, export_batch};
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
use crate::telemetry::stats::ReconcileRun;

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
pub type Handled = (Result<Answer, HandlerError>, Stats);

impl<S: Services> Handler<S> {
    pub fn new(services: S, config: ExporterConfig) -> Self {
        Self { services, config, flood: Flood::default() }
    }

    /// Returns the answer within `time_left`. The payload, up to 6 MB, is dropped as soon as it is decoded.
    pub async fn handle(&self, payload: impl AsRef<str>, time_left: Duration) -> Handled {
        let started = Instant::now();
        let request = Payload::parse(payload.as_ref(), &self.config.environment);
        drop(payload);
        if self.config.dry_run {
            warn!("dry run: CLOUDFLARE_ACCOUNT_ID is absent, so nothing is sent to Cloudflare");
        }
        let all = Budget::until(started + (time_left - ANSWER_MARGIN.min(time_left / 4)));
        let of_batch = Budget {
            writes_until: all.deadline.min(started + batch::TIME_TO_WRITE),
            api_keys: TIME_FOR_API_KEYS,
            first_read: batch::TIME_FOR_FIRST_READ,
            ..all
        };
        let by_hand = Budget { longest_wait: LONGEST_WAIT, api_keys: TIME_FOR_API_KEYS, ..all };
        let invocation =
            |budget, source| Invocation::new(&self.services, &self.config, budget, source);
        // Boxed: each use case is a deep future, and only one of them is under way.
        let mut account = None;
        let (source, result, mut stats) = match request {
            Err(error) => ("invalid", Err(error.into()), Stats::default()),
            Ok(Payload::Stream(records)) => {
                let invocation = invocation(of_batch, Source::Stream);
                let result = Box::pin(stream(&invocation, records, &self.flood)).await;
                ("stream", result, invocation.stats())
            }
            Ok(Payload::ReExport(request)) => {
                let invocation = invocation(by_hand, Source::ReExport);
                let result = Box::pin(re_export(&invocation, &request)).await;
                let result = result.map_err(|error| HandlerError::ReExport(Box::new(error)));
                ("re-export", result.map(Answer::ReExport), invocation.stats())
            }
            Ok(Payload::Reconcile(request)) => {
                let invocation = invocation(all, Source::Reconcile).paced();
                let result = Box::pin(reconcile(&invocation, &request)).await;
                let result = result.map(|report| Answer::Reconcile(Box::new(report)));
                account = request.system_account_id;
                ("reconcile", result.map_err(HandlerError::from), invocation.stats())
            }
            Ok(Payload::Explain(request)) => {
                // It compares KV with what a re-export would write, and writes nothing.
                let invocation = invocation(by_hand, Source::ReExport);
                let result = Box::pin(explain(&invocation, &request)).await;
                account = match request.subject {
                    Subject::Index(IndexRef { account, .. }) | Subject::Account { account, .. } => {
                        Some(account)
                    }
                    Subject::Item(tried) => Some(tried.key.pk),
                    Subject::Key(_) => None,
                };
                let result = result.map(|report| Answer::Explain(Box::new(report)));
                let result = result.map_err(|error| HandlerError::Explain(Box::new(error)));
                ("explain", result, invocation.stats())
            }
        };
        stats.duration_ms = started.elapsed();
        log_invocation(source, &result, account.as_deref(), &stats);
        (result, stats)
    }
}

async fn stream<S: Services>(
    invocation: &Invocation<'_, S>,
    records: Vec<StreamRecord>,
    flood: &Flood,
) -> Result<Answer, HandlerError> {
    check_origin(&records, invocation.config)?;
    let sequence_numbers: Vec<Option<String>> =
        records.iter().map(|record| record.sequence_number.clone()).collect();
    let outcomes = export_batch(invocation, records, flood).await;
    let outcomes = outcomes.iter().zip(sequence_numbers);
    let outcomes = outcomes.inspect(|(outcome, number)| log_record(outcome, number.as_deref()));
    let failed = outcomes.filter(|(outcome, _)| matches!(outcome, Outcome::Failed(..)));
    stream_answer(failed.map(|(_, sequence_number)| sequence_number))
}

/// Refuses records of another stream: a mapping that is wired wrongly would export one environment's settings
/// to another. A local event need not name its stream.
fn check_origin(records: &[StreamRecord], config: &ExporterConfig) -> Result<(), InvalidPayload> {
    let ours = format!(":table/{}/stream/", config.table_name);
    for record in records {
        if record.event_source.as_deref().is_some_and(|source| source != EVENT_SOURCE) {
            let reason = format!("Records hold another event source than {EVENT_SOURCE}");
            return Err(InvalidPayload(reason));
        }
        let is_ours = match &record.source_arn {
            Some(arn) => arn.contains(&ours),
            None => !config.in_aws,
        };
        if !is_ours {
            let table = &config.table_name;
            let reason = format!(
                "Records hold another table's than {table}: check the event source mapping"
            );
            return Err(InvalidPayload(reason));
        }
    }
    Ok(())
}

/// One line for each record that was not exported as it should be.
fn log_record(outcome: &Outcome, sequence_number: Option<&str>) {
    let (message, item, error) = match outcome {
        Outcome::Rejected(item, rejection) => {
            return log_rejected(item.as_ref(), sequence_number, rejection);
        }
        Outcome::Failed(item, error) => ("record failed", item, error),
        Outcome::Parked(item, error) => ("record parked", item, error),
        // All held records share one line of their own.
        Outcome::Skipped | Outcome::Exported | Outcome::Held => return,
    };
    error!(
        message,
        system_account_id = item.index.account,
        index_name = item.index.name,
        normalized_query = item.query,
        cell = error.cell(),
        sequence_number,
        error = %Chain(error),
    );
}

/// The invocation's whole story in one line, and its error in another.
fn log_invocation(
    source: &str,
    result: &Result<Answer, HandlerError>,
    system_account_id: Option<&str>,
    stats: &Stats,
) {
    let outcome = result.as_ref().map_or_else(HandlerError::error_type, |_| "ok");
    let (apply, complete) = match result {
        Ok(Answer::Reconcile(report)) => (Some(report.apply), Some(report.complete)),
        _ => (None, None),
    };
    stats.log(source, outcome, ReconcileRun { apply, system_account_id, complete });
    if let Err(error) = result {
        error!(error_type = error.error_type(), error = error.message(), "invocation failed");
    }
}
