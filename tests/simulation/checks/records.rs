//! No record is lost: each is skipped, superseded, exported, failed, parked, held or rejected.

use ecom_settings_exporter::telemetry::Stats;

use crate::world::{Deciding, ItemKey, Record, State, index_of};

pub fn counts(
    state: &State,
    invocation: usize,
    records: &[Record],
    named: &[&str],
    stats: &Stats,
) -> Vec<String> {
    let mut problems = Vec::new();
    let in_order: Vec<&str> =
        records.iter().map(|r| r.number.as_str()).filter(|n| named.contains(n)).collect();
    if in_order != named {
        problems.push(format!("the answer names {named:?}, out of order, or not of the batch"));
    }
    let all = stats.skipped
        + stats.superseded
        + stats.exported
        + stats.failed
        + stats.parked
        + stats.removals_held
        + stats.rejected;
    if all != records.len() as u64 || stats.records != all || stats.failed != named.len() as u64 {
        problems.push(format!("records are lost: {stats:?}"));
    }
    let run = &state.invocations[invocation];
    let removals = run.batch.removed.len();
    let most_removals = removals + gone_before_their_removal(state, invocation).count();
    let held = usize::try_from(stats.removals_held).unwrap();
    let up_to = state.shape.removals_up_to;
    let is_right = match held {
        0 => removals <= up_to,
        _ => held > up_to && (removals..=most_removals).contains(&held),
    };
    if !is_right {
        problems
            .push(format!("{held} held of {removals} to {most_removals}, with {up_to} allowed"));
    }
    let may_be_parked = may_be_parked(state, invocation).count() as u64;
    if stats.parked > may_be_parked {
        problems.push(format!("{} parked, not up to {may_be_parked}", stats.parked));
    }
    let (invalid, keyless) = rejected(state, invocation, records);
    // An invalid record that names a shop id may have failed with its item's decision.
    let least = if named.is_empty() { invalid } else { 0 };
    let late = run.batch.deciding.values().filter(|deciding| deciding.late).count() as u64;
    let refused = if run.refused.is_empty() { 0 } else { late };
    let most = invalid + keyless + refused;
    if stats.rejected < least || stats.rejected > most {
        problems.push(format!("{} rejected, not {least} to {most}", stats.rejected));
    }
    problems
}

/// Late records of index items that the table may have been without when it was read.
fn gone_before_their_removal(state: &State, invocation: usize) -> impl Iterator<Item = &ItemKey> {
    let (run, environment) = state.run(invocation);
    let late = run.batch.deciding.iter().filter(|(_, deciding)| deciding.late);
    let late = late.filter(|(_, deciding)| deciding.version.is_some());
    late.map(|(item, _)| item).filter(|item| {
        let past = index_of(item).and_then(|index| environment.past_of(&index));
        past.is_some_and(|past| past.since(run.began).any(Option::is_none))
    })
}

/// Records that are rejected by themselves, and those that decide for an account without an API key.
fn rejected(state: &State, invocation: usize, records: &[Record]) -> (u64, u64) {
    let environment = state.environment_of(invocation);
    let deciding = &state.invocations[invocation].batch.deciding;
    let (mut invalid, mut keyless) = (0, 0);
    for (at, record) in records.iter().enumerate() {
        let Some(item) = &record.item else {
            invalid += 1;
            continue;
        };
        let Some(settings) = record.new.as_ref().and_then(|image| image.settings()) else {
            continue;
        };
        let decides = deciding.get(item).is_some_and(|deciding| deciding.position == at);
        if !environment.is_valid(settings) {
            invalid += 1;
        } else if decides && environment.keyless.contains(&item.pk) {
            keyless += 1;
        }
    }
    (invalid, keyless)
}

/// Late records that decide for index items, where the service gave no API key for some account: their
/// own, or that of another item which asks for a key that they leave behind.
pub fn may_be_parked(
    state: &State,
    invocation: usize,
) -> impl Iterator<Item = (&ItemKey, &Deciding)> {
    let run = &state.invocations[invocation];
    let keyless = &state.environment_of(invocation).keyless;
    let lacks_one = !run.unanswered.is_empty() || !keyless.is_empty();
    run.batch
        .deciding
        .iter()
        .filter(move |(item, deciding)| lacks_one && deciding.late && index_of(item).is_some())
}

/// A late record that failed, though nothing but API keys is missing.
pub fn not_parked(
    state: &State,
    invocation: usize,
    records: &[Record],
    named: &[&str],
) -> Option<String> {
    let run = &state.invocations[invocation];
    // Settling may fail for a table that changes.
    let settles = run.passes > 0 && state.environment_of(invocation).has_changed_since(run.began);
    if settles || run.was_hindered_but_by("keys") {
        return None;
    }
    let late = run.batch.deciding.iter();
    let mut late = late.filter(|(item, deciding)| deciding.late && index_of(item).is_some());
    let failed =
        late.find(|(_, deciding)| named.contains(&records[deciding.position].number.as_str()));
    failed.map(|(item, _)| format!("{}/{} failed, though it is late", item.pk, item.sk))
}
