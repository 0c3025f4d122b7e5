//! Settling: makes a set of settings keys equal to what the table asks for now.
//!
//! Look (one pass over the table for all keys, and KV's values), decide, apply, look again, until
//! the table asks for nothing else than what was last written; at most five rounds.
//!
//! An item that asks for a key but can't be exported keeps it as it is. What was deleted and should
//! stay after all is put back as it was read; so is what nothing is certain of any more, before its
//! record is failed. [`mod@decide`] has the table of what becomes of a key, by what the
//! [`table_view`] says; [`action`] the table of what is done next. `look` reads both sides, `apply`
//! writes and deletes.

pub mod action;
mod apply;
pub mod decide;
mod look;
mod settling;
pub mod table_view;

use std::collections::BTreeMap;
use std::time::Duration;

use self::action::{Action, next_action};
use self::decide::Decision;
use super::MAX_ROUNDS;
use super::api_keys::ApiKeys;
use super::error::KeyError;
use super::invocation::Invocation;
use crate::ports::Services;

pub use self::action::Verdict;
pub use self::look::{item_now, read_whole};
pub use self::settling::SettleRequest;
use self::settling::Settling;

/// What a write takes, with time to spare: a put-back has to get through before the deadline.
const TIME_FOR_A_WRITE: Duration = Duration::from_secs(2);

/// Settles keys; a verdict for each, those that KV can't hold left out. Each round costs one pass
/// over the table, and the values under all keys are held in memory.
///
/// `api_keys` are those that the invocation has asked for already; what is missing is added.
pub async fn settle<S: Services>(
    invocation: &Invocation<'_, S>,
    request: SettleRequest,
    api_keys: &mut ApiKeys,
) -> BTreeMap<String, Verdict> {
    let mut settling = Settling::new(invocation, api_keys);
    settling.read_held(&request).await;
    settling.rounds().await;
    settling.put_back_ways_to_failed().await;
    settling.report();
    settling.into_verdicts()
}

/// Says what settling would make of the keys, without doing it.
pub async fn preview<S: Services>(
    invocation: &Invocation<'_, S>,
    request: SettleRequest,
    api_keys: &mut ApiKeys,
) -> BTreeMap<String, Verdict> {
    let mut settling = Settling::new(invocation, api_keys);
    settling.read_held(&request).await;
    match settling.look().await {
        Ok(decisions) => drop(settling.actions(decisions)),
        Err(error) => {
            let keys = settling.held.keys().cloned().collect();
            settling.give_up(keys, &error.into()).await;
        }
    }
    settling.into_verdicts()
}

impl<S: Services> Settling<'_, '_, S> {
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
        for (key, decision) in decisions {
            if let Decision::KeepFor { index, rejection } = &decision {
                self.rejections.entry(index.clone()).or_insert_with(|| rejection.clone());
            }
            let (verdict, action) = next_action(decision, self.last.get(&key));
            actions.extend(action.map(|action| (key.clone(), action)));
            self.verdicts.insert(key, verdict);
        }
        actions
    }
}
