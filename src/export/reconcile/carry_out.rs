//! Carries out what the brakes let through: writes first, then deletes. The listing and the pass alone are no
//! reason to delete a key: the removal looks for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enum_map::EnumMap;
use tracing::error;

use super::brakes::Tally;
use super::report::{Change, Changes, Class, Findings};
use super::{Part, Reconcile};
use crate::error_chain::Chain;
use crate::export::api_keys::ApiKeys;
use crate::export::bulk;
use crate::export::error::ExportError;
use crate::export::invocation::Invocation;
use crate::export::judge::Verdict;
use crate::export::remove::{Removal, remove_keys, remove_query_configs};
use crate::export::write::{Fate, WriteItem, write_items};
use crate::index::ItemRef;
use crate::kv::{Metadata, Namespace};
use crate::ports::Services;

/// Items that are written in one go. A change between their first read and their write has to be rare.
const WRITE_ITEMS: usize = 1_000;

/// Orphans that are removed in one go. Each go takes two passes over the table for every 16 MiB
/// of their values.
const REMOVE_KEYS: usize = 5_000;

/// The least time for which a go is worth its beginning. What it does not get done is for the next run.
const TIME_FOR_A_GO: Duration = Duration::from_secs(10);

/// Time ended before all of the part was repaired.
pub struct OutOfTime;

/// The repair of a part.
pub struct Repair<'a, 's, S> {
    pub invocation: &'a Invocation<'s, S>,
    pub part: &'a Part,
    pub api_keys: &'a mut ApiKeys,
    pub request: &'a Reconcile,
    /// The chain's. The brakes are asked about the keys that the repair itself leaves behind.
    pub tallies: EnumMap<Namespace, Tally>,
    /// What the brakes let through of the part. What is left of it in the end is for another run.
    pub allowed: EnumMap<Namespace, Changes>,
    pub done: Done,
}

#[derive(Default)]
pub struct Done {
    /// What was written, deleted and refused.
    pub findings: Findings,
    /// What failed.
    pub failed: Findings,
    /// Whether anything was done for any key.
    pub progressed: bool,
    /// Whether keys that differ were left to the next chain.
    pub left_out: bool,
    /// Stale keys that KV has confirmed.
    pub rewritten: u64,
}

impl<S: Services> Repair<'_, '_, S> {
    /// Repairs the part, unless time ends before all of it is done.
    pub async fn carry_out(&mut self) -> Result<(), OutOfTime> {
        for namespace in [Namespace::Settings, Namespace::QueryConfigs] {
            self.write(namespace).await?;
        }
        for namespace in [Namespace::Settings, Namespace::QueryConfigs] {
            self.remove_orphans(namespace).await?;
        }
        Ok(())
    }

    /// Writes the keys that are missing, and as many stale ones as are allowed.
    async fn write(&mut self, namespace: Namespace) -> Result<(), OutOfTime> {
        let mut rewrites = self.allowed[namespace][Change::Rewrite];
        let mut writes: BTreeMap<ItemRef, BTreeMap<String, Verdict>> = BTreeMap::new();
        let keys = self.part.verdicts().filter(|(key, ..)| key.namespace == namespace);
        for (key, row, verdict) in keys {
            let Some(claim) = &row.claim else { continue };
            match verdict {
                Verdict::Missing => {}
                Verdict::Stale if rewrites > 0 => rewrites -= 1,
                Verdict::Stale => {
                    self.done.left_out = true;
                    continue;
                }
                _ => continue,
            }
            writes.entry(claim.item()).or_default().insert(key.name.clone(), verdict);
        }
        let mut writes = writes.into_iter().peekable();
        while writes.peek().is_some() {
            self.check_time_for_a_go()?;
            self.write_group(namespace, writes.by_ref().take(WRITE_ITEMS).collect()).await?;
        }
        Ok(())
    }

    async fn write_group(
        &mut self,
        namespace: Namespace,
        group: BTreeMap<ItemRef, BTreeMap<String, Verdict>>,
    ) -> Result<(), OutOfTime> {
        // They were asked for minutes ago, and may have been rotated.
        self.api_keys.forget_answers();
        let only = |(item, keys): (&ItemRef, &BTreeMap<String, Verdict>)| {
            WriteItem::under(item.clone(), keys.keys().cloned().collect())
        };
        let writes = group.iter().map(only).collect();
        let written = write_items(self.invocation, namespace, writes, self.api_keys).await;
        let mut outcomes = BTreeMap::new();
        for (item, keys) in group {
            let fate = written.fate(&item);
            for (key, verdict) in keys {
                let is_written = written.keys.contains_key(&key);
                if is_written && verdict == Verdict::Stale {
                    self.done.rewritten += 1;
                    self.allowed[namespace][Change::Rewrite] -= 1;
                }
                let outcome = match &fate {
                    _ if is_written => Removal::Written(item.clone()),
                    Fate::Failed(error) => Removal::Failed(error.clone()),
                    // The item has changed since, and that change has a record of its own.
                    Fate::Written | Fate::Absent | Fate::Rejected(_) => Removal::Stays,
                };
                outcomes.insert(key, outcome);
            }
        }
        let noted = self.note(namespace, outcomes);
        self.remove_left_behind(namespace, written.left_behind).await?;
        noted
    }

    /// Removes what was written for items that went meanwhile.
    async fn remove_left_behind(
        &mut self,
        namespace: Namespace,
        left_behind: BTreeMap<String, ItemRef>,
    ) -> Result<(), OutOfTime> {
        let keys = left_behind.len() as u64;
        let has_indexes = self.part.table.has_indexes;
        let tally = &mut self.tallies[namespace];
        if !tally.ask_for(Change::Delete, keys, self.request.raised, has_indexes) {
            self.done.findings.refused[Change::Delete] += keys;
            return Ok(());
        }
        let removed = match namespace {
            Namespace::Settings => self.remove_settings(left_behind.into_keys().collect()).await,
            Namespace::QueryConfigs => {
                self.remove_items(left_behind.into_values().map(|item| (item, None))).await
            }
        };
        self.note(namespace, removed)
    }

    /// Removes as many orphans as are allowed.
    async fn remove_orphans(&mut self, namespace: Namespace) -> Result<(), OutOfTime> {
        let orphans = self.part.verdicts().filter(|(key, _, verdict)| {
            key.namespace == namespace && *verdict == Verdict::Orphaned
        });
        let mut orphans = orphans.map(|(key, ..)| key.name.clone()).peekable();
        while orphans.peek().is_some() {
            let allowed = self.allowed[namespace][Change::Delete];
            let go = usize::try_from(allowed).unwrap_or(usize::MAX).min(REMOVE_KEYS);
            if go == 0 {
                self.done.left_out = true;
                break;
            }
            self.check_time_for_a_go()?;
            let keys: BTreeSet<String> = orphans.by_ref().take(go).collect();
            let removed = match namespace {
                Namespace::Settings => self.remove_settings(keys).await,
                Namespace::QueryConfigs => self.remove_named_items(keys).await,
            };
            let deleted = removed.values().filter(|removal| **removal == Removal::Removed).count();
            self.allowed[namespace][Change::Delete] -= deleted as u64;
            self.note(namespace, removed)?;
        }
        Ok(())
    }

    fn check_time_for_a_go(&self) -> Result<(), OutOfTime> {
        if self.invocation.time_left() < TIME_FOR_A_GO { Err(OutOfTime) } else { Ok(()) }
    }

    async fn remove_settings(&mut self, keys: BTreeSet<String>) -> BTreeMap<String, Removal> {
        remove_keys(self.invocation, keys, self.api_keys, None).await
    }

    /// Removes the query configs to which the values under these keys refer.
    async fn remove_named_items(&mut self, keys: BTreeSet<String>) -> BTreeMap<String, Removal> {
        let mut outcomes = BTreeMap::new();
        let mut items = BTreeMap::new();
        let budget = self.invocation.budget;
        bulk::read(self.invocation, Namespace::QueryConfigs, budget, keys, |key, stored| {
            let outcome = match stored {
                Err(error) => Removal::Failed(ExportError::kv(&key, error)),
                Ok(None) => Removal::Stays,
                Ok(Some(stored)) => match stored.query_config() {
                    Some(item) if item.kv_key() == key => {
                        items.insert(item, stored.metadata());
                        return;
                    }
                    _ => Removal::Failed(ExportError::UnknownQueryConfig),
                },
            };
            outcomes.insert(key, outcome);
        })
        .await;
        outcomes.extend(self.remove_items(items).await);
        outcomes
    }

    async fn remove_items(
        &mut self,
        items: impl IntoIterator<Item = (ItemRef, Option<Metadata>)>,
    ) -> BTreeMap<String, Removal> {
        let removed = remove_query_configs(self.invocation, items, self.api_keys).await;
        removed.into_iter().map(|(item, removal)| (item.kv_key(), removal)).collect()
    }

    /// Counts what became of keys. The next run tries those whose time was up.
    fn note(
        &mut self,
        namespace: Namespace,
        outcomes: BTreeMap<String, Removal>,
    ) -> Result<(), OutOfTime> {
        let mut is_in_time = Ok(());
        let Done { findings, failed, progressed, .. } = &mut self.done;
        for (key, outcome) in outcomes {
            *progressed |= !matches!(outcome, Removal::Failed(_));
            match outcome {
                Removal::Failed(error) if error.is_out_of_time() => is_in_time = Err(OutOfTime),
                Removal::Failed(error) => {
                    // An outage fails every key: the counts tell how many, the log the first ones.
                    if !failed.examples.are_full(Class::Failed) {
                        error!(key, error = %Chain(&error), "a key could not be compared or repaired");
                    }
                    failed.note(namespace, Class::Failed, &key);
                }
                Removal::Removed => findings.counts[namespace][Class::Deleted] += 1,
                Removal::Written(_) => findings.counts[namespace][Class::Written] += 1,
                Removal::Stays | Removal::Postponed => {}
            }
        }
        is_in_time
    }
}
