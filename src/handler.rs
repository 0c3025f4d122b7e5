//! One invocation: payload → use case → answer.

use std::time::Duration;

use aws_lambda_events::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use serde::Serialize;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::entry::Source;
use crate::export::export_batch;
use crate::payload::{InvalidPayload, Payload};
use crate::plan::{RecordOutcome, RejectedRecord};
use crate::ports::{KvStore, Services, World};
use crate::re_export::{self, ReExportError, re_export};
use crate::reconcile::{self, ReconcileError, reconcile};
use crate::run::{Limits, Run};
use crate::stream::{EVENT_SOURCE, StreamRecord};
use crate::tally::Tally;

/// What is left for the answer when the work has to stop. Putting the answer together takes
/// milliseconds; the rest is for a function with little CPU and for the way back.
const ANSWER_MARGIN: Duration = Duration::from_secs(2);

/// The exporter, ready for invocations.
pub struct Handler<S> {
    services: S,
    limits: Limits,
}

/// The answer to an invocation.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    /// To a stream batch: what is to be sent again.
    Stream(DynamoDbEventResponse),
    /// To a re-export.
    ReExport(re_export::Report),
    /// To a reconcile.
    Reconcile(Box<reconcile::Report>),
}

/// Why an invocation fails.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HandlerError {
    /// The payload is none of those taken.
    #[error(transparent)]
    InvalidPayload(#[from] InvalidPayload),
    /// A re-export failed.
    #[error(transparent)]
    ReExport(#[from] ReExportError),
    /// A reconcile failed.
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    /// A record has to be sent again and can't be named in the answer.
    #[error(
        "{0} failed records have no SequenceNumber to be named by in the answer: the whole batch has to be sent again"
    )]
    MissingSequenceNumber(usize),
}

impl HandlerError {
    /// The `errorType` of the Lambda error.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::InvalidPayload(_) => "InvalidPayload",
            Self::ReExport(error) => match error {
                ReExportError::IndexNotFound(_) => "IndexNotFound",
                ReExportError::RecordRejected { .. } => "RecordRejected",
                ReExportError::CloudflareAuthRejected { .. } => "CloudflareAuthRejected",
                ReExportError::Incomplete { .. } => "ReExportIncomplete",
            },
            Self::Reconcile(error) => match error {
                ReconcileError::CloudflareAuthRejected(_) => "CloudflareAuthRejected",
                ReconcileError::Incomplete(_) => "ReconcileIncomplete",
            },
            Self::MissingSequenceNumber(_) => "MissingSequenceNumber",
        }
    }
}

/// An invocation's result, with what it counted.
pub type Handled = (Result<Answer, HandlerError>, Tally);

impl<S: Services> Handler<S> {
    /// A handler over these services.
    pub fn new(services: S, limits: Limits) -> Self {
        Self { services, limits }
    }

    /// Answers an invocation that has `time_left` until Lambda ends it. The payload, which can be
    /// 6 MB, is let go as soon as it is decoded.
    pub async fn handle(&self, payload: impl AsRef<[u8]>, time_left: Duration) -> Handled {
        let (started, begun) = (Instant::now(), self.services.world().now());
        let request = parse(payload.as_ref());
        drop(payload);
        let margin = ANSWER_MARGIN.min(time_left / 4);
        let deadline = started + (time_left - margin);
        if self.limits.dry_run {
            warn!("dry run: CLOUDFLARE_ACCOUNT_ID is absent, so nothing is sent to Cloudflare");
        }
        // Boxed: each use case is a deep future, and only one of them is under way.
        let run = |source| Run::new(&self.services, &self.limits, deadline, source);
        let (source, result, mut tally) = match request {
            Err(error) => ("invalid", Err(error.into()), Tally::default()),
            Ok(Payload::Stream(records)) => {
                let run = run(Source::Stream);
                let result = Box::pin(stream(&run, records)).await;
                (Source::Stream.as_str(), result, run.tally())
            }
            Ok(Payload::ReExport(request)) => {
                let run = run(Source::ReExport);
                let result = Box::pin(re_export(&run, &request)).await;
                let result = result.map(Answer::ReExport).map_err(HandlerError::from);
                (Source::ReExport.as_str(), result, run.tally())
            }
            Ok(Payload::Reconcile(request)) => {
                let run = run(Source::Reconcile);
                let result = Box::pin(reconcile(&run, &request)).await;
                let result = result.map(|report| Answer::Reconcile(Box::new(report)));
                (Source::Reconcile.as_str(), result.map_err(HandlerError::from), run.tally())
            }
        };
        tally.take_in(self.services.kv().take_secret_readings(), begun);
        log_invocation(source, &result, &tally, started.elapsed());
        (result, tally)
    }
}

fn parse(payload: &[u8]) -> Result<Payload, InvalidPayload> {
    let not_text = |_| InvalidPayload("the payload is not UTF-8".to_owned());
    Payload::parse(std::str::from_utf8(payload).map_err(not_text)?)
}

async fn stream<S: Services>(
    run: &Run<'_, S>,
    mut records: Vec<StreamRecord>,
) -> Result<Answer, HandlerError> {
    if records.iter().any(|record| record.foreign) {
        let reason = format!("Records hold another event source than {EVENT_SOURCE}");
        return Err(InvalidPayload(reason).into());
    }
    let sequence_numbers: Vec<Option<String>> =
        records.iter_mut().map(|record| record.sequence_number.take()).collect();
    let outcomes = export_batch(run, records).await;
    count(run, &outcomes);

    let mut answer = DynamoDbEventResponse::default();
    let mut unnamed = 0;
    for (outcome, sequence_number) in outcomes.iter().zip(sequence_numbers) {
        log_record(outcome, sequence_number.as_deref());
        if !matches!(outcome, RecordOutcome::Failed { .. }) {
            continue;
        }
        match sequence_number.filter(|number| !number.is_empty()) {
            None => unnamed += 1,
            Some(number) => {
                let mut failure = DynamoDbBatchItemFailure::default();
                failure.item_identifier = Some(number);
                answer.batch_item_failures.push(failure);
            }
        }
    }
    if unnamed > 0 {
        return Err(HandlerError::MissingSequenceNumber(unnamed));
    }
    Ok(Answer::Stream(answer))
}

fn count<S: Services>(run: &Run<'_, S>, outcomes: &[RecordOutcome]) {
    run.count(|tally| {
        for outcome in outcomes {
            tally.records.received += 1;
            match outcome {
                RecordOutcome::Skipped => tally.records.skipped += 1,
                RecordOutcome::Superseded => tally.records.superseded += 1,
                RecordOutcome::Exported => tally.records.exported += 1,
                RecordOutcome::Rejected(_) => tally.records.rejected += 1,
                RecordOutcome::Failed { .. } => tally.records.failed += 1,
            }
        }
    });
}

/// One line for each record that was not exported as it should be.
fn log_record(outcome: &RecordOutcome, sequence_number: Option<&str>) {
    match outcome {
        RecordOutcome::Rejected(RejectedRecord { index, rejection }) => error!(
            system_account_id = index.as_ref().map(|index| index.account.as_str()),
            index_name = index.as_ref().map(|index| index.index.as_str()),
            path = rejection.path,
            sequence_number,
            error = %rejection,
            "record rejected"
        ),
        RecordOutcome::Failed { index, reason } => error!(
            system_account_id = index.account,
            index_name = index.index,
            sequence_number,
            error = reason,
            "record failed"
        ),
        RecordOutcome::Skipped | RecordOutcome::Superseded | RecordOutcome::Exported => {}
    }
}

/// The invocation's whole story in one line.
fn log_invocation(
    source: &str,
    result: &Result<Answer, HandlerError>,
    tally: &Tally,
    duration: Duration,
) {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let outcome = result.as_ref().map_or_else(HandlerError::error_type, |_| "ok");
    let calls = &tally.calls;
    let report = match result {
        Ok(Answer::Reconcile(report)) => Some(report),
        _ => None,
    };
    info!(
        source,
        outcome,
        records = tally.records.received,
        exported = tally.records.exported,
        superseded = tally.records.superseded,
        skipped = tally.records.skipped,
        failed = tally.records.failed,
        rejected = tally.records.rejected,
        settings_written = tally.settings.written,
        settings_deleted = tally.settings.deleted,
        query_configs_written = tally.query_configs.written,
        query_configs_deleted = tally.query_configs.deleted,
        deletes_withheld = tally.deletes_withheld,
        deletes_restored = tally.deletes_restored,
        api_keys_reused = tally.api_keys_reused,
        missing = report.map(|report| report.total(|counts| counts.missing)),
        stale = report.map(|report| report.total(|counts| counts.stale)),
        orphaned = report.map(|report| report.total(|counts| counts.orphaned)),
        keys_failed = report.map(|report| report.total(|counts| counts.failed)),
        items_rejected = report.map(|report| report.total(|counts| counts.rejected)),
        complete = report.map(|report| report.complete),
        drifted_keys = tally.drifted_keys,
        dangling_aliases = tally.dangling_aliases,
        propagation_lag_ms = tally.propagation_lag.map(millis),
        duration_ms = millis(duration),
        kv_requests = calls.kv.requests,
        kv_retries = calls.kv.retries,
        kv_ms = millis(calls.kv.duration),
        api_keys_requests = calls.api_keys.requests,
        api_keys_retries = calls.api_keys.retries,
        api_keys_ms = millis(calls.api_keys.duration),
        table_requests = calls.table.requests,
        table_ms = millis(calls.table.duration),
        secrets_requests = calls.secrets.requests,
        secrets_ms = millis(calls.secrets.duration),
        "invocation"
    );
    if let Err(error) = result {
        error!(error_type = error.error_type(), error = %error, "invocation failed");
    }
}
