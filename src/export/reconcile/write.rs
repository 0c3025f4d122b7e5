//! Writes what is missing or stale: items are read just before they are written, and just after.

use std::collections::{BTreeMap, BTreeSet};
use std::iter::Peekable;

use super::carry_out::{Failed, Interrupted, Outcome};
use super::names::Name;
use super::part::{Lister, Section};
use super::report::Class;
use crate::export::api_keys::{ApiKeys, Exportable, NotExportable};
use crate::export::desired::{Desired, warn_if_odd};
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::table::read_items;
use crate::export::verified_write::{
    ItemWrite, Policy, READ_ITEMS, Reread, WriteOutcome, verified_write,
};
use crate::item::{ItemKey, ItemKind};
use crate::ports::Services;

/// Values that one write holds at the most, in bytes; with the pairs it bounds the memory.
const WRITE_BYTES: usize = 16 * 1024 * 1024;

/// Writes of one step: the first, and one more for what changed meanwhile.
const ROUNDS_OF_A_STEP: usize = 2;

/// Keys that an index asks for at the most.
const KEYS_OF_AN_INDEX: usize = 2;

/// Items and those of their keys that are to be written.
type Work = BTreeMap<ItemKey, BTreeSet<String>>;

/// Writes what is still allowed of a section. What failed is counted once the section is finished,
/// because another run tries it again before.
pub async fn write<S: Services>(
    lister: &Lister<'_, S>,
    section: &Section,
    api_keys: &ApiKeys,
    outcome: &mut Outcome,
) -> Result<(), Interrupted> {
    let (invocation, namespace) = (lister.invocation, section.namespace());
    let allowed = outcome.left[namespace];
    // A conflicting key that differs and is not stale is another environment's.
    let classes: &[Class] =
        match (allowed.writes, allowed.rewrites > 0, lister.request.raised.takes_keys()) {
            (false, ..) => &[],
            (true, false, _) => &[Class::Missing],
            (true, true, false) => &[Class::Missing, Class::Stale],
            (true, true, true) => &[Class::Missing, Class::Stale, Class::Conflicting],
        };
    // The API keys of the comparison may be minutes old: one that was rotated meanwhile must not be
    // overwritten with the old one.
    let mut api_keys = api_keys.renewed();
    let policy = Policy { namespace, reread: Reread::ByKeys, writes_new_keys: false };
    let names = section.rows.to_write(classes);
    // Of each item, the names of its keys.
    let names =
        names.chunk_by(|a, b| a.item == b.item).flat_map(|its| its.chunks(KEYS_OF_AN_INDEX));
    let mut names = names.peekable();
    let mut failed = Failed::new();
    while names.peek().is_some() {
        // A request holds what it may, but an item's keys are written together.
        let max_pairs = invocation.config.bulk_max_pairs.max(KEYS_OF_AN_INDEX);
        // Nothing may lie between the read of the items and the write, so the turn comes before.
        let requests = ROUNDS_OF_A_STEP * max_pairs.div_ceil(invocation.config.bulk_max_pairs);
        let turn = invocation.wait_for_turn(requests, invocation.deadline).await;
        turn.map_err(|_| Interrupted)?;
        let mut writes: Vec<ItemWrite> = Vec::new();
        let (mut pairs, mut bytes) = (0, 0);
        while bytes < WRITE_BYTES {
            let work = next_work(&mut names, max_pairs - pairs);
            if work.is_empty() {
                break;
            }
            let (read, not_read) = read_current(invocation, work, &mut api_keys).await;
            pairs += read.iter().map(|write| write.keys.len()).sum::<usize>();
            bytes +=
                read.iter().map(|write| write.keys.len() * write.entry.body_bytes()).sum::<usize>();
            writes.extend(read);
            failed.extend(not_read);
        }
        let written = verified_write(invocation, policy, writes, |key, item| {
            Desired::of_item(key, item, invocation.config, &api_keys)
        })
        .await;
        note(section, &written, outcome);
        failed.extend(written.failed);
        outcome.left_behind.extend(written.left_behind);
        if failed.values().any(KeyError::is_out_of_time) {
            return Err(Interrupted);
        }
    }
    // The names that were held are dealt with: the part is begun again for the others.
    if !section.rows.holds_all_names(classes) && outcome.got_on {
        return Err(Interrupted);
    }
    outcome.fail_all(namespace, failed)
}

/// The next items to read, and their keys to write: no more than `room`, and all of an item's.
fn next_work<'n>(names: &mut Peekable<impl Iterator<Item = &'n [&'n Name]>>, room: usize) -> Work {
    let mut work = Work::new();
    let mut keys = 0;
    while let Some(its) = names.next_if(|its| work.len() < READ_ITEMS && keys + its.len() <= room) {
        keys += its.len();
        for Name { key, item } in its {
            work.entry(ItemKey::clone(item)).or_default().insert(key.to_string());
        }
    }
    work
}

fn note(section: &Section, written: &WriteOutcome, outcome: &mut Outcome) {
    // A write that failed may have been done all the same.
    let sent = written.written.iter().chain(written.failed.keys());
    let is_listed = |key: &&String| section.rows.is(key, Class::Listed);
    outcome.rewritten += sent.filter(is_listed).count() as u64;
    let rewritten = written.written.iter().filter(is_listed).count() as u64;
    let left = &mut outcome.left[section.namespace()].rewrites;
    *left = left.saturating_sub(rewritten);
    outcome.note(section.namespace(), Class::Written, written.written.len());
    for (item, rejection) in &written.rejected {
        outcome.reject(section.namespace(), item, rejection);
    }
}

/// Reads items as the table has them now; answers with what is to be written of them, and with the
/// keys that failed.
async fn read_current<S: Services>(
    invocation: &Invocation<'_, S>,
    work: Work,
    api_keys: &mut ApiKeys,
) -> (Vec<ItemWrite>, Failed) {
    let items = match read_items(invocation, work.keys().cloned()).await {
        Ok(items) => items,
        Err(error) => {
            let keys = work.into_values().flatten();
            return (Vec::new(), keys.map(|key| (key, error.clone().into())).collect());
        }
    };
    let config = invocation.config;
    let exportable: Vec<Exportable> = items
        .iter()
        .filter_map(|(key, item)| match key.kind() {
            ItemKind::IndexSettings(index) => Exportable::decode(&index, item, config).ok(),
            ItemKind::QueryConfig(_) | ItemKind::Skipped => None,
        })
        .collect();
    exportable.iter().for_each(|index| warn_if_odd(&index.settings));
    api_keys.ask(invocation, &exportable).await;
    let stamp = invocation.stamp();
    let (mut writes, mut failed) = (Vec::new(), Failed::new());
    for (item, keys) in work {
        // Gone or moved since the scan: nothing was written, so nothing is left behind.
        let Some(found) = items.get(&item) else { continue };
        let desired = Desired::of_item(&item, found, config, api_keys);
        match desired.map(|desired| ItemWrite::new(item, desired, &stamp)) {
            Ok(mut write) => {
                write.keys.retain(|key| keys.contains(key));
                if !write.keys.is_empty() {
                    writes.push(write);
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
