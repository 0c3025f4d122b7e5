//! A stream batch: plan, then both namespaces at the same time, writes before deletes.

pub mod plan;
mod query_configs;
mod settings;

use std::time::{Duration, UNIX_EPOCH};

use self::plan::{BatchPlan, RecordOutcome, RejectedRecord, plan};
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::index::IndexRef;
use crate::item::{Rejection, StreamRecord};
use crate::ports::{Clock, Services};

/// What became of an item of the batch.
#[derive(Debug, Clone, PartialEq)]
enum ItemVerdict {
    /// KV is as the item asks for.
    Done,
    /// Trying again can't help.
    Rejected(Rejection),
    /// Trying again may help.
    Failed(KeyError),
}

/// Exports a batch; answers with what became of each record, in batch order.
pub async fn export_batch<S: Services>(
    invocation: &Invocation<'_, S>,
    records: Vec<StreamRecord>,
) -> Vec<RecordOutcome> {
    let created_at: Vec<Option<f64>> = records.iter().map(|record| record.created_at).collect();
    let BatchPlan { settings, query_configs, mut outcomes } = plan(records);
    let (settings_verdicts, query_config_verdicts) = tokio::join!(
        settings::export(invocation, &settings),
        query_configs::export(invocation, &query_configs),
    );
    for (item, verdict) in settings.iter().zip(settings_verdicts) {
        apply(verdict, &item.index, item.record, &item.records_to_retry(), &mut outcomes);
    }
    for (item, verdict) in query_configs.iter().zip(query_config_verdicts) {
        let index = &item.query_config.index;
        apply(verdict, index, item.record, &[item.record], &mut outcomes);
    }
    count_outcomes(invocation, &outcomes);
    count_lag(invocation, &outcomes, &created_at);
    outcomes
}

/// Makes an item's verdict the outcome of its records: of the deciding one, and of all that a retry
/// needs where the item failed.
fn apply(
    verdict: ItemVerdict,
    index: &IndexRef,
    deciding: usize,
    to_retry: &[usize],
    outcomes: &mut [RecordOutcome],
) {
    match verdict {
        ItemVerdict::Done => {}
        ItemVerdict::Rejected(rejection) => {
            outcomes[deciding] =
                RecordOutcome::Rejected(RejectedRecord { index: Some(index.clone()), rejection });
        }
        ItemVerdict::Failed(error) => {
            for record in to_retry {
                let index = index.clone();
                outcomes[*record] = RecordOutcome::Failed { index, error: error.clone() };
            }
        }
    }
}

fn count_outcomes<S: Services>(invocation: &Invocation<'_, S>, outcomes: &[RecordOutcome]) {
    invocation.count(|stats| {
        for outcome in outcomes {
            stats.records += 1;
            match outcome {
                RecordOutcome::Skipped => stats.skipped += 1,
                RecordOutcome::Superseded => stats.superseded += 1,
                RecordOutcome::Exported => stats.exported += 1,
                RecordOutcome::Rejected(_) => stats.rejected += 1,
                RecordOutcome::Failed { .. } => stats.failed += 1,
            }
        }
    });
}

/// Counts the longest time from a change in the table, which is told to the second, to now.
fn count_lag<S: Services>(
    invocation: &Invocation<'_, S>,
    outcomes: &[RecordOutcome],
    created_at: &[Option<f64>],
) {
    let now = invocation.services.clock().now();
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let lag = outcomes
        .iter()
        .zip(created_at)
        .filter(|(outcome, _)| **outcome == RecordOutcome::Exported)
        .filter_map(|(_, created_at)| *created_at)
        .map(|created_at| (now - created_at).max(0.0))
        .filter_map(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .max();
    invocation.count(|stats| stats.propagation_lag_ms = lag);
}
