//! What an answer must say about its batch.

use std::collections::{BTreeMap, BTreeSet};

use ecom_settings_exporter::item::ItemKey;
use ecom_settings_exporter::lambda::{Answer, Handled};
use ecom_settings_exporter::ports::Namespace;

use crate::checks::after_look;
use crate::keys::index_of;
use crate::model::{Content, index_id};
use crate::state::{Record, State};

/// The most looks at the table in one settling: five rounds, and the look after them.
const MAX_PASSES: u32 = 6;

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
    let named: Vec<&str> = answer
        .batch_item_failures
        .iter()
        .map(|failure| failure.item_identifier.as_deref().unwrap_or_default())
        .collect();
    let problems = {
        let records = &state.shards[shard].records[batch.clone()];
        let counts = counts(state, records, &named, stats);
        let needless = needless(state, invocation, records);
        let reuse = reuse(state, invocation, records, &named);
        let needless = needless.map(|text| ("only removals and moves are settled", text));
        let reuse = reuse.map(|text| ("settings get through without the API keys service", text));
        let not_last = not_last(state, invocation, records);
        let not_last =
            not_last.map(|text| ("the last of a batch that asks for a key has it", text));
        let counts = counts.into_iter().map(|text| ("no record is lost", text));
        counts.chain(needless).chain(reuse).chain(not_last).collect::<Vec<_>>()
    };
    for (rule, problem) in problems {
        state.violate(rule, format!("[{invocation}] {problem}"));
    }
    if state.invocations[invocation].passes > MAX_PASSES {
        let passes = state.invocations[invocation].passes;
        state.violate("settling ends after five rounds", format!("[{invocation}] {passes} looks"));
    }
    state.note(|| format!("  [{invocation}] answers {named:?}"));
    if named.is_empty() {
        after_look(state, invocation);
    } else {
        let deletes = std::mem::take(&mut state.invocations[invocation].deletes);
        state.half_done.extend(deletes);
    }
    let records = &state.shards[shard].records[batch];
    records
        .iter()
        .position(|record| named.contains(&record.number.as_str()))
        .unwrap_or(records.len())
}

fn counts(
    state: &State,
    records: &[Record],
    named: &[&str],
    stats: &ecom_settings_exporter::telemetry::Stats,
) -> Vec<String> {
    let mut problems = Vec::new();
    let in_order: Vec<&str> =
        records.iter().map(|r| r.number.as_str()).filter(|n| named.contains(n)).collect();
    if in_order != named {
        problems.push(format!("the answer names {named:?}, out of order, or not of the batch"));
    }
    let counts = stats;
    let all =
        counts.skipped + counts.superseded + counts.exported + counts.failed + counts.rejected;
    if all != records.len() as u64 || counts.records != all || counts.failed != named.len() as u64 {
        problems.push(format!("records are lost: {counts:?}"));
    }
    let deciding = deciding(records);
    let mut invalid = 0;
    let mut keyless = 0;
    for (at, record) in records.iter().enumerate() {
        let Some(item) = &record.item else {
            invalid += 1;
            continue;
        };
        let Some(settings) = record.new.as_ref().and_then(|image| image.settings()) else {
            continue;
        };
        if !settings.is_valid() {
            invalid += 1;
        } else if deciding.get(item) == Some(&at) && state.keyless.contains(&item.pk) {
            keyless += 1;
        }
    }
    // An invalid record that names a shop id may have failed together with its item's decision.
    let least = if named.is_empty() { invalid } else { 0 };
    if counts.rejected < least || counts.rejected > invalid + keyless {
        problems.push(format!(
            "{} rejected, not {invalid} to {}",
            counts.rejected,
            invalid + keyless
        ));
    }
    problems
}

/// The position of the record that decides, by item.
fn deciding(records: &[Record]) -> BTreeMap<ItemKey, usize> {
    let mut deciding = BTreeMap::new();
    for (at, record) in records.iter().enumerate() {
        let Some(item) = &record.item else { continue };
        let settings = record.new.as_ref().and_then(|image| image.settings());
        if settings.is_none_or(|settings| settings.is_valid()) {
            deciding.insert(item.clone(), at);
        }
    }
    deciding
}

/// If several items of a batch ask for one key, the last that can be exported gets it.
fn not_last(state: &State, invocation: usize, records: &[Record]) -> Option<String> {
    let run = &state.invocations[invocation];
    if !run.failed_services.is_empty() || run.out_of_time || !run.unanswered.is_empty() {
        return None;
    }
    let mut last: BTreeMap<String, u32> = BTreeMap::new();
    let deciding = deciding(records);
    for (at, record) in records.iter().enumerate() {
        let Some(item) = record.item.as_ref().filter(|item| deciding.get(*item) == Some(&at))
        else {
            continue;
        };
        let settings = record.new.as_ref().and_then(|image| image.settings());
        let (Some(index), Some(settings)) = (index_of(item), settings) else { continue };
        if state.exportable(&index, settings) {
            let keys = settings.kv_keys(&index).into_iter();
            last.extend(keys.map(|key| (key, settings.version)));
        }
    }
    last.iter().find_map(|(key, version)| {
        let written = run.first_written.get(key)?;
        (written != version).then(|| format!("{key:?} is written for v{written}, not v{version}"))
    })
}

/// A batch without removals or moves reads nothing.
fn needless(state: &State, invocation: usize, records: &[Record]) -> Option<String> {
    let run = &state.invocations[invocation];
    let mut shops: BTreeMap<&ItemKey, BTreeSet<Option<&str>>> = BTreeMap::new();
    for record in records {
        let item = record.item.as_ref()?;
        match record.new.as_deref().map(|image| &image.content) {
            None => return None,
            Some(Content::Settings(_)) => {
                let old = state.shape.old_images.then_some(record.old.as_ref()).flatten();
                for image in old.into_iter().chain(&record.new) {
                    let shop = image.settings().and_then(|settings| settings.shop.as_deref());
                    shops.entry(item).or_default().insert(shop);
                }
            }
            Some(_) => {}
        }
    }
    let quiet = shops.values().all(|shops| shops.len() == 1);
    let reads = run.table_calls > 0 || (run.kv_reads > 0 && run.unanswered.is_empty());
    (quiet && reads).then(|| "a batch without removals or moves reads".to_owned())
}

/// If only the API keys service fails, settings that KV already has still get through.
fn reuse(state: &State, invocation: usize, records: &[Record], named: &[&str]) -> Option<String> {
    let run = &state.invocations[invocation];
    if run.passes > 0
        || run.out_of_time
        || run.failed_services.iter().any(|service| *service != "keys")
    {
        return None;
    }
    let failed = records.iter().filter(|record| named.contains(&record.number.as_str()));
    failed.filter_map(|record| index_of(record.item.as_ref()?)).find_map(|index| {
        let held = state.kv.get(&(Namespace::Settings, index_id(&index)))?;
        let own = held.all_since(run.began, |held| {
            let named = held.as_ref().and_then(|held| held.named.as_ref());
            named.is_some_and(|named| named.index == index && !named.api_key.is_empty())
        });
        own.then(|| format!("{index} failed though KV holds an API key of it"))
    })
}
