//! A stream batch: plan, then both namespaces at the same time, writes before deletes.

mod late;
pub mod outcome;
pub mod plan;
mod query_configs;
pub mod removals;
mod settings;

use std::time::{Duration, UNIX_EPOCH};

use self::late::let_the_table_decide;
use self::outcome::RecordOutcome;
use self::plan::{BatchPlan, Deciding, plan};
use self::removals::{Removals, is_removal};
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::index::ItemName;
use crate::item::{Rejection, StreamRecord};
use crate::ports::{Clock, Services};
use crate::telemetry::lags::Lags;

/// How long a batch writes: what it writes later could undo what a re-export or a repair wrote
/// meanwhile. What fails then is late when it comes again. A batch waits 10 s for the table and 20 s
/// for API keys before it writes.
pub const TIME_TO_WRITE: Duration = Duration::from_secs(60);

/// What became of an item of the batch.
#[derive(Debug, Clone, PartialEq)]
enum ItemVerdict {
    /// KV is as the item asks for.
    Done,
    /// Trying again can't help.
    Rejected(Rejection),
    /// Trying again may help.
    Failed(KeyError),
    /// Left to reconcile: only an API key is missing, from this cell.
    Parked { cell: String, error: KeyError },
}

/// Exports a batch; answers with what became of each record, in batch order.
pub async fn export_batch<S: Services>(
    invocation: &Invocation<'_, S>,
    records: Vec<StreamRecord>,
    removals: &Removals,
) -> Vec<RecordOutcome> {
    let created_at: Vec<Option<f64>> = records.iter().map(|record| record.created_at).collect();
    let mut plan = plan(records, invocation.config, invocation.began);
    let_the_table_decide(invocation, &mut plan).await;
    removals.hold_flood(&mut plan, invocation.config.removals_up_to, invocation.began);
    let BatchPlan { settings, query_configs, mut outcomes } = plan;
    let names = settings.iter().map(|item| (item.index.clone().into(), &item.deciding));
    let names = names
        .chain(query_configs.iter().map(|item| (item.query_config.clone().into(), &item.deciding)));
    for (name, deciding) in names {
        invocation.receipts.note_record(name, deciding.record(invocation.stamp()));
    }
    let ((settings_verdicts, settings_end), (query_config_verdicts, query_configs_end)) = tokio::join!(
        async { (settings::export(invocation, &settings).await, seconds_now(invocation)) },
        async {
            (query_configs::export(invocation, &query_configs).await, seconds_now(invocation))
        },
    );
    for (item, verdict) in settings.iter().zip(settings_verdicts) {
        if is_removal(item) && verdict == ItemVerdict::Done {
            removals.count(&item.index, invocation.services.clock().now());
        }
        let to_retry = item.records_to_retry();
        verdict.apply(item.index.clone().into(), &item.deciding, &to_retry, &mut outcomes);
    }
    for (item, verdict) in query_configs.iter().zip(query_config_verdicts) {
        let name = item.query_config.clone().into();
        verdict.apply(name, &item.deciding, &[item.deciding.position], &mut outcomes);
    }
    count_outcomes(invocation, &outcomes);
    let lags = |deciding: Vec<usize>, end: f64| {
        let exported = deciding.into_iter().filter(|at| outcomes[*at] == RecordOutcome::Exported);
        Lags::of(exported.filter_map(|at| lag(created_at[at]?, end)))
    };
    let settings = settings.iter().map(|item| item.deciding.position).collect();
    let query_configs = query_configs.iter().map(|item| item.deciding.position).collect();
    invocation.count(|stats| {
        stats.settings_lag_ms = lags(settings, settings_end);
        stats.query_config_lag_ms = lags(query_configs, query_configs_end);
    });
    outcomes
}

/// The time from a change in the table, which is told to the second, to the end of its export.
fn lag(created_at: f64, end: f64) -> Option<Duration> {
    Duration::try_from_secs_f64((end - created_at).max(0.0)).ok()
}

fn seconds_now<S: Services>(invocation: &Invocation<'_, S>) -> f64 {
    let now = invocation.services.clock().now();
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

impl ItemVerdict {
    /// The verdict on an item that can't be done. A late record that lacks nothing but an API key is left
    /// to reconcile, and one of which Cloudflare refuses a pair or a delete alone can't be exported: it
    /// must not hold the shard.
    fn of_error(error: KeyError, deciding: &Deciding) -> Self {
        match (error.missing_api_key(), error.refused_alone()) {
            _ if !deciding.late => Self::Failed(error),
            (Some(missing), _) if missing.parks_late_records() => {
                Self::Parked { cell: missing.cell.clone(), error }
            }
            (_, Some(refusal)) => Self::Rejected(Rejection::new("(pair)", refusal.to_string())),
            _ => Self::Failed(error),
        }
    }

    /// The verdict on an item with two of them: what may help has to be tried again.
    fn and(self, other: Self) -> Self {
        if matches!(self, Self::Failed(_)) { self } else { other }
    }

    /// Makes the item's verdict the outcome of its records: of the deciding one, and of all that a
    /// retry needs where the item failed.
    fn apply(
        self,
        item: ItemName,
        deciding: &Deciding,
        to_retry: &[usize],
        outcomes: &mut [RecordOutcome],
    ) {
        outcomes[deciding.position] = match self {
            Self::Done => return,
            Self::Rejected(rejection) => RecordOutcome::Rejected { item: Some(item), rejection },
            Self::Parked { cell, error } => RecordOutcome::Parked { item, cell, error },
            Self::Failed(error) => {
                let cell = error.missing_api_key().map(|missing| missing.cell.clone());
                let failed = RecordOutcome::Failed { item, cell, error };
                for record in to_retry {
                    outcomes[*record] = failed.clone();
                }
                failed
            }
        };
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
                RecordOutcome::Held => stats.removals_held += 1,
                RecordOutcome::Rejected { .. } => stats.rejected += 1,
                RecordOutcome::Failed { .. } => stats.failed += 1,
                RecordOutcome::Parked { .. } => stats.parked += 1,
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::testing::{Fakes, KvFault};
    use crate::index::IndexRef;
    use crate::kv::Source;
    use crate::ports::KvError;
    use serde_json::{json, value::to_raw_value};
    use tokio::time::Instant;

    /// What becomes of two indexes and a query config that are written at the same time, and when.
    async fn written(fakes: &Fakes) -> (Vec<bool>, Duration) {
        let start = Instant::now();
        let deadline = start + Duration::from_secs(900);
        let invocation = Invocation::new(fakes, &fakes.config, deadline, Source::Stream);
        let record = |sk: &str| {
            let json = json!({"eventName": "MODIFY", "dynamodb": {
                "Keys": {"pk": {"S": "a"}, "sk": {"S": sk}},
                "NewImage": {"index_endpoint": {"S": "https://h"}}}});
            StreamRecord::read(&to_raw_value(&json).unwrap())
        };
        let records = ["INDEX#i", "INDEX#j", "INDEX#i#QUERY#q"].map(record).into();
        let outcomes =
            export_batch(&invocation.writing_for(TIME_TO_WRITE), records, &Removals::default())
                .await;
        let exported = outcomes.iter().map(|outcome| *outcome == RecordOutcome::Exported);
        (exported.collect(), start.elapsed())
    }

    fn refused(wait: u64) -> KvFault {
        let retry_after = Some(Duration::from_secs(wait));
        KvFault::Fails(KvError::Transient { reason: "429".into(), retry_after })
    }

    /// Settings and query configs go side by side, so each fault comes twice.
    fn twice(fault: impl Fn() -> KvFault) -> [KvFault; 2] {
        [fault(), fault()]
    }

    #[tokio::test(start_paused = true)]
    async fn what_kv_has_not_confirmed_after_a_minute_fails_then() {
        let fakes = Fakes::new();
        fakes.kv.faults.then(twice(|| KvFault::Hangs));
        assert_eq!(written(&fakes).await, (vec![false; 3], TIME_TO_WRITE), "a PUT that hangs");

        let fakes = Fakes::new();
        fakes.kv.faults.then((0..100).map(|_| KvFault::TimesOut));
        assert_eq!(written(&fakes).await, (vec![false; 3], TIME_TO_WRITE), "and its halves");

        let fakes = Fakes::new();
        fakes.kv.faults.then((0..100).map(|_| refused(25)));
        assert_eq!(written(&fakes).await, (vec![false; 3], TIME_TO_WRITE), "25 s, 25 s, 10 s");

        let fakes = Fakes::new();
        fakes.kv.faults.then(twice(|| refused(300)));
        assert_eq!(written(&fakes).await, (vec![false; 3], TIME_TO_WRITE), "five minutes");
        assert_eq!(fakes.kv.requests.borrow().len(), 2, "nothing is sent after the wait");
    }

    #[tokio::test(start_paused = true)]
    async fn a_chunk_that_is_not_reached_within_a_minute_is_not_sent() {
        let mut fakes = Fakes::new();
        fakes.config.bulk_max_pairs = 1;
        fakes.kv.faults.then([KvFault::Hangs]);
        assert_eq!(written(&fakes).await, (vec![false, false, true], TIME_TO_WRITE));
        assert_eq!(fakes.kv.requests.borrow().len(), 2);
    }

    fn deciding(late: bool) -> Deciding {
        Deciding { position: 2, sequence_number: None, late, changed_at: None }
    }

    #[test]
    fn a_late_record_of_which_a_pair_or_a_delete_is_refused_alone_is_rejected() {
        let refused = || KvError::RefusedContent { reason: "status 400, code 10012".into() };
        let settled =
            |source: KeyError| KeyError::NotSettled { key: "s".into(), source: source.into() };
        for error in [
            KeyError::Kv(refused()),
            settled(KeyError::Kv(refused())),
            settled(KeyError::DeleteUnconfirmed(refused())),
        ] {
            let late = ItemVerdict::of_error(error.clone(), &deciding(true));
            let ItemVerdict::Rejected(rejection) = late else { panic!("{late:?}") };
            assert!(rejection.to_string().contains("status 400, code 10012"), "{rejection}");
            let in_time = ItemVerdict::of_error(error.clone(), &deciding(false));
            assert_eq!(in_time, ItemVerdict::Failed(error));
        }
        let failed = ItemVerdict::of_error(KeyError::StillChanging, &deciding(true));
        let rejected = ItemVerdict::of_error(KeyError::Kv(refused()), &deciding(true));
        for both in [rejected.clone().and(failed.clone()), failed.clone().and(rejected)] {
            assert_eq!(both, failed, "the other key may get through");
        }
    }

    fn outcomes_of(verdict: ItemVerdict) -> [RecordOutcome; 3] {
        let index = IndexRef::parse("a", "i").unwrap();
        let mut outcomes =
            [RecordOutcome::Superseded, RecordOutcome::Superseded, RecordOutcome::Exported];
        verdict.apply(index.into(), &deciding(false), &[0, 2], &mut outcomes);
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
        assert!(matches!(deciding, RecordOutcome::Rejected { .. }));
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
