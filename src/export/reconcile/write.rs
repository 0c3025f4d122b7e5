//! Writes what is missing or stale: items are read just before they are written, and just after.

use std::collections::{BTreeMap, BTreeSet};

use super::carry_out::{Outcome, Step};
use super::part::{Lister, Section};
use super::rows::ToWrite;
use crate::export::api_keys::{ApiKeys, Exportable, NotExportable};
use crate::export::desired::{Desired, warn_if_odd};
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::table::{ReadError, read_items};
use crate::export::verified_write::{ItemWrite, Reread, WriteOutcome, verified_write};
use crate::item::{Item, ItemKey, ItemKind};
use crate::ports::Services;

/// Items that are read at once: five requests of 100 items, and up to some 2 MB.
const READ_ITEMS: usize = 500;

/// Values that one write holds at the most, in bytes; with the pairs it bounds the memory.
const WRITE_BYTES: usize = 16 * 1024 * 1024;

/// Writes of one step: the first, and one more for what changed meanwhile.
const ROUNDS_OF_A_STEP: usize = 2;

/// Keys that an index asks for at the most.
const KEYS_OF_AN_INDEX: usize = 2;

/// What was written for items that no longer ask for it.
pub type LeftBehind = BTreeMap<ItemKey, BTreeSet<String>>;

/// Items and those of their keys that are to be written.
type Work = BTreeMap<ItemKey, BTreeSet<String>>;

/// Writes a section's keys of these classes. What failed is counted once the section is finished,
/// because another run tries it again before.
pub async fn write<S: Services>(
    lister: &Lister<'_, S>,
    section: &Section,
    classes: &[ToWrite],
    api_keys: &ApiKeys,
    outcome: &mut Outcome,
) -> (Step, LeftBehind) {
    let invocation = lister.invocation;
    // The API keys of the comparison may be minutes old: one that was rotated meanwhile must not be
    // overwritten with the old one.
    let mut items = CurrentItems { invocation, api_keys: api_keys.renewed() };
    let mut names = section.rows.to_write(classes).into_iter().peekable();
    let (mut left_behind, mut failed) = (LeftBehind::new(), BTreeMap::new());
    while names.peek().is_some() {
        let max_pairs = invocation.config.bulk_max_pairs;
        // Nothing may lie between the read of the items and the write, so the turn comes before.
        let requests = ROUNDS_OF_A_STEP * KEYS_OF_AN_INDEX.div_ceil(max_pairs);
        if invocation.wait_for_turn(requests, invocation.deadline).await.is_err() {
            return (Step::Interrupted, left_behind);
        }
        let mut writes: Vec<ItemWrite> = Vec::new();
        while names.peek().is_some() && has_room(&writes, max_pairs) {
            let next = READ_ITEMS.min((max_pairs / KEYS_OF_AN_INDEX).max(1));
            let (read, not_read) = items.read(next_work(section, &mut names, next)).await;
            writes.extend(read);
            failed.extend(not_read);
        }
        let written = verified_write(invocation, section.namespace, &items, writes).await;
        note(section, &written, outcome);
        left_behind.extend(written.left_behind);
        failed.extend(written.failed);
        if failed.values().any(KeyError::is_out_of_time) {
            return (Step::Interrupted, left_behind);
        }
    }
    // The names that were held are dealt with: the part is begun again for the others.
    if !section.rows.holds_all_names() && outcome.got_on {
        return (Step::Interrupted, left_behind);
    }
    for (key, error) in &failed {
        outcome.fail(section.namespace, key, error);
    }
    (Step::Finished, left_behind)
}

/// Whether another read fits the write.
fn has_room(writes: &[ItemWrite], max_pairs: usize) -> bool {
    let pairs: usize = writes.iter().map(|write| write.keys.len()).sum();
    let bytes: usize = writes.iter().map(|write| write.keys.len() * write.entry.body_bytes()).sum();
    writes.is_empty() || (pairs + KEYS_OF_AN_INDEX * READ_ITEMS <= max_pairs && bytes < WRITE_BYTES)
}

/// The next items to read, and their keys to write.
fn next_work(
    section: &Section,
    names: &mut std::iter::Peekable<impl Iterator<Item = u32>>,
    max_items: usize,
) -> Work {
    let mut work = Work::new();
    while let Some(name) = names.peek() {
        let Some(item) = section.rows.item(*name) else { break };
        if work.len() == max_items && !work.contains_key(&item) {
            break;
        }
        work.entry(item).or_default().insert(section.rows.key(*name).to_owned());
        names.next();
    }
    work
}

fn note(section: &Section, written: &WriteOutcome, outcome: &mut Outcome) {
    // A write that failed may have been done all the same: for the brakes, it was.
    let sent = written.written.iter().chain(written.failed.keys());
    let rewritten = sent.filter(|key| section.rows.is_listed(key)).count();
    outcome.note_written(section.namespace, written.written.len(), rewritten);
    for (item, rejection) in &written.rejected {
        outcome.reject(section.namespace, item, rejection);
    }
}

/// Items as the table has them now.
struct CurrentItems<'a, S> {
    invocation: &'a Invocation<'a, S>,
    api_keys: ApiKeys,
}

type Failed = BTreeMap<String, KeyError>;

impl<S: Services> CurrentItems<'_, S> {
    /// Reads items; answers with what is to be written of them, and with the keys that failed.
    async fn read(&mut self, work: Work) -> (Vec<ItemWrite>, Failed) {
        let items = match read_items(self.invocation, work.keys().cloned()).await {
            Ok(items) => items,
            Err(error) => {
                let keys = work.into_values().flatten();
                return (Vec::new(), keys.map(|key| (key, error.clone().into())).collect());
            }
        };
        let config = self.invocation.config;
        let exportable: Vec<Exportable> = items
            .iter()
            .filter_map(|(key, item)| match key.kind() {
                ItemKind::IndexSettings(index) => Exportable::decode(&index, item, config).ok(),
                ItemKind::QueryConfig(_) | ItemKind::Skipped => None,
            })
            .collect();
        exportable.iter().for_each(|index| warn_if_odd(&index.settings));
        self.api_keys.ask(self.invocation, &exportable).await;
        let stamp = self.invocation.stamp();
        let (mut writes, mut failed) = (Vec::new(), Failed::new());
        for (item, mut keys) in work {
            // Gone or moved since the scan: nothing was written, so nothing is left behind.
            let Some(found) = items.get(&item) else { continue };
            let desired = self.desired(&item, found);
            match desired.and_then(|desired| Ok((desired.entry(&stamp)?, desired.keys))) {
                Ok((entry, asked)) => {
                    keys.retain(|key| asked.contains(key));
                    if !keys.is_empty() {
                        writes.push(ItemWrite { item, entry, keys });
                    }
                }
                // What KV holds stays; the scan has logged it.
                Err(NotExportable::Rejected(_)) => {}
                Err(NotExportable::Unavailable(error)) => {
                    failed.extend(keys.into_iter().map(|key| (key, error.clone().into())));
                }
            }
        }
        (writes, failed)
    }
}

impl<S: Services> Reread for CurrentItems<'_, S> {
    const WRITES_NEW_KEYS: bool = false;

    async fn read_again(
        &self,
        items: &[ItemKey],
        mut found: impl FnMut(&ItemKey, &Item),
    ) -> Result<(), ReadError> {
        for part in items.chunks(READ_ITEMS) {
            for (key, item) in &read_items(self.invocation, part.iter().cloned()).await? {
                found(key, item);
            }
        }
        Ok(())
    }

    fn desired(&self, key: &ItemKey, item: &Item) -> Result<Desired, NotExportable> {
        Desired::of_item(key, item, self.invocation.config, &self.api_keys)
    }
}
