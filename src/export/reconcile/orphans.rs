//! Names the keys that no item asks for, page by page, and removes them, chunk by chunk.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::carry_out::Outcome;
use super::part::{Lister, Part, Section};
use super::plan::class_of;
use super::progress::Place;
use super::report::{Class, Examples};
use super::write::LeftBehind;
use crate::export::api_keys::ApiKeys;
use crate::export::bulk;
use crate::export::error::KeyError;
use crate::export::other_environments::OtherEnvironments;
use crate::export::query_config_removal::remove;
use crate::export::settle::{self, KeyOutcome, SettleRequest};
use crate::item::{ItemKey, ItemKind, QueryConfigRef};
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::{KvError, Namespace, Services};

/// Keys that are settled in one go. Their values take some 10 MB, and each look is a pass over the
/// table whatever their number.
const CHUNK_KEYS: usize = 5_000;

/// Requests of one settling beside those that its number of keys asks for: writes, and a put-back.
const MORE_REQUESTS: usize = 4;

/// Deletes and put-backs of one settling, so that it keeps within its turn however small a bulk
/// request is.
const MAX_BULK_REQUESTS: usize = 100;

/// Where the removal of a section's orphans was interrupted.
pub struct Interrupted {
    /// The first key that is still to be looked at comes after this place.
    pub at: Place,
    /// How many may still be deleted.
    pub left: u64,
}

/// Notes examples of keys that no item asks for. They are listed once more, because only hashes of
/// their names are held.
pub async fn note_examples<S: Services>(
    lister: &Lister<'_, S>,
    part: &Part,
    examples: &mut Examples,
) {
    for section in &part.sections {
        for class in [Class::Orphaned, Class::Withheld] {
            let mut names = Names::of(lister, part, section, class);
            while !examples.are_full(class) {
                // The counts stand without examples.
                let Ok(Some(keys)) = names.next_page().await else { break };
                keys.iter().for_each(|key| examples.add(class, key));
            }
        }
    }
}

/// The names of a section's unclaimed keys of one class.
struct Names<'a, S> {
    lister: &'a Lister<'a, S>,
    part: &'a Part,
    section: &'a Section,
    class: Class,
    /// Keys that were read one by one.
    read: Vec<String>,
    pages: VecDeque<u16>,
}

impl<'a, S: Services> Names<'a, S> {
    fn of(lister: &'a Lister<'a, S>, part: &'a Part, section: &'a Section, class: Class) -> Self {
        let mut names =
            Self { lister, part, section, class, read: Vec::new(), pages: VecDeque::new() };
        let is_meant = |key: &&String| names.is_meant(key);
        let read = section.read.iter().filter(is_meant).cloned().collect();
        let rows = section.rows.unclaimed();
        let rows =
            rows.filter(|row| class_of(section.namespace, &part.owners, *row) == Some(class));
        let pages: BTreeSet<u16> = rows.map(|row| row.page).collect();
        (names.read, names.pages) = (read, pages.into_iter().collect());
        names
    }

    fn is_meant(&self, key: &str) -> bool {
        let row = self.section.rows.unclaimed_row(key);
        let class = row.and_then(|row| class_of(self.section.namespace, &self.part.owners, row));
        class == Some(self.class)
    }

    /// The names of the next page, in order; `None` after the last one.
    async fn next_page(&mut self) -> Result<Option<Vec<String>>, KvError> {
        if !self.read.is_empty() {
            return Ok(Some(std::mem::take(&mut self.read)));
        }
        let Some(page) = self.pages.pop_front() else { return Ok(None) };
        let mut names = self.lister.names_of_page(self.section, page).await?;
        names.retain(|key| self.is_meant(key));
        Ok(Some(names))
    }
}

/// Removes the orphans of a section, no more of them than the brake has let through.
pub async fn remove_orphans<S: Services>(
    lister: &Lister<'_, S>,
    part: &Part,
    section: &Section,
    mut left: u64,
    api_keys: &ApiKeys,
    outcome: &mut Outcome,
) -> Result<(), Interrupted> {
    let mut names = Names::of(lister, part, section, Class::Orphaned);
    let mut keys: VecDeque<String> = VecDeque::new();
    let mut at = section.begins_at();
    let max_keys = CHUNK_KEYS.min(lister.invocation.config.bulk_max_pairs * MAX_BULK_REQUESTS);
    loop {
        while keys.len() < max_keys {
            match names.next_page().await {
                Ok(Some(page)) => keys.extend(page),
                Ok(None) => break,
                Err(_) => return Err(Interrupted { at, left }),
            }
        }
        let size = max_keys.min(keys.len()).min(usize::try_from(left).unwrap_or(usize::MAX));
        if size == 0 {
            return Ok(());
        }
        let chunk: VecDeque<String> = keys.drain(..size).collect();
        let last = chunk.back().cloned();
        let before = outcome.changed_in(section.namespace).deleted;
        let removed = match section.namespace {
            Namespace::Settings => settle_chunk(lister, chunk, api_keys, outcome).await,
            Namespace::QueryConfigs => remove_chunk(lister, chunk, outcome).await,
        };
        left = left.saturating_sub(outcome.changed_in(section.namespace).deleted - before);
        if removed.is_err() {
            return Err(Interrupted { at, left });
        }
        outcome.got_on = true;
        if let Some(row) = last.as_ref().and_then(|key| section.rows.unclaimed_row(key))
            && let Some(place) = section.place_after(row.page, last)
        {
            at = place;
        }
    }
}

/// The chunk could not be finished: time or requests ended.
struct OutOfBudget;

/// Keys that failed, and why.
type Failed = BTreeMap<String, KeyError>;

/// Settles keys of the settings namespace.
async fn settle_chunk<S: Services>(
    lister: &Lister<'_, S>,
    mut keys: VecDeque<String>,
    api_keys: &ApiKeys,
    outcome: &mut Outcome,
) -> Result<(), OutOfBudget> {
    let invocation = lister.invocation;
    while !keys.is_empty() {
        take_turn(lister, keys.len()).await?;
        let mut api_keys = api_keys.renewed();
        let verdicts = settle::settle_some(invocation, &mut keys, &mut api_keys).await;
        let failed = note_settled(verdicts, outcome);
        note_failed(Namespace::Settings, failed, outcome)?;
    }
    Ok(())
}

/// Waits for the turn of all requests that removing so many keys takes, with the reads before it.
async fn take_turn<S: Services>(lister: &Lister<'_, S>, keys: usize) -> Result<(), OutOfBudget> {
    let invocation = lister.invocation;
    let reads = keys.div_ceil(MAX_BULK_GET_KEYS);
    let changes = 2 * keys.div_ceil(invocation.config.bulk_max_pairs);
    let turn = invocation.wait_for_turn(reads + changes + MORE_REQUESTS, invocation.deadline);
    turn.await.map_err(|_| OutOfBudget)
}

/// Counts what settling did; answers with what failed.
fn note_settled(
    verdicts: impl IntoIterator<Item = (String, KeyOutcome)>,
    outcome: &mut Outcome,
) -> Failed {
    let mut failed = Failed::new();
    for (key, verdict) in verdicts {
        match verdict {
            KeyOutcome::Written(_) => outcome.note_written(Namespace::Settings, 1, 1),
            KeyOutcome::Deleted => outcome.note_deleted(Namespace::Settings, 1),
            KeyOutcome::Failed(error) => drop(failed.insert(key, error)),
            // Protected since the scan, or gone.
            KeyOutcome::Withheld(_) | KeyOutcome::Left => {}
        }
    }
    failed
}

/// Counts what failed, but for what another run goes on with.
fn note_failed(
    namespace: Namespace,
    failed: Failed,
    outcome: &mut Outcome,
) -> Result<(), OutOfBudget> {
    let mut noted = Ok(());
    for (key, error) in failed {
        match error.is_out_of_time() {
            true => noted = Err(OutOfBudget),
            false => outcome.note_delete_failed(namespace, &key, &error),
        }
    }
    noted
}

/// Removes query configs; whose they are stands in their values.
async fn remove_chunk<S: Services>(
    lister: &Lister<'_, S>,
    keys: VecDeque<String>,
    outcome: &mut Outcome,
) -> Result<(), OutOfBudget> {
    take_turn(lister, keys.len()).await?;
    let mut configs = Vec::new();
    // The values are not held.
    for keys in Vec::from(keys).chunks(MAX_BULK_GET_KEYS) {
        let (held, failures) =
            bulk::read(lister.invocation, Namespace::QueryConfigs, keys.to_vec()).await;
        for (key, error) in failures {
            let error = KeyError::from(error);
            if error.is_out_of_time() {
                return Err(OutOfBudget);
            }
            outcome.fail(Namespace::QueryConfigs, &key, &error);
        }
        let environment = &lister.invocation.config.environment;
        for (key, stored) in held.into_iter().filter(|(_, held)| held.counts_for(environment)) {
            let config = QueryConfigRef::named_by(&stored.value);
            match config.filter(|found| found.kv_key() == key) {
                Some(config) => configs.push(config),
                None => outcome.fail(Namespace::QueryConfigs, &key, &KeyError::UnknownQueryConfig),
            }
        }
    }
    let failed = remove_query_configs(lister, &configs, outcome).await;
    note_failed(Namespace::QueryConfigs, failed, outcome)
}

/// Removes query configs; answers with what failed.
async fn remove_query_configs<S: Services>(
    lister: &Lister<'_, S>,
    configs: &[QueryConfigRef],
    outcome: &mut Outcome,
) -> Failed {
    let removal = remove(lister.invocation, configs, OtherEnvironments::LeftOut).await;
    let namespace = Namespace::QueryConfigs;
    outcome.note_deleted(namespace, removal.deleted);
    outcome.note_written(namespace, usize::try_from(removal.written).unwrap_or_default(), 0);
    for (key, rejection) in removal.rejected {
        if let Some(config) = configs.iter().find(|config| config.kv_key() == key) {
            outcome.reject(namespace, &ItemKey::of_query_config(config), &rejection);
        }
    }
    removal.failed
}

/// Removes what the repair has written for items that no longer ask for it.
pub async fn remove_left_behind<S: Services>(
    lister: &Lister<'_, S>,
    left_behind: LeftBehind,
    api_keys: &ApiKeys,
    outcome: &mut Outcome,
) {
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
    for (key, error) in note_settled(verdicts, outcome) {
        outcome.note_delete_failed(Namespace::Settings, &key, &error);
    }
    for (key, error) in remove_query_configs(lister, &configs, outcome).await {
        outcome.note_delete_failed(Namespace::QueryConfigs, &key, &error);
    }
}
