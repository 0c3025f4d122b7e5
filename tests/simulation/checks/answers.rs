//! What an answer must say about its batch, and what must be true when it comes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ecom_settings_exporter::lambda::{Answer, Handled};

use super::{after_removal, origin, records};
use crate::world::{IndexRef, ItemKey, Namespace, State, Step, Told, index_id, index_of};

/// The most passes of one batch: three rounds of two for its removed items, and one round for what it
/// wrote for items that went meanwhile.
const MAX_PASSES: u32 = 8;

/// The most where nothing changes meanwhile: before and after the deletes.
const PASSES_OVER_A_TABLE_AT_REST: u32 = 2;

/// A batch that took no longer had no call that ran into a limit.
const QUICK: Duration = Duration::from_secs(4);

/// Checks a batch's answer. Returns how many of its records are done.
pub fn stream(
    state: &mut State,
    invocation: usize,
    shard: usize,
    batch: std::ops::Range<usize>,
    (result, stats): &Handled,
) -> usize {
    let answer = match result {
        Ok(Answer::Stream(answer)) => answer,
        other => {
            let answer = format!("[{invocation}] {other:?}");
            state.violate("a batch is answered with what failed", answer);
            return 0;
        }
    };
    for (what, times) in [
        ("withheld", stats.deletes_withheld),
        ("put back", stats.deletes_restored),
        ("API keys reused", stats.api_keys_reused),
        ("parked", stats.parked),
        ("held", stats.removals_held),
    ] {
        state.count(what, times);
    }
    let failed: Vec<&str> = answer
        .batch_item_failures
        .iter()
        .map(|failure| failure.item_identifier.as_deref().unwrap_or_default())
        .collect();
    state.note(|| format!("  [{invocation}] answers {failed:?}, parked {}", stats.parked));
    let records = &state.environment_of(invocation).shards[shard].records[batch];
    let counts = records::counts(state, invocation, records, &failed, stats);
    let mut problems: Vec<(&str, String)> =
        counts.into_iter().map(|text| ("no record is lost", text)).collect();
    let mut rule =
        |rule, problem: Option<String>| problems.extend(problem.map(|text| (rule, text)));
    let failing = |item: &ItemKey, test: &dyn Fn(&Told) -> bool| {
        let told = &state.invocations[invocation].batch[item];
        test(told) && failed.contains(&records[told.last].number.as_str())
    };
    rule("records fail for a reason", groundless(state, invocation, &failed));
    rule(
        "late records that lack only an API key are parked",
        not_parked(state, invocation, &failing),
    );
    rule("settings get through without the API keys service", reuse(state, invocation, &failing));
    rule("the last of a batch that asks for a key has it", not_last(state, invocation));
    let passes = state.invocations[invocation].passes;
    let too_many = |most: u32| (passes > most).then(|| format!("{passes} passes"));
    rule("a removal ends after three rounds", too_many(MAX_PASSES));
    let at_rest = too_many(PASSES_OVER_A_TABLE_AT_REST).filter(|_| is_at_rest(state, invocation));
    rule("a removal makes two passes over a table that stands still", at_rest);
    let done = records.iter().position(|record| failed.contains(&record.number.as_str()));
    let done = done.unwrap_or(records.len());
    let run = &state.invocations[invocation];
    let given_up = run.batch.iter().filter(|(item, told)| {
        let is_parked = stats.parked > 0 && records::may_be_parked(state, invocation, item, told);
        is_parked || stats.rejected > 0 && run.lacks_api_key(&item.pk)
    });
    let given_up: Vec<IndexRef> = given_up.filter_map(|(item, _)| index_of(item)).collect();
    let refused = if stats.parked > 0 { run.refused.clone() } else { BTreeSet::new() };
    state.excused.given_up.extend(given_up);
    state.excused.refused.extend(refused);
    for (rule, problem) in problems {
        state.violate(rule, format!("[{invocation}] {problem}"));
    }
    after_removal(state, invocation, stats.failed > 0, stats);
    done
}

fn is_at_rest(state: &State, invocation: usize) -> bool {
    let (run, environment) = state.run(invocation);
    !environment.has_changed_since(run.began) && !run.failed_services.contains("table")
}

/// Records that failed in a quick batch, with which nothing went wrong.
fn groundless(state: &State, invocation: usize, failed: &[&str]) -> Option<String> {
    let run = &state.invocations[invocation];
    let quick = state.wall_clock() - run.began_at < QUICK.as_secs_f64();
    let hindered = !run.failed_services.is_empty() || !run.without_api_key.is_empty() || !quick;
    let groundless = !failed.is_empty() && !hindered && is_at_rest(state, invocation);
    groundless.then(|| format!("{failed:?} failed"))
}

type Failing<'a> = &'a dyn Fn(&ItemKey, &dyn Fn(&Told) -> bool) -> bool;

/// A late record that failed, though nothing but API keys is missing.
fn not_parked(state: &State, invocation: usize, failing: Failing<'_>) -> Option<String> {
    let (run, environment) = state.run(invocation);
    // An item that changes again and again fails, and so does a removal.
    let changes = environment.has_changed_since(run.began);
    if changes || run.was_hindered_but_by("keys") || origin::table_was_silent(run) {
        return None;
    }
    let mut late = run.batch.keys().filter(|item| index_of(item).is_some());
    let late = late.find(|item| failing(item, &|told| told.late));
    late.map(|item| format!("{item} failed, though it is late"))
}

/// While only the API keys service fails, settings that KV has had for a minute get through.
fn reuse(state: &State, invocation: usize, failing: Failing<'_>) -> Option<String> {
    let (run, environment) = state.run(invocation);
    let changes = environment.has_changed_since(run.began);
    let silent = origin::table_was_silent(run);
    if run.passes > 0 || changes || silent || run.was_hindered_but_by("keys") {
        return None;
    }
    let mut failed = run.batch.keys().filter(|item| failing(item, &|_| true));
    failed.find_map(|item| {
        let index = index_of(item)?;
        let problem = || format!("{index} failed though KV holds an API key of it");
        let visible = state.visible_since_began(invocation);
        has_api_key(state, invocation, &index, visible).then(problem)
    })
}

/// Whether KV has held an API key of the index under its id for so long that every response shows it.
fn has_api_key(state: &State, invocation: usize, index: &IndexRef, since: Step) -> bool {
    let name = state.environment_of(invocation).name;
    let past = state.kv.get(&(Namespace::Settings, index_id(index)));
    past.is_some_and(|past| {
        past.all_since(since, |held| {
            let named = held.as_ref().filter(|held| held.is_ours(name));
            let named = named.and_then(|held| held.named.as_ref());
            named.is_some_and(|named| named.index == *index && !named.api_key.is_empty())
        })
    })
}

/// Of several items of a batch that ask for one key, the one with the last record has it.
fn not_last(state: &State, invocation: usize) -> Option<String> {
    let (run, environment) = state.run(invocation);
    if !run.failed_services.is_empty()
        || origin::table_was_silent(run)
        || !run.without_api_key.is_empty()
        || environment.has_changed_since(run.began)
    {
        return None;
    }
    let mut last: BTreeMap<String, (usize, IndexRef)> = BTreeMap::new();
    for (item, told) in &run.batch {
        let Some(index) = index_of(item) else { continue };
        let Some(settings) = environment.current_settings(&index) else { continue };
        if !environment.exportable(&index, settings) {
            continue;
        }
        for key in settings.kv_keys(&index) {
            let candidate = (told.last, index.clone());
            let entry = last.entry(key).or_insert_with(|| candidate.clone());
            *entry = candidate.max(entry.clone());
        }
    }
    last.iter().find_map(|(key, (_, index))| {
        let written = run.first_written.get(key)?;
        let stands_in = environment.current_settings(written).is_none();
        (written != index && !stands_in)
            .then(|| format!("{key:?} is written for {written}, not for {index}"))
    })
}

/// A batch that would remove more indexes than a process may removes none.
pub fn flood(state: &State, invocation: usize) -> Option<String> {
    let run = &state.invocations[invocation];
    let removed = run.removed.len();
    let too_many = run.is_stream() && removed > state.shape.removals_up_to;
    too_many.then(|| format!("{removed} indexes lose keys: {:?}", run.removed))
}
