//! What an answer must say about its batch, and what must be true when it comes.

use std::collections::{BTreeMap, BTreeSet};

use ecom_settings_exporter::lambda::{Answer, Handled};

use super::{after_look, records};
use crate::world::{
    Content, ItemKey, Namespace, Record, State, Step, index_id, index_of, query_of,
};

/// The most looks at the table in one settling: five rounds, and the look after them.
const MAX_PASSES: u32 = 6;

/// The same where nothing changes meanwhile: before and after its deletes.
const PASSES_OVER_A_TABLE_AT_REST: u32 = 2;

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
    state.stats.withheld += stats.deletes_withheld;
    state.stats.restored += stats.deletes_restored;
    state.stats.reused += stats.api_keys_reused;
    state.stats.parked += stats.parked;
    let named: Vec<&str> = answer
        .batch_item_failures
        .iter()
        .map(|failure| failure.item_identifier.as_deref().unwrap_or_default())
        .collect();
    state.note(|| format!("  [{invocation}] answers {named:?}, parked {}", stats.parked));
    let records = &state.environment_of(invocation).shards[shard].records[batch.clone()];
    let counts = records::counts(state, invocation, records, &named, stats);
    let mut problems: Vec<(&str, String)> =
        counts.into_iter().map(|text| ("no record is lost", text)).collect();
    let mut rule =
        |rule, problem: Option<String>| problems.extend(problem.map(|text| (rule, text)));
    rule(
        "late records that lack only an API key are parked",
        records::not_parked(state, invocation, records, &named),
    );
    rule("only removals and moves are settled", needless(state, invocation, records));
    rule(
        "settings get through without the API keys service",
        reuse(state, invocation, records, &named),
    );
    rule("the last of a batch that asks for a key has it", not_last(state, invocation, records));
    let passes = state.invocations[invocation].passes;
    let too_many = |most: u32| (passes > most).then(|| format!("{passes} looks"));
    rule("settling ends after five rounds", too_many(MAX_PASSES));
    let run = &state.invocations[invocation];
    let moved = state.environment_of(invocation).has_changed_since(run.began);
    // An item that could not be read again is looked at again.
    let at_rest = !moved && !run.failed_services.contains("table");
    let too_many = too_many(PASSES_OVER_A_TABLE_AT_REST).filter(|_| at_rest);
    rule("settling looks twice at a table that stands still", too_many);
    let mut left: Vec<_> = records::may_be_parked(state, invocation)
        .filter(|_| stats.parked > 0)
        .filter_map(|(item, _)| index_of(item))
        .collect();
    let run = &state.invocations[invocation];
    let mut refused = BTreeSet::new();
    if stats.rejected > 0 && !run.refused.is_empty() {
        let late = run.batch.deciding.iter().filter(|(_, deciding)| deciding.late);
        left.extend(late.filter_map(|(item, _)| index_of(item)));
        refused.extend(run.refused.iter().cloned());
    }
    let done = records.iter().position(|record| named.contains(&record.number.as_str()));
    let done = done.unwrap_or(records.len());
    state.excused.left_to_reconcile.extend(left);
    state.excused.refused.extend(refused);
    for (rule, problem) in problems {
        state.violate(rule, format!("[{invocation}] {problem}"));
    }
    after_look(state, invocation, stats);
    done
}

/// Of several items of a batch that ask for one key, the last that can be exported has it. What a
/// late record's item asks for is the table's to say.
fn not_last(state: &State, invocation: usize, records: &[Record]) -> Option<String> {
    let (run, environment) = state.run(invocation);
    let late = run.batch.deciding.values().any(|deciding| deciding.late);
    if late || !run.failed_services.is_empty() || run.out_of_time || !run.unanswered.is_empty() {
        return None;
    }
    let mut last: BTreeMap<String, u32> = BTreeMap::new();
    for (at, record) in records.iter().enumerate() {
        let Some(item) = &record.item else { continue };
        if run.batch.deciding.get(item).is_none_or(|deciding| deciding.position != at) {
            continue;
        }
        let settings = record.new.as_ref().and_then(|image| image.settings());
        let (Some(index), Some(settings)) = (index_of(item), settings) else { continue };
        if environment.exportable(&index, settings) {
            let keys = settings.kv_keys(&index).into_iter();
            last.extend(keys.map(|key| (key, settings.version)));
        }
    }
    last.iter().find_map(|(key, version)| {
        let written = run.first_written.get(key)?;
        (written != version).then(|| format!("{key:?} is written for v{written}, not v{version}"))
    })
}

/// A batch in time without removals or moves reads nothing.
fn needless(state: &State, invocation: usize, records: &[Record]) -> Option<String> {
    let run = &state.invocations[invocation];
    let mut shops: BTreeMap<&ItemKey, BTreeSet<Option<&str>>> = BTreeMap::new();
    for record in records {
        let item = record.item.as_ref()?;
        match record.new.as_deref().map(|image| &image.content) {
            None if index_of(item).is_some() || query_of(item).is_some() => return None,
            Some(Content::Settings(_)) => {
                let old = state.shape.old_images.then_some(record.old.as_ref()).flatten();
                for image in old.into_iter().chain(&record.new) {
                    let shop = image.settings().and_then(|settings| settings.shop.as_deref());
                    shops.entry(item).or_default().insert(shop);
                }
            }
            Some(Content::Query(_) | Content::Other(_)) | None => {}
        }
    }
    let late = run.batch.deciding.values().any(|deciding| deciding.late);
    let quiet = !late && shops.values().all(|shops| shops.len() == 1);
    // Without an API key from the service, the one in KV may be used again.
    let keyless = &state.environment_of(invocation).keyless;
    let lacks_one =
        !run.unanswered.is_empty() || shops.keys().any(|item| keyless.contains(&item.pk));
    let reads = run.table_calls > 0 || (run.kv_reads > 0 && !lacks_one);
    (quiet && reads).then(|| "a batch without removals or moves reads".to_owned())
}

/// While only the API keys service fails, settings that KV has had for a minute still get through.
fn reuse(state: &State, invocation: usize, records: &[Record], named: &[&str]) -> Option<String> {
    let run = &state.invocations[invocation];
    if run.passes > 0 || run.was_hindered_but_by("keys") {
        return None;
    }
    let failed = records.iter().filter(|record| named.contains(&record.number.as_str()));
    let mut failed = failed.filter_map(|record| index_of(record.item.as_ref()?));
    failed.find_map(|index| {
        let problem = || format!("{index} failed though KV holds an API key of it");
        let visible = state.visible_since_began(invocation);
        has_api_key(state, invocation, &index, visible).then(problem)
    })
}

/// Whether KV has held an API key of the index under its id for so long that every answer shows it.
pub fn has_api_key(
    state: &State,
    invocation: usize,
    index: &ecom_settings_exporter::index::IndexRef,
    since: Step,
) -> bool {
    let name = state.environment_of(invocation).name;
    let past = state.kv.get(&(Namespace::Settings, index_id(index)));
    past.is_some_and(|past| {
        past.all_since(since, |held| {
            let named = held.as_ref().and_then(|held| held.named_for(name));
            named.is_some_and(|named| named.index == *index && !named.api_key.is_empty())
        })
    })
}
