//! Carries out what the brakes let through: writes first, then deletes. The listing and the pass alone are no
//! reason to delete a key: the removal looks for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tracing::error;

use super::part::Part;
use super::progress::Progress;
use super::report::{Action, Class, Findings, MAX_EXAMPLES};
use super::{Reconcile, ReconcileError};
use crate::export::api_keys::ApiKeys;
use crate::export::bulk;
use crate::export::error::ExportError;
use crate::export::invocation::Invocation;
use crate::export::judge::{Claim, Held, KvKey, Verdict};
use crate::export::remove::{Removal, remove_keys, remove_query_configs};
use crate::export::write::{Fate, WriteItem, write_items};
use crate::index::ItemRef;
use crate::kv::{Metadata, Namespace};
use crate::ports::Services;
use crate::text::Chain;

/// Items that are written in one go. A change between their first read and their write has to be rare.
const WRITE_ITEMS: usize = 1_000;

/// Orphans that are removed in one go. Each go takes two passes over the table for every 16 MiB
/// of their values.
const REMOVE_KEYS: usize = 5_000;

/// The least time for which a go is worth its beginning. What it does not get done is for the next run.
const TIME_FOR_A_GO: Duration = Duration::from_secs(10);

/// Repairs a part, and counts that in the chain's progress. Returns the keys that could not be judged or repaired;
/// `None` where time ended before all was done.
pub async fn carry_out<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Reconcile,
    part: &Part,
    api_keys: &mut ApiKeys,
    progress: &mut Progress,
) -> Result<Option<Findings>, ReconcileError> {
    let mut repair = Repair {
        invocation,
        request,
        part,
        api_keys,
        progress,
        failed: part.unjudged(),
        logged: 0,
        progressed: false,
        is_refused: false,
        is_out_of_time: false,
    };
    let is_finished = repair.write(Namespace::Settings).await
        && repair.write(Namespace::QueryConfigs).await
        && repair.remove_orphans(Namespace::Settings).await
        && repair.remove_orphans(Namespace::QueryConfigs).await;
    let Repair { failed, progressed, is_refused, .. } = repair;
    if !progressed && (if is_finished { is_refused } else { request.progress.is_open }) {
        return Err(ReconcileError::NoProgress);
    }
    Ok(is_finished.then_some(failed))
}

struct Repair<'a, 's, S> {
    invocation: &'a Invocation<'s, S>,
    request: &'a Reconcile,
    part: &'a Part,
    api_keys: &'a mut ApiKeys,
    progress: &'a mut Progress,
    /// The keys that have failed. They count only with the last run of the part: the others' are tried again.
    failed: Findings,
    /// How many of them have an error line.
    logged: usize,
    /// Whether anything was done for any key.
    progressed: bool,
    /// Whether KV or the table has failed, through no fault of a key.
    is_refused: bool,
    is_out_of_time: bool,
}

impl<S: Services> Repair<'_, '_, S> {
    /// Writes the keys that are missing, and as many stale ones as are allowed.
    async fn write(&mut self, namespace: Namespace) -> bool {
        let part = self.part;
        let mut stale = part.keys(namespace, Verdict::Stale);
        let rewrites = stale.by_ref().take(self.allowed(namespace, Action::Rewrite));
        let keys = part.keys(namespace, Verdict::Missing).chain(rewrites);
        let keys = keys.filter_map(|(key, row)| Some((row.claim()?, &key.name)));
        // An item's keys are written together. Memory would not take the names of a whole part again.
        let mut keys: Vec<(&Claim, &String)> = keys.collect();
        keys.sort_by_key(|&(claim, _)| (&claim.index, &claim.query));
        self.progress.left_out |= stale.next().is_some();
        let is_one = |a: &Claim, b: &Claim| (&a.index, &a.query) == (&b.index, &b.query);
        let items: Vec<_> = keys.chunk_by(|(a, _), (b, _)| is_one(a, b)).collect();
        for items in items.chunks(WRITE_ITEMS) {
            if !self.has_time() {
                break;
            }
            let mut writes: BTreeMap<ItemRef, BTreeSet<String>> = BTreeMap::new();
            for (claim, name) in items.iter().copied().flatten() {
                writes.entry(claim.item()).or_default().insert((*name).clone());
            }
            self.write_items(namespace, &writes).await;
        }
        !self.is_out_of_time
    }

    async fn write_items(
        &mut self,
        namespace: Namespace,
        items: &BTreeMap<ItemRef, BTreeSet<String>>,
    ) {
        // They were asked for minutes ago, and may have been rotated.
        self.api_keys.forget_answers();
        let write = |(item, keys): (&ItemRef, &BTreeSet<String>)| {
            WriteItem::under(item.clone(), keys.clone())
        };
        let writes = items.iter().map(write).collect();
        let written = write_items(self.invocation, namespace, writes, self.api_keys).await;
        for (item, keys) in items {
            let fate = written.fate(item);
            for key in keys {
                let outcome = match &fate {
                    _ if written.keys.contains_key(key) => Removal::Written(item.clone()),
                    Fate::Failed(error) => Removal::Failed(error.clone()),
                    // The item has changed since, and that change has a record of its own.
                    Fate::Written | Fate::Absent | Fate::Rejected(_) => Removal::Stays,
                };
                self.note(namespace, key, outcome);
            }
        }
        self.remove_left_behind(namespace, written.left_behind).await;
    }

    /// Removes what was written for items that went meanwhile.
    async fn remove_left_behind(
        &mut self,
        namespace: Namespace,
        left_behind: BTreeMap<String, ItemRef>,
    ) {
        let (part, keys) = (self.part, left_behind.len() as u64);
        let of_orphans = self.progress.tallies[namespace].allowed[Action::Delete];
        if self.progress.ask_brake(namespace, Action::Delete, keys, part, self.request) {
            match namespace {
                Namespace::Settings => {
                    self.remove_settings(left_behind.into_keys().collect()).await;
                }
                Namespace::QueryConfigs => {
                    self.remove_items(left_behind.into_values().map(|item| (item, None))).await;
                }
            }
        }
        // What is let through of these keys is not let through of orphans.
        self.progress.tallies[namespace].allowed[Action::Delete] = of_orphans;
    }

    /// Removes as many orphans as are allowed.
    async fn remove_orphans(&mut self, namespace: Namespace) -> bool {
        let orphans = self.part.keys(namespace, Verdict::Orphaned);
        let mut orphans = orphans.map(|(key, _)| key.name.clone());
        loop {
            let go = self.allowed(namespace, Action::Delete).min(REMOVE_KEYS);
            let keys: BTreeSet<String> = orphans.by_ref().take(go).collect();
            if keys.is_empty() {
                self.progress.left_out |= orphans.next().is_some();
                break;
            }
            if !self.has_time() {
                break;
            }
            match namespace {
                Namespace::Settings => self.remove_settings(keys).await,
                Namespace::QueryConfigs => self.remove_named_items(keys).await,
            }
        }
        !self.is_out_of_time
    }

    /// Returns how many keys of the part may still be changed.
    fn allowed(&self, namespace: Namespace, action: Action) -> usize {
        let allowed = self.progress.tallies[namespace].allowed[action];
        // The table may have been emptied since the brakes were asked.
        let allowed = if self.part.lets(action) { allowed } else { 0 };
        usize::try_from(allowed).unwrap_or(usize::MAX)
    }

    fn has_time(&mut self) -> bool {
        self.is_out_of_time |= self.invocation.time_left() < TIME_FOR_A_GO;
        !self.is_out_of_time
    }

    async fn remove_settings(&mut self, keys: BTreeSet<String>) {
        // A key that an item asks for meanwhile is written.
        self.api_keys.forget_answers();
        for (key, removal) in remove_keys(self.invocation, keys, self.api_keys, None).await {
            self.note(Namespace::Settings, &key, removal);
        }
    }

    /// Removes the query configs to which the values under these keys refer.
    async fn remove_named_items(&mut self, keys: BTreeSet<String>) {
        let (invocation, mut items) = (self.invocation, BTreeMap::new());
        let (namespace, environment) = (Namespace::QueryConfigs, &invocation.config.environment);
        bulk::read(invocation, namespace, invocation.budget, keys, |key, stored| {
            let outcome = match stored {
                Err(error) => Removal::Failed(ExportError::kv(&key, error)),
                Ok(None) => Removal::Stays,
                // Another environment has written it since it was listed.
                Ok(Some(stored)) if Held::read(Some(&stored), environment).owner().is_none() => {
                    Removal::Stays
                }
                Ok(Some(stored)) => match stored.query_config() {
                    Some(item) if item.kv_key() == key => {
                        items.insert(item, stored.metadata());
                        return;
                    }
                    _ => Removal::Failed(ExportError::UnknownQueryConfig),
                },
            };
            self.note(namespace, &key, outcome);
        })
        .await;
        self.remove_items(items).await;
    }

    async fn remove_items(&mut self, items: impl IntoIterator<Item = (ItemRef, Option<Metadata>)>) {
        for (item, removal) in remove_query_configs(self.invocation, items, self.api_keys).await {
            self.note(Namespace::QueryConfigs, &item.kv_key(), removal);
        }
    }

    /// Counts what became of a key. If its time was up, the next run tries it.
    fn note(&mut self, namespace: Namespace, name: &str, outcome: Removal) {
        self.progressed |= !matches!(outcome, Removal::Failed(_));
        let counts = &mut self.progress.findings.counts[namespace];
        let allowed = &mut self.progress.tallies[namespace].allowed;
        match outcome {
            Removal::Failed(error) if error.is_out_of_time() => self.is_out_of_time = true,
            Removal::Failed(error) => {
                self.is_refused |= error.is_of_services() && !error.is_own_fault();
                // An outage fails every key: the counts tell how many, the log the first ones.
                self.logged += 1;
                if self.logged <= MAX_EXAMPLES {
                    error!(key = name, error = %Chain(&error), "a key could not be compared or repaired");
                }
                self.failed.note(namespace, Class::Failed, name);
            }
            Removal::Removed => {
                counts[Class::Deleted] += 1;
                allowed[Action::Delete] = allowed[Action::Delete].saturating_sub(1);
            }
            Removal::Written(_) => {
                counts[Class::Written] += 1;
                let key = KvKey { namespace, name: name.to_owned() };
                if self.part.table.verdict(&key) == Verdict::Stale {
                    allowed[Action::Rewrite] = allowed[Action::Rewrite].saturating_sub(1);
                    self.invocation.count(|stats| *stats.keys_rewritten.get_or_insert(0) += 1);
                }
            }
            Removal::Stays | Removal::Postponed => {}
        }
    }
}
