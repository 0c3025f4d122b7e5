//! Carries out what comes next: writes before deletes, and last the index id keys whose values alone
//! name a shop id.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tokio::time::Instant;
use tracing::{error, warn};

use super::TIME_FOR_A_WRITE;
use super::action::{Action, KeyOutcome, LastStep, ShopIdState, Write, put_back, shop_id_state};
use super::settling::Settling;
use super::table_view::Held;
use crate::error_chain::Chain;
use crate::export::bulk;
use crate::export::error::KeyError;
use crate::kv::{Entry, Pair, StoredValue};
use crate::ports::{Namespace, Services};

impl<S: Services> Settling<'_, '_, S> {
    pub async fn apply(&mut self, actions: BTreeMap<String, Action>) {
        let mut writes = Vec::new();
        let mut deletes = BTreeMap::new();
        for (key, action) in actions {
            match action {
                Action::Delete(stored) => drop(deletes.insert(key, stored)),
                Action::Write(write) => writes.push((key, write)),
            }
        }
        let written = writes.iter().map(|(key, _)| key.clone()).collect();
        self.write(writes).await;
        let (after_shop_ids, at_once): (BTreeMap<_, _>, BTreeMap<_, _>) =
            deletes.into_iter().partition(|(key, _)| self.shop_ids_in_values.contains_key(key));
        self.delete(at_once).await;
        let mut ready = BTreeMap::new();
        for (key, stored) in after_shop_ids {
            match self.shop_id_state(&key, &written) {
                ShopIdState::Settled => drop(ready.insert(key, stored)),
                ShopIdState::Open => {}
                ShopIdState::Failed => self.fail(&key, KeyError::ShopIdUnsettled),
            }
        }
        self.delete(ready).await;
    }

    /// The state of the shop id that only this key's value names, given the keys written in this round.
    fn shop_id_state(&self, index_id: &str, written: &BTreeSet<String>) -> ShopIdState {
        let Some(shop_id) = self.shop_ids_in_values.get(index_id) else {
            return ShopIdState::Settled;
        };
        let (last, held) = (self.last.get(shop_id), self.held.get(shop_id));
        let just_written = written.contains(shop_id);
        shop_id_state(index_id, last, just_written, held, self.outcomes.get(shop_id))
    }

    /// Fails keys of which nothing is certain any more. What was deleted of them is put back first.
    pub async fn give_up(&mut self, keys: BTreeSet<String>, error: &KeyError) {
        self.put_back(keys.iter().cloned().collect()).await;
        for key in &keys {
            self.fail(key, error.clone());
        }
    }

    /// Puts back index id keys that were deleted before the shop id that only their values name has
    /// failed: a retry finds it through them.
    pub async fn put_back_index_ids_of_failed_shop_ids(&mut self) {
        let has_failed =
            |shop_id: &String| matches!(self.outcomes.get(shop_id), Some(KeyOutcome::Failed(_)));
        let named = self.shop_ids_in_values.iter();
        let index_ids = named.filter(|(_, shop_id)| has_failed(shop_id));
        self.put_back(index_ids.map(|(index_id, _)| index_id.clone()).collect()).await;
    }

    /// Writes keys. One that was deleted and can't be written for the item that asks for it now is
    /// put back.
    async fn write(&mut self, writes: Vec<(String, Write)>) {
        let failed = self.send(writes).await;
        self.put_back(failed).await;
    }

    /// Puts back those of the keys that were deleted.
    async fn put_back(&mut self, keys: Vec<String>) {
        let put_back_of = |key: String| {
            let put_back = put_back(self.last.get(&key))?;
            Some((key, put_back))
        };
        let put_backs = keys.into_iter().filter_map(put_back_of).collect();
        self.send(put_backs).await;
    }

    /// Sends writes; answers with the keys whose entries failed.
    async fn send(&mut self, writes: Vec<(String, Write)>) -> Vec<String> {
        if writes.is_empty() {
            return Vec::new();
        }
        let pair = |(key, write): &(String, Write)| {
            let entry = match write {
                Write::Entry(_, entry) => Rc::clone(entry),
                Write::PutBack(was) => Rc::new(Entry::restored(was)),
            };
            Pair { key: key.clone(), entry }
        };
        let pairs = writes.iter().map(pair).collect();
        let until = self.invocation.deadline;
        let failures = bulk::put(self.invocation, Namespace::Settings, pairs, until).await;
        let mut failed = Vec::new();
        for (key, write) in writes {
            match (write, failures.get(&key)) {
                (Write::Entry(index, entry), None) => {
                    self.hold(&key, entry.to_stored());
                    self.last.insert(key, LastStep::Written { index, digest: entry.digest() });
                }
                (Write::PutBack(was), None) => {
                    warn!(key, "a key that was deleted is needed after all: put back as it was");
                    self.invocation.count(|stats| stats.deletes_restored += 1);
                    self.last.remove(&key);
                    self.hold(&key, was);
                }
                (Write::Entry(..), Some(error)) => {
                    self.fail(&key, error.clone().into());
                    failed.push(key);
                }
                (Write::PutBack(_), Some(error)) => {
                    error!(
                        key,
                        error = %Chain(error),
                        "a key that was deleted is needed after all, and could not be put back"
                    );
                    self.invocation.count(|stats| stats.put_backs_failed += 1);
                    self.fail(&key, error.clone().into());
                }
            }
        }
        failed
    }

    /// Notes what a key holds now. One that has failed is not settled any further.
    fn hold(&mut self, key: &str, stored: StoredValue) {
        if let Some(held) = self.held.get_mut(key) {
            *held = Held::new(stored, &self.invocation.config.environment);
        }
    }

    /// Deletes keys, as far as that leaves time for the look after it and for a put-back.
    async fn delete(&mut self, deletes: BTreeMap<String, Option<StoredValue>>) {
        if deletes.is_empty() {
            return;
        }
        let reserved = self.last_look + TIME_FOR_A_WRITE;
        let now = Instant::now();
        let until = self.invocation.deadline.checked_sub(reserved).unwrap_or(now);
        if now >= until {
            self.invocation.note_out_of_time();
            for key in deletes.into_keys() {
                self.fail(&key, KeyError::NoTimeToLookAgain);
            }
            return;
        }
        let keys = deletes.keys().cloned().collect();
        let failures = bulk::delete(self.invocation, Namespace::Settings, keys, until).await;
        for (key, was) in deletes {
            match failures.get(&key) {
                // It was refused, or not sent at all: nothing was deleted, so nothing is put back.
                Some(error) if error.changed_nothing() => {
                    self.fail(&key, error.clone().into());
                }
                // A delete whose answer was lost may have been done all the same, so it is looked
                // after like the others; only the outcome differs.
                failure => {
                    let unconfirmed = failure.cloned();
                    self.last.insert(key, LastStep::Deleted { was, unconfirmed });
                }
            }
        }
    }
}
