//! Reconcile: makes KV equal to the table.
//!
//! One run: list KV's next keys, make a pass over the table, judge every key, ask the brakes, and carry out what
//! they let through. What one run compares is a part; where keys are left to list, or time ends before a part
//! is repaired, the report has a `continue`, which is the chain's [`Progress`].

mod carry_out;
mod part;
mod progress;
mod report;

use serde::Deserialize;
use tracing::warn;

pub use self::progress::Progress;
pub use self::report::{Action, Actions, Class, Report};

use self::carry_out::carry_out;
use self::part::Part;
use self::report::{are_none, count_findings, log_findings, log_refused};
use super::api_keys::{ApiKeys, Fallback};
use super::invocation::Invocation;
use super::judge::Range;
use crate::kv::Namespace;
use crate::ports::{ServiceError, Services};

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Reconcile {
    /// Whether to repair what differs.
    pub apply: bool,
    /// Whether it is an audit by a version that is not live. Its findings raise no alarm.
    pub preview: bool,
    /// The one account to look at; all of them where absent.
    pub system_account_id: Option<String>,
    /// The `continue` of the run before.
    pub r#continue: Option<String>,
    /// The numbers to which it raises the brakes.
    pub delete_up_to: Option<u64>,
    pub rewrite_up_to: Option<u64>,
    /// How far the chain has come, read from it.
    #[serde(skip)]
    pub progress: Progress,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReconcileError {
    #[error("the table can't be read; nothing was written")]
    TableUnread(#[from] ServiceError),
    #[error("the keys of {0:?} can't be listed; nothing was written")]
    KeysUnlisted(Namespace, #[source] ServiceError),
    #[error("the listing of {0:?} goes round in a circle; nothing was written")]
    ListingDoesNotAdvance(Namespace),
    #[error(
        "a whole run got nothing done of its part: the time is too short for two passes over the table, or KV refuses every request"
    )]
    NoProgress,
}

pub async fn reconcile<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Reconcile,
) -> Result<Report, ReconcileError> {
    let config = invocation.config;
    let mut progress = request.progress.clone();
    let account = request.system_account_id.clone();
    let range = Range { account, ..progress.range.clone() };
    let mut api_keys = ApiKeys::new(Fallback::Nothing, invocation.budget.api_keys);
    let mut part = Part::list(invocation, range, progress.cursor.clone()).await?;
    part.pass_over_table(invocation, &mut api_keys).await?;
    // An open part's counts stay as they were when it was first compared.
    if !progress.is_open {
        progress.begin(&part, request);
    }
    let failed = if request.apply && !config.dry_run {
        carry_out(invocation, request, &part, &mut api_keys, &mut progress).await?
    } else {
        Some(part.unjudged())
    };
    let is_finished = failed.is_some();
    progress.findings.add(&failed.unwrap_or_default());
    log_findings(&progress.findings, &api_keys);
    log_refused(request, part.table.has_indexes, progress.refused_now);
    let stopped = match part.end() {
        _ if !is_finished => Some("the time was up before all of this part was repaired"),
        Some(end) => {
            progress.advance(end.clone(), part.cursor_to(end));
            Some("the keys that are left have a run of their own")
        }
        None => None,
    };
    if let Some(reason) = stopped {
        warn!(reason, "reconcile goes on in the next run");
    }
    let is_whole = are_none(&progress.refused) && !progress.left_out;
    let report = Report {
        apply: request.apply,
        complete: stopped.is_none() && (is_whole || !request.apply),
        next_run: stopped.map(|_| progress.to_text(request, &config.environment)),
        stopped,
        findings: progress.findings,
        refused: progress.refused,
        dry_run: config.dry_run,
    };
    count_findings(invocation, request, &report, progress.refused_now);
    Ok(report)
}
