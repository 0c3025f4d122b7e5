//! Reconcile.

use serde::Serialize;

use crate::payload::Reconcile;
use crate::ports::Services;
use crate::run::Run;

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {}

/// Why a reconcile failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileError {
    /// Cloudflare refuses the token.
    #[error("{0}")]
    CloudflareAuthRejected(String),
    /// A service failed.
    #[error("{0}")]
    Incomplete(String),
}

/// Compares KV with the table.
pub async fn reconcile<S: Services>(
    _: &Run<'_, S>,
    _: &Reconcile,
) -> Result<Report, ReconcileError> {
    Err(ReconcileError::Incomplete("not available yet".to_owned()))
}
