//! No record is lost: each is skipped, exported, failed, parked, held or rejected.

use std::collections::BTreeMap;

use ecom_settings_exporter::telemetry::Stats;

use crate::world::{ItemKey, Record, State, Told, index_of, query_of};

pub fn counts(
    state: &State,
    invocation: usize,
    records: &[Record],
    failed: &[&str],
    stats: &Stats,
) -> Vec<String> {
    let mut problems = Vec::new();
    let in_order: Vec<&str> =
        records.iter().map(|r| r.number.as_str()).filter(|n| failed.contains(n)).collect();
    if in_order != failed {
        problems.push(format!("the answer names {failed:?}, out of order, or not of the batch"));
    }
    let all = stats.skipped
        + stats.exported
        + stats.failed
        + stats.parked
        + stats.removals_held
        + stats.rejected;
    if all != records.len() as u64 || stats.records != all || stats.failed != failed.len() as u64 {
        problems.push(format!("records are lost: {stats:?}"));
    }
    problems.extend(shared_fate(records, failed));
    let run = &state.invocations[invocation];
    let garbage = records.iter().filter(|record| record.item.is_none()).count() as u64;
    let at_most = |test: &dyn Fn(&ItemKey, &Told) -> bool| {
        let of_item = |record: &&Record| {
            let item = record.item.as_ref();
            item.is_some_and(|item| test(item, &run.batch[item]))
        };
        records.iter().filter(of_item).count() as u64
    };
    let rejected = garbage + at_most(&|item, told| may_be_rejected(state, invocation, item, told));
    if !(garbage..=rejected).contains(&stats.rejected) {
        problems.push(format!("{} rejected, not {garbage} to {rejected}", stats.rejected));
    }
    let parked = at_most(&|item, told| may_be_parked(state, invocation, item, told));
    if stats.parked > parked {
        problems.push(format!("{} parked, not up to {parked}", stats.parked));
    }
    let many = state.shape.removals_up_to < state.shape.indexes.len();
    let held = at_most(&|item, _| many && index_of(item).is_some());
    if stats.removals_held > held {
        problems.push(format!("{} held, not up to {held}", stats.removals_held));
    }
    problems
}

/// All records of an item fail, or none.
fn shared_fate(records: &[Record], failed: &[&str]) -> Option<String> {
    let mut fates: BTreeMap<&ItemKey, bool> = BTreeMap::new();
    records.iter().find_map(|record| {
        let fails = failed.contains(&record.number.as_str());
        let fate = *fates.entry(record.item.as_ref()?).or_insert(fails);
        (fate != fails).then(|| format!("{} has another fate than its item", record.number))
    })
}

/// An item can't be exported as it was in the table, or as the image says that stands in for it.
fn may_be_rejected(state: &State, invocation: usize, item: &ItemKey, told: &Told) -> bool {
    let (run, environment) = state.run(invocation);
    let unreadable = told.version.is_none() && !told.is_removal;
    if query_of(item).is_some() {
        return unreadable;
    }
    let Some(index) = index_of(item) else { return false };
    let lacks_a_key = run.lacks_api_key(&item.pk);
    let mut settings = environment.settings_since(&index, 0);
    // The image may be as old as the batch.
    lacks_a_key || unreadable || settings.any(|settings| !environment.exportable(&index, settings))
}

/// A late record, whose item lacks an API key, or leaves a key to one that does; or Cloudflare refuses
/// a request.
pub fn may_be_parked(state: &State, invocation: usize, item: &ItemKey, told: &Told) -> bool {
    let run = &state.invocations[invocation];
    let keyless = &state.environment_of(invocation).keyless;
    let lacks_a_key = !run.without_api_key.is_empty() || !keyless.is_empty();
    let ours = index_of(item).is_some() || query_of(item).is_some();
    ours && told.late && (run.was_refused || lacks_a_key && index_of(item).is_some())
}
