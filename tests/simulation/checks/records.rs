//! No record is lost: each is skipped, superseded, exported, failed, parked or rejected.

use std::collections::BTreeSet;

use ecom_settings_exporter::item::ItemKey;
use ecom_settings_exporter::telemetry::Stats;

use crate::world::environment::{Environment, Record};
use crate::world::invocation::Deciding;
use crate::world::keys::index_of;
use crate::world::model::Settings;
use crate::world::state::State;

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
        + stats.rejected;
    if all != records.len() as u64 || stats.records != all || stats.failed != named.len() as u64 {
        problems.push(format!("records are lost: {stats:?}"));
    }
    let may_be_parked = may_be_parked(state, invocation).count() as u64;
    if stats.parked > may_be_parked {
        problems.push(format!("{} parked, not up to {may_be_parked}", stats.parked));
    }
    let (invalid, keyless) = rejected(state, invocation, records);
    // An invalid record that names a shop id may have failed with its item's decision.
    let least = if named.is_empty() { invalid } else { 0 };
    let most = invalid + keyless;
    if stats.rejected < least || stats.rejected > most {
        problems.push(format!("{} rejected, not {least} to {most}", stats.rejected));
    }
    problems
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

/// Those of them that asked for their own API key, and got no answer.
fn lacking_their_own(
    state: &State,
    invocation: usize,
) -> impl Iterator<Item = (&ItemKey, &Deciding)> {
    let run = &state.invocations[invocation];
    let accounts: BTreeSet<&String> = run.unanswered.iter().map(|(_, account)| account).collect();
    may_be_parked(state, invocation)
        .filter(move |(item, deciding)| deciding.version.is_some() && accounts.contains(&item.pk))
}

/// A late record that failed, though nothing but its own account's API key is missing.
pub fn not_parked(
    state: &State,
    invocation: usize,
    records: &[Record],
    named: &[&str],
) -> Option<String> {
    let run = &state.invocations[invocation];
    let environment = state.environment_of(invocation);
    if run.passes > 0 || run.was_hindered_but_by("keys") {
        return None;
    }
    let mut waiting = lacking_their_own(state, invocation);
    let failed = waiting.find(|(item, deciding)| {
        named.contains(&records[deciding.position].number.as_str())
            && lacks_its_api_key(state, environment, invocation, item)
    });
    failed.map(|(item, _)| format!("{}/{} failed, though it is late", item.pk, item.sk))
}

/// Whether the service was asked for the API key of every version of the item, and gave none.
fn lacks_its_api_key(
    state: &State,
    environment: &Environment,
    invocation: usize,
    item: &ItemKey,
) -> bool {
    let run = &state.invocations[invocation];
    let past = environment.table.get(item);
    let mut settings = past
        .into_iter()
        .flat_map(|past| past.spans())
        .filter_map(|(_, _, image)| image.as_ref().and_then(|image| image.settings()));
    settings.all(|settings: &Settings| {
        let cell = settings.cell.or(environment.default_cell).unwrap_or_default();
        run.unanswered.contains(&(cell.to_owned(), item.pk.clone()))
    })
}
