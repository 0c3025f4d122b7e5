//! Settling: makes a set of settings keys equal to what the table asks for now.
//!
//! Look (one pass over the table for all keys, and KV's values), decide, apply, look again, until
//! the table asks for nothing else than what was last written; at most five rounds.
//!
//! | items that ask for the key | KV holds | then |
//! | --- | --- | --- |
//! | one or more | anything | written, from the table, for the item that KV's value names, else for the first |
//! | none | a value naming an index that is the target of an active alias and has no item, or the key is named as `shop_id` by a write alias | stays, with a warning |
//! | none | a value naming an index whose item cannot be exported | stays |
//! | none | a value naming any other index | deleted |
//! | none | nothing, where the key is known to have been written for a removed index | as if a value named that index: KV's answer may be a minute old |
//! | none | nothing else, or a stranger's value | left alone |
//!
//! An item that asks for a key but can't be exported keeps it as it is. What was deleted and should
//! stay after all is put back as it was read; so is what nothing is certain of any more, before its
//! record is failed. [`table_view`] reads the table's side, [`mod@decide`] holds the rows above,
//! `apply` carries them out.

mod apply;
pub mod decide;
pub mod table_view;

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;
use tracing::{error, warn};

use self::apply::Done;
use self::decide::{Decision, ItemNow, decide};
use self::table_view::{Held, Named, TableView};
use super::MAX_ROUNDS;
use super::api_keys::ApiKeys;
use super::bulk;
use super::api_keys::NotExportable;
use super::desired::Desired;
use super::error::KeyError;
use super::invocation::{Invocation, OutOfTime};
use super::table::{Pass, PassOver, ReadError, read_items};
use crate::index::IndexRef;
use crate::item::{IndexSettings, ItemKey, Rejection};
use crate::kv::{Entry, StoredValue, check_key};
use crate::ports::{Namespace, ScanColumns, Services};

/// What a write takes, with time to spare: a put-back has to get through before the deadline.
const TIME_FOR_A_WRITE: Duration = Duration::from_secs(2);

/// What is to be settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettleRequest {
    /// The keys, each with what it is known to have been written for.
    pub keys: BTreeMap<String, BTreeSet<Named>>,
    /// Those of the keys, index ids, whose value in KV names a shop id that is to be settled too.
    pub leading: BTreeSet<String>,
}

impl SettleRequest {
    /// Keys that were written for `index`.
    pub fn written_for(index: &IndexRef, keys: BTreeSet<String>) -> Self {
        let named = Named { index: index.clone(), shop_ids: keys.clone() };
        let keys = keys.into_iter().map(|key| (key, BTreeSet::from([named.clone()])));
        Self { keys: keys.collect(), leading: BTreeSet::new() }
    }

    /// Keys under which nothing needs to be settled if KV holds nothing there.
    pub fn of_keys(keys: impl IntoIterator<Item = String>) -> Self {
        let keys = keys.into_iter().map(|key| (key, BTreeSet::new()));
        Self { keys: keys.collect(), leading: BTreeSet::new() }
    }
}

/// What became of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds this index, as the table has it.
    Written(IndexRef),
    /// It is gone.
    Deleted,
    /// It stays as it is: what it is for can't be exported, or nothing of ours is there.
    Left,
    /// It stays though no item asks for it: these items' active aliases point at it.
    Withheld(BTreeSet<ItemKey>),
    /// Trying again may help.
    Failed(KeyError),
}

/// Settles keys; a verdict for each, those that KV can't hold left out.
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
    settling.finish()
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
        Err(error) => settling.give_up_all(&error.into()).await,
    }
    settling.finish()
}

struct Settling<'a, 'k, S> {
    invocation: &'a Invocation<'a, S>,
    api_keys: &'k mut ApiKeys,
    /// What the keys that are still being settled hold, as far as it is known: as read, then as
    /// last written. KV does not promise that a writer reads its own writes, so it is read once.
    held: BTreeMap<String, Held>,
    /// For an index id's key, the shop id that is known only from its value.
    led_to: BTreeMap<String, String>,
    /// What was last done to a key.
    last: BTreeMap<String, Done>,
    verdicts: BTreeMap<String, Verdict>,
    /// How long the last look took.
    last_look: Duration,
    /// Items that ask for a key and can't be exported, logged once.
    rejections: BTreeMap<IndexRef, Rejection>,
}

/// What is done to a key next.
enum Action {
    Write(IndexRef, Rc<Entry>),
    Restore(StoredValue),
    Delete(Option<StoredValue>),
}

impl<'a, 'k, S: Services> Settling<'a, 'k, S> {
    fn new(invocation: &'a Invocation<'a, S>, api_keys: &'k mut ApiKeys) -> Self {
        Self {
            invocation,
            api_keys,
            held: BTreeMap::new(),
            led_to: BTreeMap::new(),
            last: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            last_look: Duration::ZERO,
            rejections: BTreeMap::new(),
        }
    }

    /// Reads what KV holds, first under the keys, then under the shop ids that those lead to.
    async fn read_held(&mut self, request: &SettleRequest) {
        // Nothing can be under a name that KV can't hold.
        let mut keys = request.keys.clone();
        keys.retain(|key, _| check_key(key).is_ok());
        self.read_keys(keys).await;
        for index_id in &request.leading {
            let Some(Held::Ours { named, .. }) = self.held.get(index_id) else { continue };
            let Some(shop_id) = named.shop_ids.first().cloned() else { continue };
            if shop_id != *index_id && check_key(&shop_id).is_ok() {
                self.led_to.insert(index_id.clone(), shop_id);
            }
        }
        let mut led_to: BTreeMap<String, BTreeSet<Named>> =
            self.led_to.values().map(|key| (key.clone(), BTreeSet::new())).collect();
        led_to.retain(|key, _| !self.held.contains_key(key) && !self.verdicts.contains_key(key));
        self.read_keys(led_to).await;
    }

    async fn read_keys(&mut self, keys: BTreeMap<String, BTreeSet<Named>>) {
        if keys.is_empty() {
            return;
        }
        let names = keys.keys().cloned().collect();
        let (mut stored, failures) = bulk::read(self.invocation, Namespace::Settings, names).await;
        for (key, written_for) in keys {
            if let Some(error) = failures.get(&key) {
                self.fail(&key, error.clone().into());
                continue;
            }
            let held = match stored.remove(&key) {
                Some(stored) => Held::new(stored, &self.invocation.config.environment),
                None => Held::Nothing(written_for),
            };
            self.held.insert(key, held);
        }
    }

    async fn rounds(&mut self) {
        for round in 0..=MAX_ROUNDS {
            if self.held.is_empty() {
                return;
            }
            let decisions = match self.look_in_time().await {
                Ok(decisions) => decisions,
                Err(error) => return self.give_up_all(&error.into()).await,
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

    /// A look that leaves time for a put-back where something was deleted.
    async fn look_in_time(&mut self) -> Result<BTreeMap<String, Decision>, ReadError> {
        let deleted = self.last.values().any(|done| matches!(done, Done::Deleted { .. }));
        let started = Instant::now();
        let until = match deleted {
            true => self.invocation.deadline.checked_sub(TIME_FOR_A_WRITE).unwrap_or(started),
            false => self.invocation.deadline,
        };
        let look = tokio::time::timeout_at(until, self.look()).await;
        self.last_look = started.elapsed();
        look.unwrap_or(Err(ReadError::OutOfTime(OutOfTime)))
    }

    async fn give_up_all(&mut self, error: &KeyError) {
        self.give_up(self.held.keys().cloned().collect(), error).await;
    }

    /// Fails keys of which nothing is certain any more. What was deleted of them is put back first.
    async fn give_up(&mut self, keys: BTreeSet<String>, error: &KeyError) {
        let restores = keys.iter().filter_map(|key| Some((key.clone(), self.restore(key)?)));
        let restores = restores.collect();
        self.write(restores).await;
        for key in &keys {
            self.fail(key, error.clone());
        }
    }

    /// Reads the table's side and decides for each key.
    async fn look(&mut self) -> Result<BTreeMap<String, Decision>, ReadError> {
        let mut table = TableView::for_keys(&self.held);
        let mut pass = Pass::new(self.invocation, PassOver::Table(ScanColumns::Claims));
        while let Some(items) = pass.next().await? {
            for (key, item) in &items {
                table.add(key, item);
            }
        }
        let items = self.read_whole(table.items_to_read(&self.held)).await?;
        let decisions = self.held.iter().map(|(key, held)| {
            let decision = decide(key, held, &table, &items);
            (key.clone(), decision)
        });
        Ok(decisions.collect())
    }

    /// Reads items whole, and what each would be exported as.
    async fn read_whole(
        &mut self,
        indexes: BTreeSet<IndexRef>,
    ) -> Result<BTreeMap<IndexRef, ItemNow>, ReadError> {
        let items = read_items(self.invocation, indexes.iter().map(ItemKey::of_index)).await?;
        let mut now: BTreeMap<IndexRef, ItemNow> = BTreeMap::new();
        let mut complete: Vec<IndexSettings> = Vec::new();
        for index in indexes {
            let decoded = items
                .get(&ItemKey::of_index(&index))
                .map(|item| IndexSettings::decode(&index, &item.attributes()));
            match decoded {
                None => drop(now.insert(index, ItemNow::Gone)),
                Some(Err(rejection)) => drop(now.insert(index, ItemNow::Rejected(rejection))),
                Some(Ok(settings)) => complete.push(settings),
            }
        }
        self.api_keys.ask(self.invocation, &complete).await;
        for settings in complete {
            let item = self.item_now(&settings);
            now.insert(settings.index, item);
        }
        Ok(now)
    }

    fn item_now(&self, settings: &IndexSettings) -> ItemNow {
        let desired = Desired::of_settings(settings, self.invocation.config, self.api_keys);
        match desired {
            Ok(desired) => match desired.entry(&self.invocation.stamp()) {
                Ok(entry) => ItemNow::Exportable { keys: desired.keys, entry },
                Err(rejection) => ItemNow::Rejected(rejection),
            },
            Err(NotExportable::Rejected(rejection)) => ItemNow::Rejected(rejection),
            Err(NotExportable::Unavailable(error)) => {
                ItemNow::Unavailable { keys: settings.kv_keys(), error }
            }
        }
    }

    /// What is left to do, given what was done already.
    fn actions(&mut self, decisions: BTreeMap<String, Decision>) -> BTreeMap<String, Action> {
        let mut actions = BTreeMap::new();
        for (key, decision) in decisions {
            let (verdict, action) = match decision {
                Decision::Write { index, entry } => {
                    let current = matches!(
                        self.last.get(&key),
                        Some(Done::Written { index: last, digest })
                            if *last == index && *digest == entry.digest()
                    );
                    let write = (!current).then(|| Action::Write(index.clone(), entry));
                    (Verdict::Written(index), write)
                }
                Decision::Withhold(pointers) => (Verdict::Withheld(pointers), self.restore(&key)),
                Decision::KeepFor { index, rejection } => {
                    self.rejections.entry(index).or_insert(rejection);
                    (Verdict::Left, self.restore(&key))
                }
                Decision::Delete(stored) => match self.last.get(&key) {
                    Some(Done::Deleted { confirmed: true, .. }) => (Verdict::Deleted, None),
                    Some(Done::Deleted { confirmed: false, .. }) => {
                        (Verdict::Failed(KeyError::DeleteUnconfirmed), None)
                    }
                    _ => (Verdict::Deleted, Some(Action::Delete(stored))),
                },
                Decision::LeaveAlone => (Verdict::Left, None),
                Decision::LookAgain => (Verdict::Failed(KeyError::ChangedMeanwhile), None),
                // What was deleted is put back while the record waits for the API key.
                Decision::Undecided(error) => (Verdict::Failed(error.into()), self.restore(&key)),
            };
            if let Some(action) = action {
                actions.insert(key.clone(), action);
            }
            self.verdicts.insert(key, verdict);
        }
        actions
    }

    /// What was deleted and should have stayed is put back.
    fn restore(&self, key: &str) -> Option<Action> {
        match self.last.get(key) {
            Some(Done::Deleted { was: Some(was), .. }) => Some(Action::Restore(was.clone())),
            _ => None,
        }
    }

    /// Takes a key out of the work.
    fn fail(&mut self, key: &str, error: KeyError) {
        self.held.remove(key);
        self.verdicts.insert(key.to_owned(), Verdict::Failed(error));
    }

    fn finish(mut self) -> BTreeMap<String, Verdict> {
        for (index, rejection) in &self.rejections {
            error!(
                system_account_id = index.account,
                index_name = index.name,
                path = rejection.path,
                error = %rejection,
                "an index asks for a key but can't be exported: the key stays as it is"
            );
        }
        for (key, verdict) in &self.verdicts {
            let Verdict::Withheld(pointers) = verdict else { continue };
            let pointers: Vec<String> = pointers.iter().map(ToString::to_string).collect();
            warn!(
                key,
                pointers = pointers.join(", "),
                "a key that no item asks for stays: active aliases of these items point at it"
            );
            self.invocation.count(|stats| stats.deletes_withheld += 1);
        }
        // A shop id's failure is the failure of the index id that leads to it.
        for (index_id, shop_id) in &self.led_to {
            let failed = self.verdicts.get(shop_id).cloned();
            if let Some(failed @ Verdict::Failed(_)) = failed {
                self.verdicts.insert(index_id.clone(), failed);
            }
        }
        self.verdicts
    }
}
