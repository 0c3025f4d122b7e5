//! The settings part of a batch.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::Duration;

use tracing::warn;

use super::outcome::RecordOutcome;
use super::plan::{PlannedItem, SettingsItem, Task};
use crate::export::api_keys::{
    ApiKeyOwner, ApiKeys, BATCH_TIME_FOR_API_KEYS, LATE_TIME_FOR_API_KEYS, NotExportable, Patience,
    Reuse,
};
use crate::export::bulk;
use crate::export::desired::{Desired, warn_if_odd};
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::settle::table_view::Named;
use crate::export::settle::{KeyOutcome, SettleRequest, settle};
use crate::kv::{Entry, Pair, Stamp};
use crate::ports::{Namespace, Services};

pub async fn export<S: Services>(
    invocation: &Invocation<'_, S>,
    items: &[SettingsItem],
) -> Vec<RecordOutcome> {
    let mut export = SettingsExport {
        invocation,
        items,
        states: items.iter().map(|_| ItemState::Open).collect(),
        api_keys: ApiKeys::new(Patience::InAll(BATCH_TIME_FOR_API_KEYS), Reuse::FromKv),
        written: BTreeMap::new(),
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
    written: BTreeMap<String, usize>,
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
        let exported = self.items.iter().filter_map(|item| item.task.export());
        exported.clone().for_each(|index| warn_if_odd(&index.settings));
        let mut asking = self.api_keys.start(self.invocation, self.api_key_owners());
        self.api_keys.extend(asking.first_wave().await);
        if !asking.is_complete() {
            self.resolve();
            let pairs = self.ready_pairs(false);
            let (failures, late_answers) = tokio::join!(self.put(pairs), asking.rest());
            self.close_failed(failures);
            self.api_keys.extend(late_answers);
        }
        self.api_keys.note_end(&asking);
        self.api_keys.look_into_kv(self.invocation, exported).await;
        self.resolve();
        let pairs = self.ready_pairs(true);
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
            let Some(index) = item.task.export() else { continue };
            let time = time_for_api_keys([item]);
            let longest = owners.entry(index.owner.clone()).or_insert(time);
            *longest = time.max(*longest);
        }
        owners
    }

    /// Readies or closes the items of which it is known whether they have an API key.
    fn resolve(&mut self) {
        let stamp = self.invocation.stamp();
        for (state, item) in self.states.iter_mut().zip(self.items) {
            let (ItemState::Open, Some(index)) = (&*state, item.task.export()) else { continue };
            let PlannedItem { name, deciding, .. } = item;
            let stamp = Stamp { changed_at: deciding.record.changed_at.clone(), ..stamp.clone() };
            *state = match Desired::entry_of_settings(index, &self.api_keys, &stamp) {
                Ok(entry) => ItemState::Ready(entry),
                Err(NotExportable::Unavailable(error)) if error.is_preliminary() => ItemState::Open,
                Err(NotExportable::Unavailable(error)) => ItemState::Closed(
                    RecordOutcome::of_error(name.clone(), error.into(), deciding.late),
                ),
                Err(NotExportable::Rejected(rejection)) => {
                    ItemState::Closed(RecordOutcome::rejected(name.clone(), rejection))
                }
            };
        }
    }

    /// The pairs that are ready and not written yet. Of several items that ask for one key, the rejected
    /// and failed ones left out, the last has it. While that one waits for its API key, the key is not
    /// written.
    fn ready_pairs(&mut self, warns_of_shared_keys: bool) -> Vec<Pair> {
        let mut owners: HashMap<String, usize> = HashMap::with_capacity(self.items.len() * 2);
        let mut pairs = Vec::with_capacity(self.items.len() * 2);
        for (position, item) in self.items.iter().enumerate().rev() {
            let state = &self.states[position];
            let open = item.task.export().filter(|_| !matches!(state, ItemState::Closed(_)));
            let keys = open.map(|index| index.settings.kv_keys()).unwrap_or_default();
            for key in keys.into_iter().rev() {
                let owner = *owners.entry(key.clone()).or_insert(position);
                if owner == position {
                    let ItemState::Ready(entry) = state else { continue };
                    if self.written.insert(key.clone(), position) != Some(position) {
                        pairs.push(Pair { key, entry: Rc::clone(entry) });
                    }
                } else if warns_of_shared_keys {
                    let winner = &self.items[owner].name;
                    warn!(
                        system_account_id = winner.account,
                        index_name = winner.name,
                        key,
                        loser = %item.name,
                        "several indexes of the batch ask for one KV key: it goes to the last one"
                    );
                }
            }
        }
        pairs.reverse();
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
        let SettingsItem { name, deciding, .. } = &self.items[position];
        let outcome = RecordOutcome::of_error(name.clone(), error, deciding.late);
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
                let index_id = item.name.index_id();
                ask(&index_id);
                if !item.has_old_image && request.keys.contains_key(&index_id) {
                    request.with_shop_id_in_value.insert(index_id);
                }
            }
        }
        request.written = self.written.keys().cloned().collect();
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
    (item.task == Task::Remove).then(|| Named { index: item.name.clone(), shop_ids })
}
