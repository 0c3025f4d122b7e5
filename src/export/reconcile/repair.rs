//! Writes what is missing or stale.

use std::collections::{BTreeMap, BTreeSet};

use super::asks::AnswerState;
use super::brakes::Rewrites;
use super::part::Part;
use super::repaired_items::{READ_ITEMS, RepairedItems, Work};
use super::row::ToWrite;
use super::run::Run;
use crate::export::error::KeyError;
use crate::export::table::{Pass, ReadError};
use crate::export::verified_write::{ItemWrite, WriteOutcome, verified_write};
use crate::item::keys::claimed_keys;
use crate::item::{Item, ItemKey, ItemKind};
use crate::kv::check_key;
use crate::ports::Services;

/// Keys of a second pass that are written in one go: as many as a bulk request takes.
const WORK_KEYS: usize = 10_000;

/// Values that one write holds at the most, in bytes; with the pairs it bounds the memory.
const WRITE_BYTES: usize = 16 * 1024 * 1024;

/// Requests that one write may take: the write, and one more for what changed meanwhile.
const WRITE_REQUESTS: usize = 2;

impl<S: Services> Run<'_, S> {
    /// Writes what is missing, and what is stale if the brake allows it. Where the names of all these
    /// keys could not be held, another pass finds them, once all is compared.
    pub(super) async fn write_desired(&mut self, part: &mut Part, answers: AnswerState) {
        let counts = part.keys.counts();
        let writes = |class: ToWrite| match class {
            ToWrite::Missing => counts.missing > 0,
            ToWrite::Stale => part.rewrites == Rewrites::Allowed && counts.stale > 0,
            ToWrite::Taken => {
                let takes_keys = self.request.raised.takes_keys();
                part.rewrites == Rewrites::Allowed && takes_keys && counts.taken > 0
            }
            // Whose they are is for settling to find out.
            ToWrite::Contested => false,
        };
        let classes: Vec<ToWrite> = [ToWrite::Missing, ToWrite::Stale, ToWrite::Taken]
            .into_iter()
            .filter(|class| writes(*class))
            .collect();
        if classes.is_empty() {
            return;
        }
        if !part.keys.holds_all_names() {
            if answers == AnswerState::AllIn {
                self.write_by_another_pass(part, &classes).await;
            }
            return;
        }
        let mut work = Work::new();
        for class in classes {
            let keys = part.keys.to_write(class);
            for (key, item) in keys.filter(|(key, _)| !part.unreadable.contains(*key)) {
                work.entry(item.clone()).or_default().insert(key.clone());
            }
        }
        for key in work.values().flatten() {
            part.keys.release(key);
        }
        self.write(part, work).await;
    }

    async fn write_by_another_pass(&mut self, part: &mut Part, classes: &[ToWrite]) {
        let mut pass = Pass::new(self.invocation, self.items());
        let mut work = Work::new();
        loop {
            let items = match pass.next().await {
                Ok(items) => items,
                Err(error) => {
                    self.stop(format!("the table could not be read to its end: {error}"));
                    None
                }
            };
            let ended = items.is_none();
            for (item_key, item) in items.into_iter().flatten() {
                let mut keys = asked_keys(part, &item_key, &item);
                keys.retain(|key| {
                    let class = part.keys.to_write_of(key, &item_key);
                    class.is_some_and(|class| classes.contains(&class))
                });
                if !keys.is_empty() {
                    work.insert(item_key, keys);
                }
            }
            if ended || work.values().map(BTreeSet::len).sum::<usize>() >= WORK_KEYS {
                let work = std::mem::take(&mut work);
                pass.while_waiting(self.write(part, work)).await;
            }
            if ended {
                return;
            }
        }
    }

    async fn write(&mut self, part: &mut Part, work: Work) {
        let mut items = RepairedItems::new(self.invocation, &self.api_keys);
        let mut work: Vec<(ItemKey, BTreeSet<String>)> = work.into_iter().collect();
        let mut writes: Vec<ItemWrite> = Vec::new();
        while !work.is_empty() {
            if writes.is_empty() {
                // Nothing may lie between the read of the items and the write.
                let deadline = self.invocation.deadline;
                let turn = self.invocation.wait_for_turn(WRITE_REQUESTS, deadline).await;
                if let Err(error) = turn {
                    let error = KeyError::Table(ReadError::OutOfTime(error));
                    let keys = work.into_iter().flat_map(|(_, keys)| keys);
                    return self.fail_all(part, &keys.map(|key| (key, error.clone())).collect());
                }
            }
            let next: Work = work.drain(..READ_ITEMS.min(work.len())).collect();
            let (read, failed) = items.read(next).await;
            writes.extend(read);
            self.fail_all(part, &failed);
            let pairs: usize = writes.iter().map(|write| write.keys.len()).sum();
            let bytes: usize =
                writes.iter().map(|write| write.keys.len() * write.entry.body_bytes()).sum();
            let full = pairs >= self.invocation.config.bulk_max_pairs || bytes >= WRITE_BYTES;
            if full || work.is_empty() {
                let writes = std::mem::take(&mut writes);
                let written = verified_write(self.invocation, part.namespace, &items, writes).await;
                self.note_written(part, written);
            }
        }
    }

    fn note_written(&mut self, part: &mut Part, written: WriteOutcome) {
        let number = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        // A write that failed may have been done all the same: for the brakes, it was.
        let sent = written.written.iter().chain(written.failed.keys());
        let rewritten = sent.filter(|key| part.keys.is_listed(key)).count();
        self.progress.tally(part.namespace).rewritten += number(rewritten);
        self.report.counts(part.namespace).written += number(written.written.len());
        self.fail_all(part, &written.failed);
        for (item, rejection) in &written.rejected {
            match item.kind() {
                ItemKind::IndexSettings(index) => {
                    self.reject(part.namespace, &index, &index.index_id(), rejection);
                }
                ItemKind::QueryConfig(config) => {
                    self.reject(part.namespace, &config.index, &config.kv_key(), rejection);
                }
                ItemKind::Skipped => {}
            }
        }
        part.left_behind.extend(written.left_behind);
    }

    pub(super) fn fail_all(&mut self, part: &Part, failed: &BTreeMap<String, KeyError>) {
        for (key, error) in failed {
            self.fail(part.namespace, key, error);
        }
    }
}

/// The keys of a part that an item asks for, as far as it can be read.
fn asked_keys(part: &Part, key: &ItemKey, item: &Item) -> BTreeSet<String> {
    let keys = match key.kind() {
        ItemKind::IndexSettings(index) if part.is_of_settings() => {
            claimed_keys(&index, &item.attributes())
        }
        ItemKind::QueryConfig(config) if !part.is_of_settings() => vec![config.kv_key()],
        _ => Vec::new(),
    };
    keys.into_iter().filter(|key| check_key(key).is_ok() && part.compares(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::progress::Place;
    use super::*;
    use crate::export::testing::index_item;
    use crate::ports::Namespace;
    use serde_json::json;

    #[test]
    fn another_pass_asks_for_no_key_that_could_not_be_read() {
        let mut part = Part::new(&Place::beginning_of(Namespace::Settings), Some("a"));
        let (key, item) = index_item("i", &json!({"shop_id": {"S": "s.example"}}));
        assert_eq!(asked_keys(&part, &key, &item).len(), 2);
        part.unreadable.insert("s.example".to_owned());
        assert_eq!(asked_keys(&part, &key, &item), BTreeSet::from(["a-i".to_owned()]));
    }
}
