//! Names the keys that no item asks for, page by page, and removes them, chunk by chunk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::carry_out::{Failed, Interrupted, Outcome};
use super::part::{Lister, Part, Section};
use super::progress::Place;
use super::report::{Class, Counts, Examples};
use crate::export::api_keys::ApiKeys;
use crate::export::bulk;
use crate::export::error::KeyError;
use crate::export::other_environments::OtherEnvironments;
use crate::export::query_config_removal::{RemovalOutcome, remove};
use crate::export::settle::{self, KeyOutcome, SettleRequest};
use crate::item::{ItemKey, ItemKind, QueryConfigRef};
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::{Namespace, Services};

/// Requests of one settling beside those that its number of keys asks for: writes, and a put-back.
const MORE_REQUESTS: usize = 4;

/// Deletes and put-backs of one settling, so that it keeps within its turn however small a bulk
/// request is.
const MAX_BULK_REQUESTS: usize = 100;

/// Notes examples of keys that no item asks for. They are listed once more, because only hashes of
/// their names are held.
pub async fn note_examples<S: Services>(
    lister: &Lister<'_, S>,
    part: &Part,
    examples: &mut Examples,
) {
    for section in &part.sections {
        for class in [Class::Orphaned, Class::Withheld] {
            for page in section.rows.pages_with(class) {
                // The counts stand without examples, and nothing waits for those.
                if examples.are_full(class) || !lister.invocation.has_turn() {
                    break;
                }
                let Ok(keys) = lister.names_of_page(section, page, class).await else { break };
                keys.iter().for_each(|key| examples.add(class, key));
            }
        }
    }
}

/// Removes the orphans of a section, no more of them than the brake has let through. Where it is
/// interrupted, it answers with the place after which the first key comes that is still to be looked at.
pub async fn remove_orphans<S: Services>(
    lister: &Lister<'_, S>,
    section: &Section,
    chunk_keys: usize,
    api_keys: &ApiKeys,
    outcome: &mut Outcome,
) -> Result<(), Place> {
    let namespace = section.namespace();
    if outcome.left[namespace].deletes == 0 {
        return Ok(());
    }
    let chunk_keys = chunk_keys.min(lister.invocation.config.bulk_max_pairs * MAX_BULK_REQUESTS);
    let mut pages = section.rows.pages_with(Class::Orphaned).into_iter();
    let mut keys = VecDeque::new();
    let mut at = section.begin.clone();
    loop {
        while keys.len() < chunk_keys
            && let Some(page) = pages.next()
        {
            match lister.names_of_page(section, page, Class::Orphaned).await {
                Ok(names) => keys.extend(names.into_iter().map(|key| (key, page))),
                Err(_) => return Err(at),
            }
        }
        let left = outcome.left[namespace].deletes;
        let size = chunk_keys.min(keys.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
        let Some((last, page)) = keys.get(size.wrapping_sub(1)).cloned() else { return Ok(()) };
        let chunk = keys.drain(..size).map(|(key, _)| key).collect();
        // What failed may be deleted.
        let gone = |done: &Counts| done[Class::Deleted] + done[Class::Failed];
        let before = gone(&outcome.done[namespace]);
        let removed = match namespace {
            Namespace::Settings => settle_chunk(lister, chunk, api_keys, outcome).await,
            Namespace::QueryConfigs => remove_chunk(lister, chunk, outcome).await,
        };
        let removed_keys = gone(&outcome.done[namespace]) - before;
        outcome.left[namespace].deletes = left.saturating_sub(removed_keys);
        if removed.is_err() {
            return Err(at);
        }
        outcome.got_on = true;
        at = section.place_after(page, last).unwrap_or(at);
    }
}

async fn settle_chunk<S: Services>(
    lister: &Lister<'_, S>,
    mut keys: VecDeque<String>,
    api_keys: &ApiKeys,
    outcome: &mut Outcome,
) -> Result<(), Interrupted> {
    while !keys.is_empty() {
        take_turn(lister, keys.len()).await?;
        let mut api_keys = api_keys.renewed();
        let verdicts = settle::settle_some(lister.invocation, &mut keys, &mut api_keys).await;
        let failed = note_settled(verdicts, outcome);
        outcome.fail_all(Namespace::Settings, failed)?;
    }
    Ok(())
}

/// Waits for the turn of all requests that removing so many keys takes, with the reads before it.
async fn take_turn<S: Services>(lister: &Lister<'_, S>, keys: usize) -> Result<(), Interrupted> {
    let invocation = lister.invocation;
    let reads = keys.div_ceil(MAX_BULK_GET_KEYS);
    let changes = 2 * keys.div_ceil(invocation.config.bulk_max_pairs);
    let turn = invocation.wait_for_turn(reads + changes + MORE_REQUESTS, invocation.deadline);
    turn.await.map_err(|_| Interrupted)
}

/// Counts what settling did; answers with what failed.
fn note_settled(verdicts: BTreeMap<String, KeyOutcome>, outcome: &mut Outcome) -> Failed {
    let mut failed = Failed::new();
    for (key, verdict) in verdicts {
        match verdict {
            KeyOutcome::Written(_) => outcome.note(Namespace::Settings, Class::Written, 1),
            KeyOutcome::Deleted => outcome.note(Namespace::Settings, Class::Deleted, 1),
            KeyOutcome::Failed(error) => drop(failed.insert(key, error)),
            // Protected since the scan, or gone.
            KeyOutcome::Withheld(_) | KeyOutcome::Left => {}
        }
    }
    failed
}

/// Removes query configs; whose they are stands in their values.
async fn remove_chunk<S: Services>(
    lister: &Lister<'_, S>,
    keys: VecDeque<String>,
    outcome: &mut Outcome,
) -> Result<(), Interrupted> {
    take_turn(lister, keys.len()).await?;
    let (mut configs, mut failed) = (Vec::new(), Failed::new());
    let environment = &lister.invocation.config.environment;
    // The values are not held.
    for keys in Vec::from(keys).chunks(MAX_BULK_GET_KEYS) {
        let read = bulk::read(lister.invocation, Namespace::QueryConfigs, keys.to_vec());
        let (held, failures) = read.await;
        failed.extend(failures.into_iter().map(|(key, error)| (key, error.into())));
        for (key, stored) in held.into_iter().filter(|(_, held)| held.counts_for(environment)) {
            let config = QueryConfigRef::named_by(&stored.value);
            match config.filter(|found| found.kv_key() == key) {
                Some(config) => configs.push(config),
                None => drop(failed.insert(key, KeyError::UnknownQueryConfig)),
            }
        }
    }
    failed.extend(remove_query_configs(lister, &configs, outcome).await);
    outcome.fail_all(Namespace::QueryConfigs, failed)
}

/// Removes query configs; answers with what failed.
async fn remove_query_configs<S: Services>(
    lister: &Lister<'_, S>,
    configs: &[QueryConfigRef],
    outcome: &mut Outcome,
) -> Failed {
    let namespace = Namespace::QueryConfigs;
    let mut failed = Failed::new();
    for (key, end) in remove(lister.invocation, configs, OtherEnvironments::LeftOut).await {
        match end {
            RemovalOutcome::Deleted => outcome.note(namespace, Class::Deleted, 1),
            RemovalOutcome::Written => outcome.note(namespace, Class::Written, 1),
            RemovalOutcome::Failed(error) => drop(failed.insert(key, error)),
            RemovalOutcome::Rejected(rejection) => {
                if let Some(config) = configs.iter().find(|config| config.kv_key() == key) {
                    outcome.reject(namespace, &ItemKey::of_query_config(config), &rejection);
                }
            }
            RemovalOutcome::Left => {}
        }
    }
    failed
}

/// Removes what the repair has written for items that no longer ask for it, if the brake lets all of
/// it through.
pub async fn remove_left_behind<S: Services>(
    lister: &Lister<'_, S>,
    namespace: Namespace,
    api_keys: &ApiKeys,
    outcome: &mut Outcome,
) {
    let mut left_behind = std::mem::take(&mut outcome.left_behind);
    left_behind.retain(|_, keys| !keys.is_empty());
    let keys = left_behind.values().map(BTreeSet::len).sum::<usize>() as u64;
    let Some(left) = outcome.left[namespace].more_deletes.checked_sub(keys) else {
        outcome.refused_deletes += keys;
        return;
    };
    outcome.left[namespace].more_deletes = left;
    let mut settled = SettleRequest::default();
    let mut configs = Vec::new();
    for (item, keys) in left_behind {
        match item.kind() {
            ItemKind::IndexSettings(index) => settled.add_written_for(&index, keys),
            ItemKind::QueryConfig(config) => configs.push(config),
            ItemKind::Skipped => {}
        }
    }
    let mut api_keys = api_keys.renewed();
    let verdicts = settle::settle(lister.invocation, settled, &mut api_keys).await;
    let mut failed = note_settled(verdicts, outcome);
    failed.extend(remove_query_configs(lister, &configs, outcome).await);
    for (key, error) in failed {
        outcome.fail(namespace, &key, &error);
    }
}
