//! The answer to an invocation.

use std::error::Error;
use std::iter::successors;

use aws_lambda_events::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use lambda_runtime::Diagnostic;
use serde::Serialize;

use crate::export::api_keys::ApiKeyUnavailable;
use crate::export::error::ExportError;
use crate::export::explain::{ExplainError, Explained};
use crate::export::re_export::{ReExportError, ReExportReport};
use crate::export::reconcile::{ReconcileError, Report};
use crate::ports::{ErrorKind, ServiceError};
use crate::text::Chain;

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    Stream(DynamoDbEventResponse),
    ReExport(ReExportReport),
    Reconcile(Box<Report>),
    Explain(Box<Explained>),
}

/// Returns a Lambda error: what happened, with its causes. A token that Cloudflare refuses names the error, wherever
/// it stands among them.
fn diagnostic(error_type: &str, error: &(dyn Error + 'static)) -> Diagnostic {
    let mut causes = successors(Some(error), |&error| error.source());
    let refuses_token = causes.any(|cause| {
        let error: Option<&ServiceError> = match cause.downcast_ref() {
            // KV was read for one to use again.
            Some(ExportError::ApiKey(ApiKeyUnavailable { kv, .. })) => kv.as_ref(),
            _ => cause.downcast_ref(),
        };
        error.is_some_and(|error| error.kind == ErrorKind::AuthRejected)
    });
    let error_type = if refuses_token { "CloudflareAuthRejected" } else { error_type };
    Diagnostic { error_type: error_type.to_owned(), error_message: Chain(error).to_string() }
}

impl From<ReExportError> for Diagnostic {
    fn from(error: ReExportError) -> Self {
        let error_type = match error {
            ReExportError::IndexNotFound(_) => "IndexNotFound",
            ReExportError::RecordRejected { .. } => "RecordRejected",
            ReExportError::Incomplete { .. } => "ReExportIncomplete",
        };
        diagnostic(error_type, &error)
    }
}

impl From<ReconcileError> for Diagnostic {
    fn from(error: ReconcileError) -> Self {
        diagnostic("ReconcileIncomplete", &error)
    }
}

impl From<ExplainError> for Diagnostic {
    fn from(error: ExplainError) -> Self {
        let error_type = match error {
            ExplainError::IndexNotFound { .. } => "IndexNotFound",
            ExplainError::Incomplete { .. } => "ExplainIncomplete",
        };
        diagnostic(error_type, &error)
    }
}

/// Returns the answer to a batch in which the records with these sequence numbers failed. A failed record
/// without a sequence number fails the invocation: null or `""` would make Lambda send nothing again.
pub fn stream_answer(failed: Vec<Option<String>>) -> Result<Answer, Diagnostic> {
    let unnamed =
        failed.iter().filter(|number| number.as_deref().is_none_or(str::is_empty)).count();
    if unnamed > 0 {
        let error_message = format!(
            "{unnamed} failed records have no SequenceNumber to be named by in the answer: the whole batch has to be sent again"
        );
        return Err(Diagnostic { error_type: "MissingSequenceNumber".to_owned(), error_message });
    }
    let mut answer = DynamoDbEventResponse::default();
    for sequence_number in failed {
        let mut failure = DynamoDbBatchItemFailure::default();
        failure.item_identifier = sequence_number;
        answer.batch_item_failures.push(failure);
    }
    Ok(Answer::Stream(answer))
}
