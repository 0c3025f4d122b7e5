//! A stream batch: plan, then both namespaces at the same time, writes before deletes.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use tracing::warn;

use crate::api_keys::{ApiKeys, Gathering, KeyOwner};
use crate::bulk;
use crate::entry::{Entry, Pair};
use crate::plan::{BatchPlan, RecordOutcome, RejectedRecord, SettingsItem, plan};
use crate::ports::{ApiKeyError, Namespace, Services, World};
use crate::query_configs;
use crate::record::{Draft, IndexSettings, Rejection};
use crate::run::Run;
use crate::settings_keys::{entry, key_cell, key_owner, rejected_account, reusable_keys};
use crate::settle::{self, SettleRequest, Verdict};
use crate::stream::{Change, StreamRecord};

/// What became of an item of the batch.
#[derive(Debug, Clone, PartialEq)]
pub enum ItemVerdict {
    /// KV is as the item asks for.
    Done,
    /// Trying again can't help.
    Rejected(Rejection),
    /// Trying again may help.
    Failed(String),
}

/// Exports a batch; answers with what became of each record, in batch order.
pub async fn export_batch<S: Services>(
    run: &Run<'_, S>,
    records: Vec<StreamRecord>,
) -> Vec<RecordOutcome> {
    let created_at: Vec<Option<f64>> = records.iter().map(|record| record.created_at).collect();
    let BatchPlan { settings, query_configs, mut outcomes } = plan(records);
    let (settings_verdicts, query_config_verdicts) = tokio::join!(
        SettingsExport::new(run, &settings).run(),
        query_configs::export_batch(run, &query_configs),
    );
    for (item, verdict) in settings.iter().zip(settings_verdicts) {
        match verdict {
            ItemVerdict::Done => {}
            ItemVerdict::Rejected(rejection) => {
                outcomes[item.record] = RecordOutcome::Rejected(RejectedRecord {
                    index: Some(item.index.clone()),
                    rejection,
                });
            }
            ItemVerdict::Failed(reason) => {
                for record in item.records_to_retry() {
                    let index = item.index.clone();
                    outcomes[record] = RecordOutcome::Failed { index, reason: reason.clone() };
                }
            }
        }
    }
    for (item, verdict) in query_configs.iter().zip(query_config_verdicts) {
        let index = item.query_config.index.clone();
        match verdict {
            ItemVerdict::Done => {}
            ItemVerdict::Rejected(rejection) => {
                outcomes[item.record] =
                    RecordOutcome::Rejected(RejectedRecord { index: Some(index), rejection });
            }
            ItemVerdict::Failed(reason) => {
                outcomes[item.record] = RecordOutcome::Failed { index, reason };
            }
        }
    }
    count_lag(run, &outcomes, &created_at);
    outcomes
}

/// The longest time from a change in the table, which is told to the second, to now.
fn count_lag<S: Services>(
    run: &Run<'_, S>,
    outcomes: &[RecordOutcome],
    created_at: &[Option<f64>],
) {
    let now = run.services.world().now();
    let since_epoch = now.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
    let lag = outcomes
        .iter()
        .zip(created_at)
        .filter(|(outcome, _)| **outcome == RecordOutcome::Exported)
        .filter_map(|(_, created_at)| *created_at)
        .map(|created_at| (since_epoch - created_at).max(0.0))
        .filter_map(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .max();
    run.count(|tally| tally.propagation_lag = lag);
}

/// Items that are encoded, some 2 µs each, before the requests under way have a turn.
const DRAFTS_AT_ONCE: usize = 16;

/// The settings part of a batch.
struct SettingsExport<'a, S> {
    run: &'a Run<'a, S>,
    items: &'a [SettingsItem],
    /// What is known of each item so far.
    states: Vec<State>,
    /// What is encoded of each item that waits for its API key.
    drafts: Vec<Option<Draft>>,
    /// Who writes each key: the position of the item among the items.
    written: HashMap<String, usize>,
}

enum State {
    /// A removal, or an export that waits for its API key.
    Open,
    /// To be written.
    Ready(std::rc::Rc<Entry>),
    /// Decided.
    Closed(ItemVerdict),
}

impl<'a, S: Services> SettingsExport<'a, S> {
    fn new(run: &'a Run<'a, S>, items: &'a [SettingsItem]) -> Self {
        let states = items.iter().map(|_| State::Open).collect();
        let drafts = items.iter().map(|_| None).collect();
        Self { run, items, states, drafts, written: HashMap::new() }
    }

    async fn run(mut self) -> Vec<ItemVerdict> {
        for item in self.items {
            for warning in upsert(item).map(|settings| &settings.warnings).into_iter().flatten() {
                warn!(
                    system_account_id = item.index.account,
                    index_name = item.index.index,
                    "{warning}"
                );
            }
        }
        let mut keys = self.write().await;
        self.settle(&mut keys).await;
        self.states
            .into_iter()
            .map(|state| match state {
                State::Closed(verdict) => verdict,
                State::Open | State::Ready(_) => ItemVerdict::Done,
            })
            .collect()
    }

    /// Writes everything that can be written: what has its API key at the first try at once, the
    /// rest when the retries are through.
    async fn write(&mut self) -> ApiKeys {
        let run = self.run;
        let owners = self.owners();
        let mut gathering = Gathering::start(run, owners);
        let (mut keys, ()) = tokio::join!(gathering.first_wave(), self.draft());
        if gathering.is_complete() {
            // One write for all, so that one PUT a namespace is the rule.
            self.reuse_and_close(&keys).await;
            let pairs = self.claim(false);
            self.put(pairs).await;
            return keys;
        }
        self.resolve(&keys);
        let pairs = self.claim(true);
        let (failures, late) =
            tokio::join!(bulk::put(run, Namespace::Settings, pairs), gathering.rest());
        self.close_failed(&failures);
        keys.extend(late);
        self.reuse_and_close(&keys).await;
        let pairs = self.claim(false);
        self.put(pairs).await;
        keys
    }

    /// Whose keys the batch needs; items without a cell are rejected.
    fn owners(&mut self) -> BTreeSet<KeyOwner> {
        let (mut seen, mut owners) = (HashSet::new(), BTreeSet::new());
        for (state, item) in self.states.iter_mut().zip(self.items) {
            let Some(settings) = upsert(item) else { continue };
            match key_cell(self.run.limits, settings) {
                Ok(cell) => {
                    if seen.insert((cell, &settings.index.account)) {
                        owners.extend(key_owner(self.run.limits, settings));
                    }
                }
                Err(rejection) => *state = State::Closed(ItemVerdict::Rejected(rejection)),
            }
        }
        owners
    }

    /// Encodes the items as far as it goes without their API keys, beside the requests for those.
    async fn draft(&mut self) {
        for (position, item) in self.items.iter().enumerate() {
            let (State::Open, Some(settings)) = (&self.states[position], upsert(item)) else {
                continue;
            };
            self.drafts[position] = Some(settings.draft());
            if position % DRAFTS_AT_ONCE == 0 {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Readies the items whose API keys are there and closes those that have none.
    fn resolve(&mut self, keys: &ApiKeys) {
        let exported_at = self.run.exported_at();
        let keys: HashMap<(&str, &str), _> = keys
            .iter()
            .map(|(KeyOwner { cell, account }, key)| ((&**cell, &**account), key))
            .collect();
        let open = self.states.iter_mut().zip(&mut self.drafts).zip(self.items);
        for ((state, draft), item) in open {
            let (State::Open, Some(settings)) = (&*state, upsert(item)) else { continue };
            let Ok(cell) = key_cell(self.run.limits, settings) else { continue };
            match keys.get(&(cell, &*settings.index.account)) {
                Some(Ok(key)) => {
                    *state = ready(self.run, settings, draft.take(), key, &exported_at)
                }
                Some(Err(error @ (ApiKeyError::NotFound | ApiKeyError::BadName { .. }))) => {
                    *state = State::Closed(ItemVerdict::Rejected(rejected_account(error)));
                }
                Some(Err(ApiKeyError::Unavailable { .. })) | None => {}
            }
        }
    }

    /// Resolves the items, and those whose keys can't be had with the keys that KV holds.
    async fn reuse_and_close(&mut self, keys: &ApiKeys) {
        self.resolve(keys);
        let lacking: Vec<&IndexSettings> = self
            .states
            .iter()
            .zip(self.items)
            .filter(|(state, _)| matches!(state, State::Open))
            .filter_map(|(_, item)| upsert(item))
            .collect();
        if lacking.is_empty() {
            return;
        }
        let reusable = reusable_keys(self.run, &lacking).await;
        let exported_at = self.run.exported_at();
        let open = self.states.iter_mut().zip(&mut self.drafts).zip(self.items);
        for ((state, draft), item) in open {
            let (State::Open, Some(settings)) = (&*state, upsert(item)) else { continue };
            *state = match reusable.get(&item.index) {
                Some(key) => ready(self.run, settings, draft.take(), key, &exported_at),
                None => {
                    let error = key_owner(self.run.limits, settings)
                        .ok()
                        .and_then(|owner| keys.get(&owner)?.as_ref().err())
                        .map_or_else(|| "no answer".to_owned(), ToString::to_string);
                    State::Closed(ItemVerdict::Failed(format!(
                        "{error}; and KV holds no settings of this index whose key could be used"
                    )))
                }
            };
        }
    }

    /// The pairs that are ready and not written yet. Of several items that ask for one key the
    /// last has it; with `some_open`, a key that an item still waiting asks for later waits too.
    fn claim(&mut self, some_open: bool) -> Vec<Pair> {
        let mut wanted: Vec<(String, usize)> = Vec::with_capacity(self.items.len() * 2);
        for (position, item) in self.items.iter().enumerate() {
            let Some(settings) = upsert(item) else { continue };
            if !matches!(self.states[position], State::Closed(_)) {
                wanted.extend(settings.kv_keys().into_iter().map(|key| (key, position)));
            }
        }
        let mut claims: HashMap<&str, usize> = HashMap::with_capacity(wanted.len());
        let mut lost = vec![false; wanted.len()];
        for (place, (key, position)) in wanted.iter().enumerate() {
            let Some(loser) = claims.insert(key, place) else { continue };
            lost[loser] = true;
            if !some_open {
                let index = &self.items[*position].index;
                let loser = &self.items[wanted[loser].1].index;
                warn!(
                    system_account_id = index.account,
                    index_name = index.index,
                    key,
                    "several indexes of the batch ask for one KV key: it goes to this one, not to {loser}"
                );
            }
        }
        let mut pairs = Vec::with_capacity(wanted.len());
        for ((key, position), lost) in wanted.into_iter().zip(lost) {
            let State::Ready(entry) = &self.states[position] else { continue };
            if !lost && self.written.insert(key.clone(), position) != Some(position) {
                pairs.push(Pair { key, entry: entry.clone() });
            }
        }
        pairs
    }

    async fn put(&mut self, pairs: Vec<Pair>) {
        let failures = bulk::put(self.run, Namespace::Settings, pairs).await;
        self.close_failed(&failures);
    }

    fn close_failed(&mut self, failures: &bulk::Failures) {
        for (key, error) in failures {
            if let Some(position) = self.written.remove(key) {
                self.states[position] = State::Closed(ItemVerdict::Failed(error.to_string()));
            }
        }
    }

    /// Settles the keys that removals and moves leave behind.
    async fn settle(&mut self, keys: &mut ApiKeys) {
        let mut request = SettleRequest::default();
        let mut waiting: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (position, item) in self.items.iter().enumerate() {
            if matches!(self.states[position], State::Closed(_)) {
                continue;
            }
            let mut ask = |key: &str| {
                if !self.written.contains_key(key) {
                    request.keys.insert(key.to_owned());
                    waiting.entry(key.to_owned()).or_default().push(position);
                }
            };
            item.shop_ids_left_behind().for_each(&mut ask);
            if item.change == Change::Remove {
                let index_id = item.index.index_id();
                ask(&index_id);
                if !item.has_old_image && request.keys.contains(&index_id) {
                    request.leading.insert(index_id);
                }
            }
        }
        if request.keys.is_empty() {
            return;
        }
        let verdicts = settle::settle(self.run, request, keys).await;
        for (key, verdict) in verdicts {
            let Verdict::Failed(reason) = verdict else { continue };
            for position in waiting.get(&key).into_iter().flatten() {
                let reason = format!("key {key:?} could not be settled: {reason}");
                self.states[*position] = State::Closed(ItemVerdict::Failed(reason));
            }
        }
    }
}

fn upsert(item: &SettingsItem) -> Option<&IndexSettings> {
    match &item.change {
        Change::Upsert(settings) => Some(settings),
        Change::Remove => None,
    }
}

fn ready<S: Services>(
    run: &Run<'_, S>,
    settings: &IndexSettings,
    draft: Option<Draft>,
    key: &secrecy::SecretString,
    exported_at: &str,
) -> State {
    let draft = draft.unwrap_or_else(|| settings.draft());
    match entry(run, settings, draft, key, exported_at) {
        Ok(entry) => State::Ready(entry),
        Err(rejection) => State::Closed(ItemVerdict::Rejected(rejection)),
    }
}
