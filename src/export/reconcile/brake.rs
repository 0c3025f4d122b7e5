//! Holds what a run is about to do against its brakes.

use std::collections::{BTreeMap, BTreeSet};

use super::brakes::Brakes;
use super::{NAMESPACES, Reconciling};
use crate::export::table::{Pass, PassOver};
use crate::item::{ItemKey, ItemKind};
use crate::ports::{Namespace, ScanColumns, Services};

/// What the brakes let through in each namespace.
pub struct Allowed {
    /// What is left of each brake.
    pub brakes: BTreeMap<Namespace, Brakes>,
    /// Namespaces whose stale keys are rewritten.
    pub rewrites: BTreeSet<Namespace>,
}

impl<S: Services> Reconciling<'_, S> {
    /// Holds what is to be done against the brakes, and drops what they refuse.
    pub(super) async fn brake(&mut self) -> Allowed {
        let deletes_any = self.orphans.values().any(|orphans| !orphans.is_empty());
        if deletes_any && !self.found_indexes && self.account.is_some() {
            self.found_indexes = self.table_has_indexes().await;
        }
        let mut allowed = Allowed { brakes: BTreeMap::new(), rewrites: BTreeSet::new() };
        for namespace in NAMESPACES {
            let ours = self.ours.get(&namespace).copied().unwrap_or_default();
            let taken = self.taken.get(&namespace).copied().unwrap_or_default();
            let counts = *self.report.counts(namespace);
            let mut brakes = Brakes::new(ours, counts.desired, self.found_indexes, self.raised);
            if brakes.allow_rewrites(counts.stale + taken, &mut self.refused) {
                allowed.rewrites.insert(namespace);
            }
            let orphans = self.orphans.get(&namespace).map_or(0, Vec::len);
            let orphans = u64::try_from(orphans).unwrap_or(u64::MAX);
            if !brakes.allow_deletes(orphans, &mut self.refused) {
                self.orphans.remove(&namespace);
            }
            allowed.brakes.insert(namespace, brakes);
        }
        allowed
    }

    /// Whether the table has an index item of any account. One that can't be read has none.
    async fn table_has_indexes(&mut self) -> bool {
        let mut pass = Pass::new(self.invocation, PassOver::Table(ScanColumns::Claims));
        loop {
            match pass.next().await {
                Ok(Some(items)) => {
                    let is_index = |key: &ItemKey| matches!(key.kind(), ItemKind::IndexSettings(_));
                    if items.iter().any(|(key, _)| is_index(key)) {
                        return true;
                    }
                }
                Ok(None) => return false,
                Err(error) => {
                    self.stop(format!("the table could not be read: {error}"));
                    return false;
                }
            }
        }
    }
}
