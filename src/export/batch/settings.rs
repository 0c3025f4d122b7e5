//! The settings part of a batch.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use tracing::warn;

use super::outcome::RecordOutcome;
use super::plan::{SettingsItem, Task};
use crate::export::api_keys::{
    ApiKeyOwner, ApiKeys, BATCH_TIME_FOR_API_KEYS, Exportable, LATE_TIME_FOR_API_KEYS,
    NotExportable, Patience, Reuse,
};
use crate::export::bulk;
use crate::export::desired::{Desired, warn_if_odd};
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::settle::table_view::Named;
use crate::export::settle::{KeyOutcome, SettleRequest, settle};
use crate::kv::{Entry, Pair};
use crate::ports::{Namespace, Services};

pub async fn export<S: Services>(
    invocation: &Invocation<'_, S>,
    items: &[SettingsItem],
) -> Vec<RecordOutcome> {
    for index in items.iter().filter_map(|item| item.task.export()) {
        warn_if_odd(&index.settings);
    }
    let mut export = SettingsExport {
        invocation,
        items,
        states: items.iter().map(|_| ItemState::Open).collect(),
        api_keys: ApiKeys::new(Patience::InAll(BATCH_TIME_FOR_API_KEYS), Reuse::FromKv),
        written: HashMap::new(),
    };
    export.write().await;
    export.settle().await;
    let outcomes = export.states.into_iter().map(|state| match state {
        ItemState::Closed(outcome) => outcome,
        ItemState::Open | ItemState::Ready(_) => RecordOutcome::Exported,
    });
    outcomes.collect()
}

struct SettingsExport<'a, S> {
    invocation: &'a Invocation<'a, S>,
    items: &'a [SettingsItem],
    states: Vec<ItemState>,
    api_keys: ApiKeys,
    /// The position of the item that each key is written for.
    written: HashMap<String, usize>,
}

enum ItemState {
    /// A removal, or an export that waits for its API key.
    Open,
    /// To be written, or written.
    Ready(Rc<Entry>),
    Closed(RecordOutcome),
}

impl<S: Services> SettingsExport<'_, S> {
    /// Writes everything that can be written. One PUT is the rule; where some API keys take longer,
    /// what is ready goes out first.
    async fn write(&mut self) {
        let owners = self.api_key_owners();
        let mut asking = self.api_keys.start(self.invocation, owners);
        self.api_keys.extend(asking.first_wave().await);
        if !asking.is_complete() {
            self.resolve();
            let pairs = self.ready_pairs(&self.wanted_keys());
            let put = self.put(pairs);
            let (failures, late_answers) = tokio::join!(put, asking.rest());
            self.close_failed(failures);
            self.api_keys.extend(late_answers);
        }
        self.api_keys.note_end(&asking);
        let open = self.states.iter().zip(self.items);
        let open = open.filter(|(state, _)| matches!(state, ItemState::Open));
        let open = open.filter_map(|(_, item)| item.task.export());
        self.api_keys.look_into_kv(self.invocation, open).await;
        self.resolve();
        let wanted = self.wanted_keys();
        self.warn_of_shared_keys(&wanted);
        let pairs = self.ready_pairs(&wanted);
        self.close_failed(self.put(pairs).await);
        self.invocation.write_receipts(Namespace::Settings);
    }

    async fn put(&self, pairs: Vec<Pair>) -> bulk::Failures {
        let bounds = bulk::Bounds::patient(self.invocation.writes_until);
        bulk::put(self.invocation, Namespace::Settings, pairs, bounds).await
    }

    /// Whose API keys are asked for, and how long each is waited for.
    fn api_key_owners(&self) -> BTreeMap<ApiKeyOwner, Duration> {
        let mut owners = BTreeMap::new();
        for item in self.items {
            let Some(Exportable { owner, .. }) = item.task.export() else { continue };
            let time = time_for_api_keys([item]);
            let longest = owners.entry(owner.clone()).or_insert(time);
            *longest = time.max(*longest);
        }
        owners
    }

    /// Readies or closes the items of which it is known whether they have an API key.
    fn resolve(&mut self) {
        let stamp = self.invocation.stamp();
        for (state, item) in self.states.iter_mut().zip(self.items) {
            let (ItemState::Open, Some(index)) = (&*state, item.task.export()) else { continue };
            let desired = Desired::of_settings(index, &self.api_keys);
            let stamp = stamp.clone().changed_at(item.deciding.changed_at);
            let entry = desired.and_then(|desired| Ok(desired.entry(&stamp)?));
            *state = match entry {
                Ok(entry) => ItemState::Ready(entry),
                Err(NotExportable::Rejected(rejection)) => {
                    ItemState::Closed(RecordOutcome::rejected(item.index.clone(), rejection))
                }
                Err(NotExportable::Unavailable(error)) if error.is_preliminary() => ItemState::Open,
                Err(NotExportable::Unavailable(error)) => {
                    let name = item.index.clone();
                    ItemState::Closed(RecordOutcome::of_error(
                        name,
                        error.into(),
                        item.deciding.late,
                    ))
                }
            };
        }
    }

    /// The keys that items ask for, each with its item's position: those of rejected and failed items
    /// are left out.
    fn wanted_keys(&self) -> Vec<(String, usize)> {
        let mut wanted: Vec<(String, usize)> = Vec::with_capacity(self.items.len() * 2);
        for (position, item) in self.items.iter().enumerate() {
            let Some(index) = item.task.export() else { continue };
            if !matches!(self.states[position], ItemState::Closed(_)) {
                wanted.extend(index.settings.kv_keys().into_iter().map(|key| (key, position)));
            }
        }
        wanted
    }

    fn warn_of_shared_keys(&self, wanted: &[(String, usize)]) {
        let mut owners: HashMap<&str, usize> = HashMap::with_capacity(wanted.len());
        for (key, position) in wanted {
            let Some(previous) = owners.insert(key, *position) else { continue };
            let index = &self.items[*position].index;
            let loser = &self.items[previous].index;
            warn!(
                system_account_id = index.account,
                index_name = index.name,
                key,
                loser = %loser,
                "several indexes of the batch ask for one KV key: it goes to the last one"
            );
        }
    }

    /// The pairs that are ready and not written yet. Of several items that ask for one key the last has
    /// it. While that one waits for its API key, the key is not written.
    fn ready_pairs(&mut self, wanted: &[(String, usize)]) -> Vec<Pair> {
        let owners: HashMap<&str, usize> =
            wanted.iter().map(|(key, position)| (key.as_str(), *position)).collect();
        let mut pairs = Vec::with_capacity(wanted.len());
        for (key, position) in wanted {
            let ItemState::Ready(entry) = &self.states[*position] else { continue };
            let owns = owners.get(key.as_str()) == Some(position);
            if owns && self.written.insert(key.clone(), *position) != Some(*position) {
                pairs.push(Pair { key: key.clone(), entry: Rc::clone(entry) });
            }
        }
        pairs
    }

    fn close_failed(&mut self, failures: bulk::Failures) {
        for (key, error) in failures {
            if let Some(position) = self.written.remove(&key) {
                self.close(position, error.into());
            }
        }
    }

    fn close(&mut self, position: usize, error: KeyError) {
        let SettingsItem { index, deciding, .. } = &self.items[position];
        let outcome = RecordOutcome::of_error(index.clone(), error, deciding.late);
        let state = &mut self.states[position];
        *state = ItemState::Closed(match std::mem::replace(state, ItemState::Open) {
            ItemState::Closed(earlier) => earlier.and(outcome),
            ItemState::Open | ItemState::Ready(_) => outcome,
        });
    }

    /// Settles the keys that removals and moves leave behind.
    async fn settle(&mut self) {
        let mut request = SettleRequest::default();
        let mut waiting: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (position, item) in self.items.iter().enumerate() {
            if matches!(self.states[position], ItemState::Closed(_)) {
                continue;
            }
            let written_for = written_for(item);
            let mut ask = |key: &str| {
                if !self.written.contains_key(key) {
                    request.keys.entry(key.to_owned()).or_default().extend(written_for.clone());
                    waiting.entry(key.to_owned()).or_default().push(position);
                }
            };
            item.shop_ids_left_behind().for_each(&mut ask);
            if item.task == Task::Remove {
                let index_id = item.index.index_id();
                ask(&index_id);
                if !item.has_old_image && request.keys.contains_key(&index_id) {
                    request.with_shop_id_in_value.insert(index_id);
                }
            }
        }
        if request.keys.is_empty() {
            return;
        }
        let wanted = self.wanted_keys().into_iter().map(|(key, _)| key);
        request.written = wanted.filter(|key| self.written.contains_key(key)).collect();
        let items = waiting.values().flatten().map(|position| &self.items[*position]);
        self.api_keys.wait_in_all(time_for_api_keys(items));
        for (key, verdict) in settle(self.invocation, request, &mut self.api_keys).await {
            let KeyOutcome::Failed(error) = verdict else { continue };
            for position in waiting.get(&key).into_iter().flatten() {
                let source = Box::new(error.clone());
                self.close(*position, KeyError::NotSettled { key: key.clone(), source });
            }
        }
    }
}

/// How long these items wait for API keys.
fn time_for_api_keys<'a>(items: impl IntoIterator<Item = &'a SettingsItem>) -> Duration {
    let only_late = items.into_iter().all(|item| item.deciding.late);
    if only_late { LATE_TIME_FOR_API_KEYS } else { BATCH_TIME_FOR_API_KEYS }
}

/// What the keys of a removed item are known to have been written for, should KV answer nothing.
fn written_for(item: &SettingsItem) -> Option<Named> {
    let shop_ids = item.named.iter().map(|(shop_id, _)| shop_id.clone()).collect();
    (item.task == Task::Remove).then(|| Named { index: item.index.clone(), shop_ids })
}
