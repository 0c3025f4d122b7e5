//! Carries out what comes next: writes before deletes, and last the keys that alone lead to a shop id.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use tokio::time::Instant;
use tracing::{error, warn};

use super::action::{Action, KeyOutcome, LastStep, Write, put_back};
use super::table_view::Held;
use super::{Settling, TIME_FOR_A_WRITE};
use crate::error_chain::Chain;
use crate::export::bulk;
use crate::export::error::KeyError;
use crate::index::ItemName;
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
                Action::LookAgain => {}
            }
        }
        // One that was deleted and can't be written for the item that asks for it now is put back.
        let failed = self.send(writes).await;
        self.put_back(failed).await;
        let (mut leading, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            deletes.into_iter().partition(|(key, _)| self.shop_ids_in_values.contains_key(key));
        // If this invocation dies, a retry finds a shop id with an older version through its leading key.
        self.take_out_outdated(&mut leading).await;
        self.delete(others).await;
        leading.retain(|key, _| match self.shop_id_error(key) {
            Some(error) => {
                self.fail(key, error);
                false
            }
            None => true,
        });
        self.delete(leading).await;
    }

    /// Fails keys of which nothing is certain any more, and those that lead to them. What was deleted of
    /// them is put back first.
    pub async fn give_up(&mut self, mut keys: BTreeSet<String>, error: &KeyError) {
        let leading = self.shop_ids_in_values.iter();
        let leading = leading.filter(|(_, shop_id)| keys.contains(*shop_id));
        let leading: Vec<String> = leading.map(|(index_id, _)| index_id.clone()).collect();
        keys.extend(leading);
        self.put_back(keys.iter().cloned().collect()).await;
        for key in &keys {
            self.fail(key, error.clone());
        }
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
        let deadline = self.invocation.deadline;
        let bounds = match self.has_deleted() {
            true => bulk::Bounds::patient(deadline),
            false => bulk::Bounds::impatient(self.invocation, deadline),
        };
        let failures = bulk::put(self.invocation, Namespace::Settings, pairs, bounds).await;
        let mut failed = Vec::new();
        for (key, write) in writes {
            match (write, failures.get(&key)) {
                (Write::Entry(index, entry), None) => {
                    if let Some(held) = self.held.get_mut(&key) {
                        *held = Held::new(entry.to_stored(), &self.invocation.config.environment);
                    }
                    self.last.insert(key, LastStep::Written(index, entry.digest()));
                }
                (Write::PutBack(_), None) => {
                    warn!(key, "a key that was deleted is needed after all: put back as it was");
                    self.invocation.count(|stats| stats.deletes_restored += 1);
                    self.last.remove(&key);
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
        let item = |key: &String| -> Option<ItemName> {
            Some(self.held.get(key)?.named.first()?.index.clone().into())
        };
        let keys = deletes.keys().map(|key| (key.clone(), item(key))).collect();
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
                    if let Some(error) = &unconfirmed {
                        let failed = KeyOutcome::Failed(KeyError::DeleteUnconfirmed(error.clone()));
                        self.outcomes.insert(key.clone(), failed);
                    }
                    self.last.insert(key, LastStep::Deleted { was, unconfirmed });
                }
            }
        }
    }
}
