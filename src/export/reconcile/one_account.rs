//! What a run of one account reads beside its listing by prefix: the shop ids that its items ask for,
//! those that values under its index ids name, and what the other accounts' items say of these keys.

use std::collections::{BTreeMap, BTreeSet};

use tracing::error;

use super::ReconcileError;
use super::part::{Lister, Part, Section};
use super::report::Class;
use super::rows::{Claim, READ_ALONE};
use crate::error_chain::Chain;
use crate::export::bulk::{self, Failures};
use crate::export::table::{Pass, PassOver};
use crate::item::alias_targets::alias_targets;
use crate::item::keys::claimed_keys;
use crate::item::{Item, ItemKey, ItemKind};
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::kv::{Metadata, StoredSettings, StoredValue, check_key};
use crate::ports::{KvError, Namespace, ScanColumns, Services};

impl<S: Services> Lister<'_, S> {
    /// Reads those of the keys that the listing's prefix leaves out.
    pub async fn read_unlisted(&self, part: &mut Part, mut keys: BTreeSet<String>) {
        let Some(section) = part.settings() else { return };
        keys.retain(|key| !section.matches_prefix(key) && !section.rows.holds(key));
        let (found, failures) = self.read_values(keys.into_iter().collect()).await;
        for (key, stored) in found {
            let metadata = stored.metadata.and_then(|json| Metadata::parse(json.get()));
            part.sections[0].add_key(self, &key, READ_ALONE, metadata.as_ref());
            part.sections[0].read.insert(key);
        }
        for (key, error) in failures {
            part.note_unreadable(&key, &error);
        }
    }

    /// Reads the keys of shop ids that items of the account have given up: those that values name under
    /// index ids that differ from the table. The repair is about to replace or delete these values.
    pub async fn read_given_up_shop_ids(&self, part: &mut Part) {
        let Some(section) = part.settings() else { return };
        let stale = section.rows.names_of(Class::Stale);
        let stale = stale.filter(|key| section.matches_prefix(key)).map(str::to_owned);
        let mut keys: Vec<String> = stale.collect();
        for page in section.rows.pages_with(Class::Orphaned) {
            match self.names_of_page(section, page, Class::Orphaned).await {
                Ok(names) => keys.extend(names),
                Err(error) => {
                    let reason = "shop ids that were given up could not be looked up";
                    part.stopped = Some(format!("{reason}: {}", Chain(&error)));
                    return;
                }
            }
        }
        for keys in keys.chunks(MAX_BULK_GET_KEYS) {
            let (values, failures) = self.read_values(keys.to_vec()).await;
            for (key, error) in failures {
                part.note_unreadable(&key, &error);
            }
            let shop_id = |stored: StoredValue| StoredSettings::parse(&stored.value)?.shop_id;
            let values = values.into_iter();
            let named: BTreeMap<String, String> =
                values.filter_map(|(key, stored)| Some((key, shop_id(stored)?))).collect();
            self.read_unlisted(part, named.values().cloned().collect()).await;
            // Another run has to find the shop id through the value, if this one could not read it.
            for (key, shop_id) in named {
                if part.sections[0].rows.is_unreadable(&shop_id) {
                    part.sections[0].rows.note_unreadable(&key);
                }
            }
        }
    }

    /// Takes in what the items of other accounts ask for and point at, where that can matter.
    pub async fn take_in_other_accounts(&self, part: &mut Part) -> Result<(), ReconcileError> {
        if !part.depends_on_other_accounts() {
            return Ok(());
        }
        let mut pass = Pass::new(self.invocation, PassOver::Table(ScanColumns::Claims));
        let mut items = 0;
        loop {
            let page = pass.next().await;
            let page = page.map_err(|error| ReconcileError::PassStopped { items, error })?;
            let Some(page) = page else { break };
            items += page.len();
            for (key, item) in &page {
                part.take_in_claims(key, item, self.only_account());
            }
        }
        self.forget_targets_that_kv_holds(part).await;
        Ok(())
    }

    /// Forgets the index ids that aliases point at and under which KV holds a key, though the listing's
    /// prefix leaves it out; and those of which that can't be told.
    async fn forget_targets_that_kv_holds(&self, part: &mut Part) {
        let Some(section) = part.sections.first_mut() else { return };
        let unlisted = section
            .pointed_at
            .iter()
            .filter(|key| !section.matches_prefix(key) && check_key(key).is_ok());
        let (found, failures) = self.read_values(unlisted.cloned().collect()).await;
        section.pointed_at.retain(|key| !found.contains_key(key) && !failures.contains_key(key));
        if let Some(error) = failures.into_values().next() {
            part.stopped =
                Some(format!("dangling aliases could not be looked up: {}", Chain(&error)));
        }
    }

    /// Reads values of the settings namespace, when it is this run's turn.
    async fn read_values(&self, keys: Vec<String>) -> (BTreeMap<String, StoredValue>, Failures) {
        if keys.is_empty() {
            return Default::default();
        }
        let requests = keys.len().div_ceil(MAX_BULK_GET_KEYS);
        match self.invocation.wait_for_turn(requests, self.invocation.deadline).await {
            Ok(()) => bulk::read(self.invocation, Namespace::Settings, keys).await,
            Err(_) => {
                let failed = keys.into_iter().map(|key| (key, KvError::OutOfTime));
                (BTreeMap::new(), failed.collect())
            }
        }
    }
}

impl Part {
    fn depends_on_other_accounts(&self) -> bool {
        let depends = |section: &Section| {
            section.rows.depend_on_other_accounts() || !section.pointed_at.is_empty()
        };
        let has_orphans = |section: &Section| !section.rows.pages_with(Class::Orphaned).is_empty();
        // The brake asks whether the table is empty.
        let asks_brake = !self.has_indexes && self.sections.iter().any(has_orphans);
        asks_brake || self.settings().is_some_and(depends)
    }

    fn take_in_claims(&mut self, key: &ItemKey, item: &Item, only_account: Option<&str>) {
        let index = match key.kind() {
            ItemKind::IndexSettings(index) => Some(index),
            ItemKind::QueryConfig(_) => return,
            ItemKind::Skipped => None,
        };
        self.has_indexes |= index.is_some();
        if Some(key.pk.as_str()) == only_account {
            return;
        }
        let Some(section) = self.section(Namespace::Settings) else { return };
        let attributes = item.attributes();
        for target in alias_targets(&key.pk, &attributes) {
            section.owners.note_target(&target, key, &section.rows);
        }
        let Some(index) = index else { return };
        section.pointed_at.remove(&index.index_id());
        for claimed in claimed_keys(&index, &attributes) {
            section.rows.claim(&claimed, &index, key, Claim::OfAnotherAccount);
        }
    }

    fn note_unreadable(&mut self, key: &str, error: &KvError) {
        error!(key, error = %Chain(error), "a key could not be compared or repaired");
        self.examples.add(Class::Failed, key);
        self.sections[0].rows.note_unreadable(key);
    }
}
