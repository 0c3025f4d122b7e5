//! A stream batch: plan, then both namespaces at the same time, writes before deletes.

mod late;
pub mod outcome;
pub mod plan;
mod query_configs;
pub mod removals;
mod settings;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use self::late::let_the_table_decide;
use self::outcome::RecordOutcome;
use self::plan::{BatchPlan, Deciding, PlannedItem, plan};
use self::removals::{Removals, is_removal};
use crate::export::invocation::Invocation;
use crate::export::receipt::Receipts;
use crate::index::ItemName;
use crate::item::StreamRecord;
use crate::ports::{Clock, Services};
use crate::telemetry::Stats;
use crate::telemetry::stats::at_most_100;

/// How long a batch writes: what it writes later could undo what a re-export or a repair wrote
/// meanwhile. What fails then is late when it comes again. A batch waits 10 s for the table and 20 s
/// for API keys before it writes.
pub const TIME_TO_WRITE: Duration = Duration::from_secs(60);

/// Exports a batch; answers with what became of each record, in batch order.
pub async fn export_batch<S: Services>(
    invocation: &Invocation<'_, S>,
    records: Vec<StreamRecord>,
    removals: &Removals,
) -> Vec<RecordOutcome> {
    let mut plan = plan(records, invocation.config, invocation.began);
    let_the_table_decide(invocation, &mut plan).await;
    removals.hold_flood(&mut plan, invocation.config.removals_up_to, invocation.began);
    let BatchPlan { settings, query_configs, mut outcomes } = plan;
    note_records(&invocation.receipts, &settings);
    note_records(&invocation.receipts, &query_configs);
    let now = || invocation.services.clock().now();
    let ((of_settings, settings_end), (of_query_configs, query_configs_end)) =
        tokio::join!(async { (settings::export(invocation, &settings).await, now()) }, async {
            (query_configs::export(invocation, &query_configs).await, now())
        },);
    for (item, outcome) in settings.iter().zip(of_settings) {
        if is_removal(item) && outcome == RecordOutcome::Exported {
            removals.count(&item.name, now());
        }
        take_in(outcome, &item.deciding, item.records_to_retry(), &mut outcomes);
    }
    for (item, outcome) in query_configs.iter().zip(of_query_configs) {
        take_in(outcome, &item.deciding, [item.deciding.position], &mut outcomes);
    }
    invocation.count(|stats| {
        count_outcomes(stats, &outcomes);
        stats.settings_lag_ms = lags(&settings, &outcomes, settings_end);
        stats.query_config_lag_ms = lags(&query_configs, &outcomes, query_configs_end);
    });
    outcomes
}

fn note_records<N: Clone + Into<ItemName>, T>(receipts: &Receipts, items: &[PlannedItem<N, T>]) {
    for PlannedItem { name, deciding, .. } in items {
        receipts.note_record(name.clone().into(), deciding.record.clone());
    }
}

/// The times from each change in the table, which is told to the second, to the end of its export.
fn lags<N, T>(
    items: &[PlannedItem<N, T>],
    outcomes: &[RecordOutcome],
    end: SystemTime,
) -> Vec<Duration> {
    let end = end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let deciding = items.iter().map(|item| &item.deciding);
    let exported = deciding.filter(|it| outcomes[it.position] == RecordOutcome::Exported);
    let lag = |created_at: f64| Duration::try_from_secs_f64((end - created_at).max(0.0)).ok();
    at_most_100(exported.filter_map(|it| lag(it.created_at?)))
}

/// Makes an item's outcome that of its records: of the deciding one, or of all that a retry needs where
/// the item failed.
fn take_in(
    outcome: RecordOutcome,
    deciding: &Deciding,
    to_retry: impl IntoIterator<Item = usize>,
    outcomes: &mut [RecordOutcome],
) {
    match outcome {
        // The plan has it, or that the record is superseded.
        RecordOutcome::Exported => {}
        RecordOutcome::Failed(..) => {
            for record in to_retry {
                outcomes[record] = outcome.clone();
            }
        }
        _ => outcomes[deciding.position] = outcome,
    }
}

fn count_outcomes(stats: &mut Stats, outcomes: &[RecordOutcome]) {
    for outcome in outcomes {
        stats.records += 1;
        match outcome {
            RecordOutcome::Skipped => stats.skipped += 1,
            RecordOutcome::Superseded => stats.superseded += 1,
            RecordOutcome::Exported => stats.exported += 1,
            RecordOutcome::Held => stats.removals_held += 1,
            RecordOutcome::Rejected(..) => stats.rejected += 1,
            RecordOutcome::Failed(..) => stats.failed += 1,
            RecordOutcome::Parked(..) => stats.parked += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::error::KeyError;
    use crate::export::fakes::{Fakes, KvFault};
    use crate::export::receipt::Record;
    use crate::index::IndexRef;
    use crate::item::Rejection;
    use crate::kv::Source;
    use crate::ports::{Cause, KvError};
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
        KvFault::Fails(KvError::Transient(Cause { asked_wait: retry_after, ..Cause::new("429") }))
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

    #[test]
    fn a_late_record_of_which_a_pair_or_a_delete_is_refused_alone_is_rejected() {
        let of_error =
            |error, late| RecordOutcome::of_error(IndexRef::parse("a", "i").unwrap(), error, late);
        let refused = || KvError::RefusedContent(Cause::new("status 400, code 10012"));
        let settled =
            |source: KeyError| KeyError::NotSettled { key: "s".into(), source: source.into() };
        for error in [
            KeyError::Kv(refused()),
            settled(KeyError::Kv(refused())),
            settled(KeyError::DeleteUnconfirmed(refused())),
        ] {
            let late = of_error(error.clone(), true);
            let RecordOutcome::Rejected(_, rejection) = late else { panic!("{late:?}") };
            assert!(rejection.to_string().contains("status 400, code 10012"), "{rejection}");
            assert!(matches!(of_error(error, false), RecordOutcome::Failed(..)));
        }
        let failed = of_error(KeyError::StillChanging, true);
        let rejected = of_error(KeyError::Kv(refused()), true);
        for both in [rejected.clone().and(failed.clone()), failed.clone().and(rejected)] {
            assert_eq!(both, failed, "the other key may get through");
        }
    }

    /// What three records come to whose item came to this; the second is superseded for good.
    fn outcomes_of(outcome: RecordOutcome) -> [RecordOutcome; 3] {
        let record = Record::default();
        let deciding = Deciding { position: 2, created_at: None, late: false, record };
        let mut outcomes =
            [RecordOutcome::Superseded, RecordOutcome::Superseded, RecordOutcome::Exported];
        take_in(outcome, &deciding, [0, 2], &mut outcomes);
        outcomes
    }

    #[test]
    fn an_items_outcome_is_that_of_the_record_that_decides_and_a_failure_of_all_that_a_retry_needs()
    {
        use RecordOutcome::{Exported, Failed, Parked, Superseded};
        let item = || IndexRef::parse("a", "i").unwrap();
        let error = KeyError::StillChanging;
        let rejected = RecordOutcome::rejected(item(), Rejection::new("x", "is broken"));
        let failed = Failed(item().into(), error.clone());
        let parked = Parked(item().into(), error);
        assert_eq!(outcomes_of(Exported), [Superseded, Superseded, Exported]);
        for alone in [rejected, parked] {
            assert_eq!(outcomes_of(alone.clone()), [Superseded, Superseded, alone]);
        }
        assert_eq!(outcomes_of(failed.clone()), [failed.clone(), Superseded, failed]);
    }
}
