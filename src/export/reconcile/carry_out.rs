//! Carries out what the brakes let through: writes first, then deletes. The listing and the pass alone are no
//! reason to delete a key: the removal looks for itself.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use enum_map::EnumMap;
use tracing::error;

use super::Part;
use super::brakes::Allowed;
use super::report::{Class, Findings};
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

/// Orphans that are removed in one go. Each go takes two passes over the table.
const REMOVE_KEYS: usize = 5_000;

/// The least time for which a go is worth its beginning. What it does not get done is for the next run.
const TIME_FOR_A_GO: Duration = Duration::from_secs(10);

/// The repair of a part.
pub struct Repair<'a, 's, S> {
    pub invocation: &'a Invocation<'s, S>,
    pub api_keys: &'a mut ApiKeys,
    /// What the brakes let through. What is left of it in the end is for another run.
    pub allowed: EnumMap<Namespace, Allowed>,
    pub done: Done,
}

#[derive(Default)]
pub struct Done {
    /// What was written and deleted, and what failed.
    pub findings: Findings,
    /// Whether anything was done for any key.
    pub progressed: bool,
    /// Whether keys that differ were left to the next chain.
    pub left_out: bool,
    /// Stale keys that KV has confirmed.
    pub rewritten: u64,
}

impl<S: Services> Repair<'_, '_, S> {
    /// Repairs a part. Returns false where time ended before all of it was done.
    pub async fn carry_out(&mut self, part: &Part) -> bool {
        let mut is_finished = true;
        for namespace in [Namespace::Settings, Namespace::QueryConfigs] {
            is_finished = is_finished && self.write(namespace, part).await;
        }
        for namespace in [Namespace::Settings, Namespace::QueryConfigs] {
            is_finished = is_finished && self.remove_orphans(namespace, part).await;
        }
        is_finished
    }

    /// Writes the keys that are missing, and as many stale ones as are allowed. Returns false where time
    /// ended.
    async fn write(&mut self, namespace: Namespace, part: &Part) -> bool {
        let mut rewrites = self.allowed[namespace].rewrites;
        let mut writes: BTreeMap<ItemRef, BTreeMap<String, Verdict>> = BTreeMap::new();
        for (key, row, verdict) in part.verdicts().filter(|(key, ..)| key.namespace == namespace) {
            let (Some(claim), Some(verdict)) = (&row.claim, verdict) else { continue };
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
            if self.invocation.time_left() < TIME_FOR_A_GO {
                return false;
            }
            let group: BTreeMap<_, _> = writes.by_ref().take(WRITE_ITEMS).collect();
            if !self.write_group(namespace, group).await {
                return false;
            }
        }
        true
    }

    async fn write_group(
        &mut self,
        namespace: Namespace,
        group: BTreeMap<ItemRef, BTreeMap<String, Verdict>>,
    ) -> bool {
        // They were asked for minutes ago, and may have been rotated.
        self.api_keys.forget_answers();
        let only = |(item, keys): (&ItemRef, &BTreeMap<String, Verdict>)| {
            WriteItem::under(item.clone(), keys.keys().cloned().collect())
        };
        let writes = group.iter().map(only).collect();
        let written = write_items(self.invocation, namespace, writes, self.api_keys).await;
        let mut is_in_time = true;
        for (item, keys) in group {
            let fate = written.fate(&item);
            for (key, verdict) in keys {
                let outcome = match &fate {
                    _ if written.keys.contains_key(&key) => Removal::Written(item.clone()),
                    Fate::Failed(error) => Removal::Failed(error.clone()),
                    // The item has changed since, and that change has a record of its own.
                    Fate::Written | Fate::Absent | Fate::Rejected(_) => Removal::Stays,
                };
                if verdict == Verdict::Stale && matches!(outcome, Removal::Written(_)) {
                    self.done.rewritten += 1;
                    let left = &mut self.allowed[namespace].rewrites;
                    *left = left.saturating_sub(1);
                }
                is_in_time &= self.note(namespace, &key, &outcome);
            }
        }
        self.remove_left_behind(namespace, written.left_behind).await && is_in_time
    }

    /// Removes what was written for items that went meanwhile. Returns false where time ended.
    async fn remove_left_behind(
        &mut self,
        namespace: Namespace,
        left_behind: BTreeMap<String, ItemRef>,
    ) -> bool {
        let spare = &mut self.allowed[namespace].spare_deletes;
        let keys = left_behind.len() as u64;
        if keys > *spare {
            self.done.findings.refused.delete += keys;
            return true;
        }
        *spare -= keys;
        let removed = match namespace {
            Namespace::Settings => self.remove_settings(left_behind.into_keys().collect()).await,
            Namespace::QueryConfigs => {
                self.remove_items(left_behind.into_values().map(|item| (item, None))).await
            }
        };
        let mut is_in_time = true;
        for (key, removal) in removed {
            is_in_time &= self.note(namespace, &key, &removal);
        }
        is_in_time
    }

    /// Removes as many orphans as are allowed. Returns false where time ended.
    async fn remove_orphans(&mut self, namespace: Namespace, part: &Part) -> bool {
        let orphans = part.verdicts().filter(|(key, _, verdict)| {
            key.namespace == namespace && *verdict == Some(Verdict::Orphaned)
        });
        let mut orphans = orphans.map(|(key, ..)| key.name.clone()).peekable();
        while orphans.peek().is_some() {
            let allowed = self.allowed[namespace].deletes;
            let go = usize::try_from(allowed).unwrap_or(usize::MAX).min(REMOVE_KEYS);
            if go == 0 {
                self.done.left_out = true;
                return true;
            }
            if self.invocation.time_left() < TIME_FOR_A_GO {
                return false;
            }
            let keys: BTreeSet<String> = orphans.by_ref().take(go).collect();
            let removed = match namespace {
                Namespace::Settings => self.remove_settings(keys).await,
                Namespace::QueryConfigs => self.remove_named_items(keys).await,
            };
            let mut is_in_time = true;
            for (key, removal) in removed {
                if removal == Removal::Removed {
                    self.allowed[namespace].deletes -= 1;
                }
                is_in_time &= self.note(namespace, &key, &removal);
            }
            if !is_in_time {
                return false;
            }
        }
        true
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
                Ok(Some(stored)) => match stored.query_config().filter(|it| it.kv_key() == key) {
                    Some(item) => {
                        items.insert(item, stored.metadata());
                        return;
                    }
                    None => Removal::Failed(ExportError::UnknownQueryConfig),
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

    /// Counts what became of a key. Returns false where its time was up: then the next run tries it.
    fn note(&mut self, namespace: Namespace, key: &str, outcome: &Removal) -> bool {
        let class = match outcome {
            Removal::Failed(error) if error.is_out_of_time() => return false,
            Removal::Failed(error) => {
                // An outage fails every key: the counts tell how many, the log the first ones.
                if !self.done.findings.examples.are_full(Class::Failed) {
                    error!(key, error = %Chain(error), "a key could not be compared or repaired");
                }
                self.done.findings.examples.add(Class::Failed, key);
                Some(Class::Failed)
            }
            Removal::Removed => Some(Class::Deleted),
            Removal::Written(_) => Some(Class::Written),
            Removal::Stays | Removal::Postponed => None,
        };
        self.done.progressed |= !matches!(outcome, Removal::Failed(_));
        class.into_iter().for_each(|class| self.done.findings.counts[namespace][class] += 1);
        true
    }
}
