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
//! | none | nothing, or a stranger's value | left alone |
//!
//! An item that asks for a key but can't be exported keeps it as it is. What was deleted and should
//! stay after all is put back as it was read. [`claims`] reads the table's side, [`mod@decide`] holds the rows above.

pub mod claims;
pub mod decide;

use std::collections::{BTreeMap, BTreeSet};

use tracing::{error, warn};

use self::claims::{Claims, Held, Interest};
use self::decide::{Decision, Export, decide};
use crate::api_keys::{ApiKeys, Gathering, KeyOwner};
use crate::bulk;
use crate::entry::{Entry, Pair, Stored};
use crate::limits::check_key;
use crate::ports::{ApiKeyError, Namespace, Services, StoredSettings};
use crate::query_configs::read as read_items;
use crate::record::{Encoded, IndexRef, IndexSettings, Rejection};
use crate::run::Run;
use crate::settings_keys::{entry, key_owner, rejected_account, reusable_keys};
use crate::stream::decode_settings_of;

/// The most rounds of look, decide, apply.
pub const MAX_ROUNDS: usize = 5;

/// What is to be settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SettleRequest {
    /// The keys.
    pub keys: BTreeSet<String>,
    /// Those of the keys, index ids, whose value in KV names a shop id that is to be settled too.
    pub leading: BTreeSet<String>,
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
    /// It stays though no item asks for it: these indexes' active aliases point at it.
    Withheld(BTreeSet<IndexRef>),
    /// Trying again may help.
    Failed(String),
}

/// Settles keys; a verdict for each, those that KV can't hold left out.
///
/// `keys` are the API keys that the invocation has asked for already; what is missing is added.
pub async fn settle<S: Services>(
    run: &Run<'_, S>,
    request: SettleRequest,
    keys: &mut ApiKeys,
) -> BTreeMap<String, Verdict> {
    let mut settling = Settling::new(run, keys);
    settling.read_held(&request).await;
    settling.rounds().await;
    settling.finish()
}

/// Says what settling would make of the keys, without doing it.
pub async fn inspect<S: Services>(
    run: &Run<'_, S>,
    request: SettleRequest,
    keys: &mut ApiKeys,
) -> BTreeMap<String, Verdict> {
    let mut settling = Settling::new(run, keys);
    settling.read_held(&request).await;
    match settling.look().await {
        Ok(decisions) => drop(settling.actions(decisions)),
        Err(reason) => settling.fail_all(&reason),
    }
    settling.finish()
}

struct Settling<'a, 'k, S> {
    run: &'a Run<'a, S>,
    api_keys: &'k mut ApiKeys,
    /// What the keys that are still being settled hold, as far as it is known: as read, then as
    /// last written. KV promises nobody to read his own writes, so it is read once.
    held: BTreeMap<String, Held>,
    /// Index id keys, and the shop id key that is known only from their value.
    leads: BTreeMap<String, String>,
    /// What was last done to a key.
    last: BTreeMap<String, Done>,
    verdicts: BTreeMap<String, Verdict>,
    reused: BTreeMap<IndexRef, secrecy::SecretString>,
    /// Items that ask for a key and can't be exported, logged once.
    rejections: BTreeMap<IndexRef, Rejection>,
}

/// What was last done to a key.
enum Done {
    Written {
        index: IndexRef,
        digest: crate::digest::Digest,
    },
    /// The delete was sent; `confirmed` says whether KV said so too.
    Deleted {
        was: Stored,
        confirmed: bool,
    },
}

/// How far a shop id is that an index id key leads to.
enum Led {
    Done,
    Open,
    Failed,
}

/// What is done to a key next.
enum Action {
    Write(IndexRef, std::rc::Rc<Entry>),
    Restore(Stored),
    Delete(Stored),
}

impl<'a, 'k, S: Services> Settling<'a, 'k, S> {
    fn new(run: &'a Run<'a, S>, api_keys: &'k mut ApiKeys) -> Self {
        Self {
            run,
            api_keys,
            held: BTreeMap::new(),
            leads: BTreeMap::new(),
            last: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            reused: BTreeMap::new(),
            rejections: BTreeMap::new(),
        }
    }

    async fn read_held(&mut self, request: &SettleRequest) {
        let possible = |key: &&String| check_key(key).is_ok();
        let keys: Vec<String> = request.keys.iter().filter(possible).cloned().collect();
        self.read_keys(keys).await;
        for index_id in &request.leading {
            let Some(shop_id) = self.held.get(index_id).and_then(|held| held.shop_id.clone())
            else {
                continue;
            };
            if shop_id != *index_id && check_key(&shop_id).is_ok() {
                self.leads.insert(index_id.clone(), shop_id);
            }
        }
        let found: BTreeSet<String> = self
            .leads
            .values()
            .filter(|key| !self.held.contains_key(*key) && !self.verdicts.contains_key(*key))
            .cloned()
            .collect();
        self.read_keys(found.into_iter().collect()).await;
    }

    async fn read_keys(&mut self, keys: Vec<String>) {
        if keys.is_empty() {
            return;
        }
        let (mut stored, failures) = bulk::read(self.run, Namespace::Settings, keys.clone()).await;
        for key in keys {
            match failures.get(&key) {
                Some(error) => self.fail(&key, error.to_string()),
                None => {
                    let held = Held::new(stored.remove(&key));
                    self.held.insert(key, held);
                }
            }
        }
    }

    async fn rounds(&mut self) {
        for round in 0..=MAX_ROUNDS {
            if self.held.is_empty() {
                return;
            }
            let decisions = match self.look().await {
                Ok(decisions) => decisions,
                Err(reason) => return self.fail_all(&reason),
            };
            let unclear = decisions.values().any(|decision| *decision == Decision::LookAgain);
            let actions = self.actions(decisions);
            if actions.is_empty() && !unclear {
                return;
            }
            if round == MAX_ROUNDS {
                for key in actions.into_keys() {
                    self.fail(&key, format!("the table still changes after {MAX_ROUNDS} rounds"));
                }
                return;
            }
            self.apply(actions).await;
        }
    }

    /// Reads the table's side and decides for each key.
    async fn look(&mut self) -> Result<BTreeMap<String, Decision>, String> {
        let interest = Interest::new(&self.held);
        let claims = Claims::scan(self.run, interest).await?;
        let wanted = claims.items_to_read(&self.held);
        let item_keys = wanted.iter().map(IndexRef::item_key).collect();
        let mut items = read_items(self.run, &item_keys).await?;
        let mut exports: BTreeMap<IndexRef, Export> = BTreeMap::new();
        for index in wanted {
            let export = match items.remove(&index.item_key()) {
                None => Export::Gone,
                Some(item) => match decode_settings_of(&index, &item) {
                    Ok(settings) => Export::Lacking(settings),
                    Err(rejection) => Export::Rejected(rejection),
                },
            };
            exports.insert(index, export);
        }
        self.complete(&mut exports).await;
        let decisions: BTreeMap<String, Decision> = self
            .held
            .iter()
            .map(|(key, held)| (key.clone(), decide(key, held, &claims, &exports)))
            .collect();
        Ok(decisions)
    }

    /// Gives the items their API keys: asked for once, else from what KV holds.
    async fn complete(&mut self, exports: &mut BTreeMap<IndexRef, Export>) {
        let limits = self.run.limits;
        let missing: BTreeSet<KeyOwner> = exports
            .values()
            .filter_map(Export::lacking)
            .filter_map(|settings| key_owner(limits, settings).ok())
            .filter(|owner| !self.api_keys.contains_key(owner))
            .collect();
        if !missing.is_empty() {
            let found = Gathering::start(self.run, missing).rest().await;
            self.api_keys.extend(found);
        }
        let unavailable: Vec<&IndexSettings> = exports
            .values()
            .filter_map(Export::lacking)
            .filter(|settings| !self.reused.contains_key(&settings.index))
            .filter(|settings| {
                key_owner(limits, settings).is_ok_and(|owner| {
                    matches!(
                        self.api_keys.get(&owner),
                        Some(Err(ApiKeyError::Unavailable { .. })) | None
                    )
                })
            })
            .collect();
        if !unavailable.is_empty() {
            let found = reusable_keys(self.run, &unavailable).await;
            self.reused.extend(found);
        }
        let exported_at = self.run.exported_at();
        for (index, export) in exports.iter_mut() {
            let Some(settings) = export.lacking() else { continue };
            let answer = match key_owner(limits, settings) {
                Err(rejection) => Err(Export::Rejected(rejection)),
                Ok(owner) => match (self.api_keys.get(&owner), self.reused.get(index)) {
                    (Some(Ok(key)), _) | (_, Some(key)) => Ok(key),
                    (Some(Err(error @ ApiKeyError::Unavailable { .. })), None) => {
                        Err(Export::Unavailable(settings.clone(), error.to_string()))
                    }
                    (Some(Err(error)), None) => Err(Export::Rejected(rejected_account(error))),
                    (None, None) => {
                        Err(Export::Unavailable(settings.clone(), "no answer".to_owned()))
                    }
                },
            };
            *export = match answer {
                Err(export) => export,
                Ok(key) => match entry(self.run, settings, settings.draft(), key, &exported_at) {
                    Ok(entry) => Export::Ready(settings.clone(), entry),
                    Err(rejection) => Export::Rejected(rejection),
                },
            };
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
                        (Verdict::Failed("KV did not confirm the delete".to_owned()), None)
                    }
                    _ => (Verdict::Deleted, Some(Action::Delete(stored))),
                },
                Decision::LeaveAlone => (Verdict::Left, None),
                Decision::LookAgain => {
                    (Verdict::Failed("the table changes while it is read".to_owned()), None)
                }
                Decision::Fail(reason) => (Verdict::Failed(reason), None),
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
            Some(Done::Deleted { was, .. }) => Some(Action::Restore(was.clone())),
            _ => None,
        }
    }

    /// Writes, then deletes; an index id key that leads to a shop id key after that one.
    async fn apply(&mut self, actions: BTreeMap<String, Action>) {
        let mut writes = Vec::new();
        let mut deletes = BTreeMap::new();
        for (key, action) in actions {
            match action {
                Action::Delete(stored) => {
                    deletes.insert(key, stored);
                }
                write => writes.push((key, write)),
            }
        }
        self.write(writes).await;
        let (last, first): (BTreeMap<_, _>, BTreeMap<_, _>) =
            deletes.into_iter().partition(|(key, _)| self.leads.contains_key(key));
        self.delete(first).await;
        let mut ready = BTreeMap::new();
        for (key, stored) in last {
            match self.led_key(&key) {
                Led::Done => {
                    ready.insert(key, stored);
                }
                // The next round looks at both again.
                Led::Open => {}
                Led::Failed => {
                    let reason = "the shop id that its value names could not be settled";
                    self.fail(&key, reason.to_owned());
                }
            }
        }
        self.delete(ready).await;
    }

    /// How far the shop id is that an index id key leads to: nothing may be lost with the way to it.
    fn led_key(&self, index_id: &str) -> Led {
        let Some(shop_id) = self.leads.get(index_id) else { return Led::Done };
        match (self.last.get(shop_id), self.held.get(shop_id)) {
            (_, None) | (Some(Done::Deleted { confirmed: false, .. }), _) => Led::Failed,
            (Some(Done::Deleted { confirmed: true, .. }), _) => Led::Done,
            // It stays for another item: nothing is left that the way to it would serve.
            _ if matches!(
                self.verdicts.get(shop_id),
                Some(Verdict::Left | Verdict::Withheld(_))
            ) =>
            {
                Led::Done
            }
            (_, Some(held)) => match &held.index {
                Some(index) if index.index_id() == index_id => Led::Open,
                _ => Led::Done,
            },
        }
    }

    async fn write(&mut self, writes: Vec<(String, Action)>) {
        if writes.is_empty() {
            return;
        }
        let mut pairs = Vec::with_capacity(writes.len());
        for (key, action) in &writes {
            let entry = match action {
                Action::Write(_, entry) => entry.clone(),
                Action::Restore(was) => std::rc::Rc::new(self.restored(was)),
                Action::Delete(_) => continue,
            };
            pairs.push(Pair { key: key.clone(), entry });
        }
        let failures = bulk::put(self.run, Namespace::Settings, pairs).await;
        for (key, action) in writes {
            if let Some(error) = failures.get(&key) {
                if matches!(action, Action::Restore(_)) {
                    error!(
                        key,
                        "a key that was deleted is needed after all, and could not be put back: {error}"
                    );
                }
                self.fail(&key, error.to_string());
                continue;
            }
            match action {
                Action::Write(index, entry) => {
                    self.held.insert(key.clone(), Held::new(Some(entry.to_stored())));
                    self.last.insert(key, Done::Written { index, digest: entry.digest() });
                }
                Action::Restore(was) => {
                    warn!(key, "a key that was deleted is needed after all: put back as it was");
                    self.run.count(|tally| tally.deletes_restored += 1);
                    self.last.remove(&key);
                    self.held.insert(key, Held::new(Some(was)));
                }
                Action::Delete(_) => {}
            }
        }
    }

    /// The entry that puts a value back. A stand-in for KV that tells no metadata must not turn
    /// the entry into a stranger's.
    fn restored(&self, was: &Stored) -> Entry {
        let anew = || {
            let index = StoredSettings::parse(&was.value)?.index;
            Entry::new(Encoded::of(&was.value), &index, self.run.source, &self.run.exported_at())
                .ok()
        };
        let anew = if was.metadata_json.is_none() { anew() } else { None };
        anew.unwrap_or_else(|| Entry::restored(was))
    }

    async fn delete(&mut self, deletes: BTreeMap<String, Stored>) {
        if deletes.is_empty() {
            return;
        }
        let keys = deletes.keys().cloned().collect();
        let failures = bulk::delete(self.run, Namespace::Settings, keys).await;
        for (key, was) in deletes {
            // A delete whose answer was lost may have been done all the same, so it is looked
            // after like the others; only the verdict differs.
            let confirmed = !failures.contains_key(&key);
            self.last.insert(key, Done::Deleted { was, confirmed });
        }
    }

    fn fail_all(&mut self, reason: &str) {
        for key in std::mem::take(&mut self.held).into_keys() {
            self.verdicts.insert(key, Verdict::Failed(reason.to_owned()));
        }
    }

    /// Takes a key out of the work.
    fn fail(&mut self, key: &str, reason: String) {
        self.held.remove(key);
        self.verdicts.insert(key.to_owned(), Verdict::Failed(reason));
    }

    fn finish(mut self) -> BTreeMap<String, Verdict> {
        for (index, rejection) in &self.rejections {
            error!(
                system_account_id = index.account,
                index_name = index.index,
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
                "a key that no item asks for stays: active aliases of these indexes point at it"
            );
            self.run.count(|tally| tally.deletes_withheld += 1);
        }
        // A shop id's failure is the failure of the index id that leads to it.
        for (index_id, shop_id) in &self.leads {
            let failed = self.verdicts.get(shop_id).cloned();
            if let Some(failed @ Verdict::Failed(_)) = failed {
                self.verdicts.insert(index_id.clone(), failed);
            }
        }
        self.verdicts
    }
}
