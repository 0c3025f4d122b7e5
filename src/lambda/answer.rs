//! The answer to an invocation.

use aws_lambda_events::streams::{DynamoDbBatchItemFailure, DynamoDbEventResponse};
use serde::Serialize;

use super::payload::InvalidPayload;
use crate::error_chain::Chain;
use crate::export::explain::{ExplainError, Explained};
use crate::export::re_export::{ReExportError, ReExportReport};
use crate::export::reconcile::{ReconcileError, Report};

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Answer {
    Stream(DynamoDbEventResponse),
    ReExport(ReExportReport),
    Reconcile(Box<Report>),
    Explain(Box<Explained>),
}

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HandlerError {
    #[error(transparent)]
    InvalidPayload(#[from] InvalidPayload),
    #[error(transparent)]
    ReExport(Box<ReExportError>),
    #[error(transparent)]
    Reconcile(#[from] ReconcileError),
    #[error(transparent)]
    Explain(Box<ExplainError>),
    #[error(
        "{0} failed records have no SequenceNumber to be named by in the answer: the whole batch has to be sent again"
    )]
    MissingSequenceNumber(usize),
}

impl HandlerError {
    /// Returns the `errorMessage` of the Lambda error: what happened, with its causes.
    pub fn message(&self) -> String {
        Chain(self).to_string()
    }

    pub fn error_type(&self) -> &'static str {
        match self {
            Self::InvalidPayload(_) => "InvalidPayload",
            Self::ReExport(error) => match &**error {
                ReExportError::IndexNotFound(_) => "IndexNotFound",
                ReExportError::RecordRejected { .. } => "RecordRejected",
                ReExportError::CloudflareAuthRejected { .. } => "CloudflareAuthRejected",
                ReExportError::Incomplete { .. } => "ReExportIncomplete",
            },
            Self::Reconcile(error) => match error {
                ReconcileError::CloudflareAuthRejected(_) => "CloudflareAuthRejected",
                ReconcileError::PassStopped { .. }
                | ReconcileError::AccountUnread(_)
                | ReconcileError::ListingStopped { .. }
                | ReconcileError::ListingDoesNotAdvance { .. }
                | ReconcileError::NoProgress => "ReconcileIncomplete",
            },
            Self::Explain(error) => match &**error {
                ExplainError::IndexNotFound { .. } => "IndexNotFound",
                ExplainError::CloudflareAuthRejected(_) => "CloudflareAuthRejected",
                ExplainError::Incomplete { .. } => "ExplainIncomplete",
            },
            Self::MissingSequenceNumber(_) => "MissingSequenceNumber",
        }
    }
}

/// Returns the answer to a batch in which the records with these sequence numbers failed. A failed record
/// without a sequence number fails the invocation: null or `""` would make Lambda send nothing again.
pub fn stream_answer(
    failed: impl IntoIterator<Item = Option<String>>,
) -> Result<Answer, HandlerError> {
    let mut answer = DynamoDbEventResponse::default();
    let mut unnamed = 0;
    for sequence_number in failed {
        let mut failure = DynamoDbBatchItemFailure::default();
        failure.item_identifier = sequence_number.filter(|number| !number.is_empty());
        unnamed += usize::from(failure.item_identifier.is_none());
        answer.batch_item_failures.push(failure);
    }
    match unnamed {
        0 => Ok(Answer::Stream(answer)),
        _ => Err(HandlerError::MissingSequenceNumber(unnamed)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failed_records_are_named_in_order_and_one_without_a_number_fails_the_batch() {
        let answer = |failed: &[Option<&str>]| {
            stream_answer(failed.iter().map(|number| number.map(str::to_owned)))
        };
        let named = answer(&[Some("2"), Some("1")]).unwrap();
        assert_eq!(
            serde_json::to_string(&named).unwrap(),
            r#"{"batchItemFailures":[{"itemIdentifier":"2"},{"itemIdentifier":"1"}]}"#
        );
        assert_eq!(
            serde_json::to_string(&answer(&[]).unwrap()).unwrap(),
            r#"{"batchItemFailures":[]}"#
        );
        for unnamed in [None, Some("")] {
            assert_eq!(answer(&[Some("1"), unnamed]), Err(HandlerError::MissingSequenceNumber(1)));
        }
    }
}
