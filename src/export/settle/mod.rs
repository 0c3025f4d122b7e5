//! Settling: makes a set of settings keys equal to what the table asks for now.
//!
//! Look (one pass over the table for all keys, and KV's values), decide, apply, look again, until
//! the table asks for nothing else than what was last written; at most five rounds. Two looks are enough
//! where the table stands still.
//!
//! A shop id may be known only from KV's value under the index id's key. That key leads to it: it is
//! deleted last in its round, and put back if the shop id fails.
//!
//! What was deleted and should stay after all is put back as it was read. A deleted key of which nothing
//! is certain any more is put back too, before its record fails. [`mod@decide`] has the table of what
//! becomes of a key, by what the [`table_view`] says; [`action`] the table of what is done next. `look`
//! reads both sides, `apply` writes and deletes.

pub mod action;
mod apply;
pub mod decide;
mod look;
pub mod table_view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tracing::{error, warn};

use self::action::{Action, LastStep, next_action};
use self::decide::Decision;
use self::table_view::{Held, Named};
use super::MAX_ROUNDS;
use super::api_keys::ApiKeys;
use super::error::KeyError;
use super::invocation::Invocation;
use crate::index::IndexRef;
use crate::item::Rejection;
use crate::ports::{Namespace, Services};

pub use self::action::KeyOutcome;
pub use self::look::{pass, read_held, read_whole};

/// What a write takes, with time to spare: a put-back has to get through before the deadline.
const TIME_FOR_A_WRITE: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettleRequest {
    /// The keys, each with what it is known to have been written for.
    pub keys: BTreeMap<String, BTreeSet<Named>>,
    /// Index id keys of this set: the shop id that KV's value under them names is settled too.
    pub with_shop_id_in_value: BTreeSet<String>,
    /// Keys that have just been written for the items that ask for them: they are not settled.
    pub written: BTreeSet<String>,
}

impl SettleRequest {
    /// Adds keys that were written for `index`.
    pub fn add_written_for(&mut self, index: &IndexRef, keys: BTreeSet<String>) {
        let named = Named { index: index.clone(), shop_ids: keys.clone() };
        for key in keys {
            self.keys.entry(key).or_default().insert(named.clone());
        }
    }
}

/// Settles keys; what became of each, those that KV can't hold left out. Each round costs one pass
/// over the table, and the values under all keys are held in memory.
///
/// `api_keys` are those that the invocation has asked for already; what is missing is added.
pub async fn settle<S: Services>(
    invocation: &Invocation<'_, S>,
    request: SettleRequest,
    api_keys: &mut ApiKeys,
) -> BTreeMap<String, KeyOutcome> {
    let mut settling = Settling::new(invocation, api_keys);
    settling.read_held(&request).await;
    settling.outcomes().await
}

/// Takes the first of the keys, as many as memory allows, and settles them as [`settle`] does; what
/// became of each of them.
pub async fn settle_some<S: Services>(
    invocation: &Invocation<'_, S>,
    keys: &mut VecDeque<String>,
    api_keys: &mut ApiKeys,
) -> BTreeMap<String, KeyOutcome> {
    let mut settling = Settling::new(invocation, api_keys);
    settling.hold_first(keys).await;
    settling.outcomes().await
}

struct Settling<'a, 'k, S> {
    invocation: &'a Invocation<'a, S>,
    api_keys: &'k mut ApiKeys,
    /// What the keys that are still being settled hold, as far as it is known: as read, then as
    /// last written. KV does not promise that a writer reads its own writes, so it is read once.
    held: BTreeMap<String, Held>,
    /// For an index id's key, the shop id that is known only from its value. That key is deleted last, so
    /// that a retry can still find the shop id.
    shop_ids_in_values: BTreeMap<String, String>,
    last: BTreeMap<String, LastStep>,
    outcomes: BTreeMap<String, KeyOutcome>,
    last_look: Duration,
    /// Items that can't be exported and so keep a key, logged once.
    rejections: BTreeMap<IndexRef, Rejection>,
}

impl<'a, 'k, S: Services> Settling<'a, 'k, S> {
    fn new(invocation: &'a Invocation<'a, S>, api_keys: &'k mut ApiKeys) -> Self {
        Self {
            invocation,
            api_keys,
            held: BTreeMap::new(),
            shop_ids_in_values: BTreeMap::new(),
            last: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            last_look: Duration::ZERO,
            rejections: BTreeMap::new(),
        }
    }

    /// Looks, decides and applies until nothing is left to do; what became of each key.
    async fn outcomes(mut self) -> BTreeMap<String, KeyOutcome> {
        self.rounds().await;
        self.invocation.write_receipts(Namespace::Settings);
        self.report();
        // A shop id's failure is the failure of the index id whose value names it.
        let leading: Vec<String> = self.shop_ids_in_values.keys().cloned().collect();
        for index_id in leading {
            if let Some(error) = self.shop_id_error(&index_id) {
                self.outcomes.insert(index_id, KeyOutcome::Failed(error));
            }
        }
        self.outcomes
    }

    async fn rounds(&mut self) {
        for round in 0..=MAX_ROUNDS {
            if self.held.is_empty() {
                return;
            }
            let decisions = match self.look_in_time().await {
                Ok(decisions) => decisions,
                Err(error) => {
                    let keys = self.held.keys().cloned().collect();
                    return self.give_up(keys, &error.into()).await;
                }
            };
            let actions = self.actions(decisions);
            if actions.is_empty() {
                return;
            }
            if round == MAX_ROUNDS {
                let keys = actions.into_keys().collect();
                return self.give_up(keys, &KeyError::StillChanging).await;
            }
            self.apply(actions).await;
        }
    }

    /// What is left to do, given what was done already.
    fn actions(&mut self, decisions: BTreeMap<String, Decision>) -> BTreeMap<String, Action> {
        let mut actions = BTreeMap::new();
        // What becomes of a shop id is known before the key is asked about that leads to it.
        let (leading, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
            decisions.into_iter().partition(|(key, _)| self.shop_ids_in_values.contains_key(key));
        for (key, decision) in others.into_iter().chain(leading) {
            if let Decision::KeepFor(index, rejection) = &decision {
                self.rejections.entry(index.clone()).or_insert_with(|| rejection.clone());
            }
            let (outcome, action) =
                next_action(decision, self.shop_id_error(&key).as_ref(), self.last.get(&key));
            actions.extend(action.map(|action| (key.clone(), action)));
            self.outcomes.insert(key, outcome);
        }
        actions
    }

    /// Whether anything may have to be put back.
    fn has_deleted(&self) -> bool {
        self.last.values().any(|step| matches!(step, LastStep::Deleted { .. }))
    }

    /// Why the shop id has failed that only this key's value names, if it has.
    fn shop_id_error(&self, index_id: &str) -> Option<KeyError> {
        match self.outcomes.get(self.shop_ids_in_values.get(index_id)?) {
            Some(KeyOutcome::Failed(error)) => Some(error.clone()),
            _ => None,
        }
    }

    /// Takes a key out of the work.
    fn fail(&mut self, key: &str, error: KeyError) {
        self.held.remove(key);
        self.outcomes.insert(key.to_owned(), KeyOutcome::Failed(error));
    }

    /// Logs and counts what stays against expectation.
    fn report(&self) {
        for (index, rejection) in &self.rejections {
            error!(
                system_account_id = index.account,
                index_name = index.name,
                path = rejection.path,
                error = %rejection,
                "an index can't be exported: the keys that it asks for, or whose values name it, stay as they are"
            );
        }
        for (key, outcome) in &self.outcomes {
            let KeyOutcome::Withheld(pointers) = outcome else { continue };
            let pointers: Vec<String> = pointers.iter().map(ToString::to_string).collect();
            warn!(
                key,
                pointers = pointers.join(", "),
                "a key that no item asks for stays: active aliases of these items point at it"
            );
            self.invocation.count(|stats| stats.deletes_withheld += 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::fakes::{Fakes, Keys, KvFault, TIME_LEFT, batch_api_keys, index_item};
    use crate::ports::{Cause, KvError};
    use serde_json::json;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn a_write_that_puts_nothing_back_waits_only_as_long_as_a_batch_writes() {
        let fakes = Fakes::new();
        fakes.table.put(index_item("i", &json!({"shop_id": {"S": "s"}})));
        let refused =
            KvError::Transient(Cause { asked_wait: Some(TIME_LEFT / 2), ..Cause::new("503") });
        let is_read = KvFault::ListsAsUnsuccessful(Keys::Named(&[]));
        fakes.kv.faults.then([is_read, KvFault::Fails(refused)]);
        let invocation = fakes.invocation().writing_for(TIME_LEFT / 4);
        let keys = BTreeMap::from([("s".to_owned(), BTreeSet::new())]);
        let request = SettleRequest { keys, ..SettleRequest::default() };
        let start = Instant::now();

        let outcomes = settle(&invocation, request, &mut batch_api_keys()).await;

        assert!(matches!(outcomes["s"], KeyOutcome::Failed(_)), "{outcomes:?}");
        assert_eq!(start.elapsed(), TIME_LEFT / 4);
    }
}
