//! One invocation: payload → use case → answer.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, warn};

use super::answer::{Answer, HandlerError, stream_answer};
use super::payload::{InvalidPayload, Payload};
use crate::config::ExporterConfig;
use crate::error_chain::Chain;
use crate::export::batch::outcome::RecordOutcome;
use crate::export::batch::removals::Removals;
use crate::export::batch::{TIME_TO_WRITE, export_batch};
use crate::export::explain::{Explain, ExplainError, ExplainReport, explain};
use crate::export::invocation::Invocation;
use crate::export::re_export::{LONGEST_WAIT, re_export};
use crate::export::receipt::log_rejected;
use crate::export::reconcile::reconcile;
use crate::index::ItemName;
use crate::item::StreamRecord;
use crate::item::stream_record::EVENT_SOURCE;
use crate::kv::Source;
use crate::ports::{Namespace, Services};
use crate::telemetry::Stats;
use crate::telemetry::stats::ReconcileRun;

/// What is left for the answer when the work has to stop: enough for little CPU, and the way back.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);

pub struct Handler<S> {
    services: S,
    config: ExporterConfig,
    removals: Removals,
}

/// With what it counted.
pub type Handled = (Result<Answer, HandlerError>, Stats);

impl<S: Services> Handler<S> {
    pub fn new(services: S, config: ExporterConfig) -> Self {
        Self { services, config, removals: Removals::default() }
    }

    /// Answers within `time_left`. The payload, up to 6 MB, is dropped as soon as it is decoded.
    pub async fn handle(&self, payload: impl AsRef<str>, time_left: Duration) -> Handled {
        let started = Instant::now();
        let request = Payload::parse(payload.as_ref());
        drop(payload);
        let margin = ANSWER_MARGIN.min(time_left / 4);
        let deadline = started + (time_left - margin);
        if self.config.dry_run {
            warn!("dry run: CLOUDFLARE_ACCOUNT_ID is absent, so nothing is sent to Cloudflare");
        }
        // Boxed: each use case is a deep future, and only one of them is under way.
        let invocation = |source| Invocation::new(&self.services, &self.config, deadline, source);
        let mut account = None;
        let (source, result, mut stats) = match request {
            Err(error) => ("invalid", Err(error.into()), Stats::default()),
            Ok(Payload::Stream(records)) => {
                let invocation = invocation(Source::Stream).writing_for(TIME_TO_WRITE);
                let result = Box::pin(stream(&invocation, records, &self.removals)).await;
                ("stream", result, invocation.stats())
            }
            Ok(Payload::ReExport(request)) => {
                let invocation = invocation(Source::ReExport).waiting_at_most(LONGEST_WAIT);
                let result = Box::pin(re_export(&invocation, &request)).await;
                let result = result.map_err(|error| HandlerError::ReExport(Box::new(error)));
                ("re-export", result.map(Answer::ReExport), invocation.stats())
            }
            Ok(Payload::Reconcile(request)) => {
                let invocation = invocation(Source::Reconcile).paced();
                let result = Box::pin(reconcile(&invocation, &request)).await;
                let result = result.map(|report| Answer::Reconcile(Box::new(report)));
                account = request.system_account_id;
                ("reconcile", result.map_err(HandlerError::from), invocation.stats())
            }
            Ok(Payload::Explain(request)) => {
                // It compares KV with what a re-export would write, and writes nothing.
                let invocation = invocation(Source::ReExport).waiting_at_most(LONGEST_WAIT);
                let result = Box::pin(explain(&invocation, &request)).await;
                account = account_of(&request, &result);
                let result = result.map_err(|error| HandlerError::Explain(Box::new(error)));
                let result = result.map(|report| Answer::Explain(Box::new(report)));
                ("explain", result, invocation.stats())
            }
        };
        for duration in self.services.take_secret_readings() {
            stats.secrets_requests += 1;
            stats.secrets_ms += duration;
        }
        stats.duration_ms = started.elapsed();
        log_invocation(source, &result, account.as_deref(), &stats);
        (result, stats)
    }
}

async fn stream<S: Services>(
    invocation: &Invocation<'_, S>,
    records: Vec<StreamRecord>,
    removals: &Removals,
) -> Result<Answer, HandlerError> {
    if records.iter().any(|record| record.from_another_source) {
        let reason = format!("Records hold another event source than {EVENT_SOURCE}");
        return Err(InvalidPayload(reason).into());
    }
    let sequence_numbers: Vec<Option<String>> =
        records.iter().map(|record| record.sequence_number.clone()).collect();
    let outcomes = export_batch(invocation, records, removals).await;
    invocation.write_receipts(Namespace::Settings);
    invocation.write_receipts(Namespace::QueryConfigs);
    let outcomes = outcomes.iter().zip(sequence_numbers);
    let outcomes = outcomes.inspect(|(outcome, number)| log_record(outcome, number.as_deref()));
    let failed = outcomes.filter(|(outcome, _)| matches!(outcome, RecordOutcome::Failed(..)));
    stream_answer(failed.map(|(_, sequence_number)| sequence_number))
}

/// One line for each record that was not exported as it should be.
fn log_record(outcome: &RecordOutcome, sequence_number: Option<&str>) {
    match outcome {
        RecordOutcome::Rejected(item, rejection) => {
            log_rejected(item.as_ref(), sequence_number, rejection);
        }
        RecordOutcome::Failed(ItemName { index, query }, error) => error!(
            system_account_id = index.account,
            index_name = index.name,
            normalized_query = query,
            cell = error.cell_without_api_key(),
            sequence_number,
            error = %Chain(error),
            "record failed"
        ),
        RecordOutcome::Parked(ItemName { index, .. }, error) => error!(
            system_account_id = index.account,
            index_name = index.name,
            cell = error.cell_without_api_key(),
            sequence_number,
            error = %Chain(error),
            "record parked"
        ),
        // One line of its own says of all held ones.
        RecordOutcome::Skipped
        | RecordOutcome::Superseded
        | RecordOutcome::Exported
        | RecordOutcome::Held => {}
    }
}

fn account_of(request: &Explain, result: &Result<ExplainReport, ExplainError>) -> Option<String> {
    let found = result.as_ref().ok().and_then(|report| report.index.as_ref());
    match request {
        Explain::Index(index) => Some(index.account.clone()),
        Explain::Key(_) => found.map(|index| index.system_account_id.clone()),
    }
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
