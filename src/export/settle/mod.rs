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
mod settling;
pub mod table_view;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use self::action::{Action, next_action};
use self::decide::Decision;
use super::MAX_ROUNDS;
use super::api_keys::ApiKeys;
use super::error::KeyError;
use super::invocation::Invocation;
use crate::ports::{Namespace, Services};

pub use self::action::KeyOutcome;
pub use self::look::{item_now, read_whole};
pub use self::settling::SettleRequest;
use self::settling::Settling;

/// What a write takes, with time to spare: a put-back has to get through before the deadline.
const TIME_FOR_A_WRITE: Duration = Duration::from_secs(2);

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
    settling.settle().await
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
    settling.settle().await
}

impl<S: Services> Settling<'_, '_, S> {
    /// Looks, decides and applies until nothing is left to do; what became of each key.
    async fn settle(mut self) -> BTreeMap<String, KeyOutcome> {
        self.rounds().await;
        self.invocation.write_receipts(Namespace::Settings);
        self.report();
        self.into_outcomes()
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
            let unclear: Vec<String> = decisions
                .iter()
                .filter(|(_, decision)| **decision == Decision::LookAgain)
                .map(|(key, _)| key.clone())
                .collect();
            let actions = self.actions(decisions);
            if actions.is_empty() && unclear.is_empty() {
                return;
            }
            if round == MAX_ROUNDS {
                let open = actions.into_keys().chain(unclear).collect();
                return self.give_up(open, &KeyError::StillChanging).await;
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
            if let Decision::KeepFor { index, rejection } = &decision {
                self.rejections.entry(index.clone()).or_insert_with(|| rejection.clone());
            }
            let (outcome, action) =
                next_action(decision, self.shop_id_error(&key).as_ref(), self.last.get(&key));
            actions.extend(action.map(|action| (key.clone(), action)));
            self.outcomes.insert(key, outcome);
        }
        actions
    }
}
