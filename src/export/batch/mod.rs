//! A stream batch: plan, then both namespaces at the same time, writes before deletes.

mod late;
pub mod outcome;
pub mod plan;
mod query_configs;
mod settings;

use std::time::{Duration, UNIX_EPOCH};

use self::late::let_the_table_decide;
use self::outcome::{RecordOutcome, RejectedRecord};
use self::plan::{BatchPlan, plan};
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
    /// Left to reconcile: only the API key of its account is missing, from this cell.
    Parked { cell: String, error: KeyError },
}

/// Exports a batch; answers with what became of each record, in batch order.
pub async fn export_batch<S: Services>(
    invocation: &Invocation<'_, S>,
    records: Vec<StreamRecord>,
) -> Vec<RecordOutcome> {
    let created_at: Vec<Option<f64>> = records.iter().map(|record| record.created_at).collect();
    let mut plan = plan(records, invocation.config, invocation.began);
    let_the_table_decide(invocation, &mut plan).await;
    let BatchPlan { settings, query_configs, mut outcomes } = plan;
    let (settings_verdicts, query_config_verdicts) = tokio::join!(
        settings::export(invocation, &settings),
        query_configs::export(invocation, &query_configs),
    );
    for (item, verdict) in settings.iter().zip(settings_verdicts) {
        let deciding = item.deciding.position;
        apply(verdict, &item.index, deciding, &item.records_to_retry(), &mut outcomes);
    }
    for (item, verdict) in query_configs.iter().zip(query_config_verdicts) {
        let deciding = item.deciding.position;
        apply(verdict, &item.query_config.index, deciding, &[deciding], &mut outcomes);
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
    let index = index.clone();
    match verdict {
        ItemVerdict::Done => {}
        ItemVerdict::Rejected(rejection) => {
            outcomes[deciding] =
                RecordOutcome::Rejected(RejectedRecord { index: Some(index), rejection });
        }
        ItemVerdict::Parked { cell, error } => {
            outcomes[deciding] = RecordOutcome::Parked { index, cell, error };
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
                RecordOutcome::Parked { .. } => stats.parked += 1,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes_of(verdict: ItemVerdict) -> [RecordOutcome; 3] {
        let index = IndexRef::parse("a", "i").unwrap();
        let mut outcomes =
            [RecordOutcome::Superseded, RecordOutcome::Superseded, RecordOutcome::Exported];
        apply(verdict, &index, 2, &[0, 2], &mut outcomes);
        outcomes
    }

    #[test]
    fn a_done_item_leaves_what_the_plan_says() {
        assert_eq!(outcomes_of(ItemVerdict::Done)[2], RecordOutcome::Exported);
    }

    #[test]
    fn a_rejected_item_rejects_its_deciding_record_alone() {
        let [_, superseded, deciding] =
            outcomes_of(ItemVerdict::Rejected(Rejection::new("x", "is broken")));
        assert!(matches!(deciding, RecordOutcome::Rejected(_)));
        assert_eq!(superseded, RecordOutcome::Superseded);
    }

    #[test]
    fn a_failed_item_fails_every_record_that_a_retry_needs() {
        let outcomes = outcomes_of(ItemVerdict::Failed(KeyError::StillChanging));
        let failed = outcomes.map(|outcome| matches!(outcome, RecordOutcome::Failed { .. }));
        assert_eq!(failed, [true, false, true]);
    }

    #[test]
    fn a_parked_item_parks_its_deciding_record_and_fails_none() {
        let error = KeyError::StillChanging;
        let [first, _, deciding] =
            outcomes_of(ItemVerdict::Parked { cell: "cell-1".into(), error });
        assert!(matches!(deciding, RecordOutcome::Parked { .. }));
        assert_eq!(first, RecordOutcome::Superseded);
    }
}
