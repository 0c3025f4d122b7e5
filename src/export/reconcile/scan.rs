//! A pass over the table: what its items ask for of the keys of a part, and what their aliases point
//! at.

use std::collections::BTreeSet;

use tokio::time::Instant;

use super::ReconcileError;
use super::asks::{Asks, WaitingIndex};
use super::kept_claims::{Claim, KeptClaims};
use super::part::Part;
use super::report::KeyClass;
use super::row::Wanted;
use super::run::Run;
use crate::export::api_keys::{Exportable, NotExportable};
use crate::export::desired::Desired;
use crate::export::table::Pass;
use crate::index::IndexRef;
use crate::item::alias_targets::{AliasTarget, alias_targets};
use crate::item::keys::claimed_keys;
use crate::item::{Item, ItemKey, ItemKind, Map, QueryConfigRef, Rejection};
use crate::kv::check_key;
use crate::ports::{Namespace, Services};

/// Index ids that aliases point at and that KV does not list, as many as are held. What is more than
/// that is no longer a finding, but an outage.
const MAX_POINTED_AT: usize = 50_000;

impl<'a, S: Services> Run<'a, S> {
    /// Goes over the items. Those whose API keys have not come by the end are left in the answer.
    pub(super) async fn scan(&mut self, part: &mut Part) -> Result<Asks<'a, S>, ReconcileError> {
        let mut asks = Asks::new(self.invocation);
        let kept = std::mem::take(&mut self.kept_claims);
        if part.namespace == Namespace::QueryConfigs
            && let Some(claims) = kept.all()
        {
            for claim in claims {
                self.claim_query_config(part, claim);
            }
            self.kept_claims = kept;
            return Ok(asks);
        }
        if part.namespace == Namespace::Settings && part.next.is_none() {
            self.kept_claims = KeptClaims::begin();
        }
        let mut pass = Pass::new(self.invocation, self.items());
        let began = Instant::now();
        let mut scanned = 0;
        loop {
            if asks.hold_too_much() {
                if let Some(answered) = pass.while_waiting(asks.next()).await {
                    self.judge_waiting(part, &mut asks, answered);
                }
                continue;
            }
            let page = tokio::select! {
                page = pass.next() => page,
                Some(answered) = asks.next() => {
                    self.judge_waiting(part, &mut asks, answered);
                    continue;
                }
            };
            let page =
                page.map_err(|error| ReconcileError::PassStopped { items: scanned, error })?;
            let Some(items) = page else {
                self.progress.note_pass(began.elapsed());
                return Ok(asks);
            };
            scanned += items.len();
            if self.account().is_some() {
                let unlisted = unlisted_keys(part, &items);
                pass.while_waiting(self.read_unlisted(part, unlisted)).await;
            }
            self.add_page(part, &items, &mut asks);
        }
    }

    fn add_page(&mut self, part: &mut Part, items: &[(ItemKey, Item)], asks: &mut Asks<'a, S>) {
        for (key, item) in items {
            match (key.kind(), part.namespace) {
                (ItemKind::IndexSettings(index), Namespace::Settings) => {
                    self.found_indexes = true;
                    self.add_index(part, &index, key, item, asks);
                }
                (ItemKind::IndexSettings(_), Namespace::QueryConfigs) => self.found_indexes = true,
                (ItemKind::QueryConfig(config), _) => {
                    self.add_query_config(part, &config, key, item)
                }
                (ItemKind::Skipped, Namespace::Settings) => {
                    note_aliases(part, key, None, &item.attributes());
                }
                (ItemKind::Skipped, Namespace::QueryConfigs) => {}
            }
        }
    }

    fn add_index(
        &mut self,
        part: &mut Part,
        index: &IndexRef,
        item_key: &ItemKey,
        item: &Item,
        asks: &mut Asks<'a, S>,
    ) {
        let attributes = item.attributes();
        note_aliases(part, item_key, Some(index), &attributes);
        let mut keys = claimed_keys(index, &attributes);
        keys.retain(|key| part.compares(key));
        if keys.is_empty() && !part.covers(&index.index_id()) {
            // Another part compares it, and asks for its API key.
            return;
        }
        for key in &keys {
            if part.keys.claim(key, index, item_key) {
                self.report.add_example(KeyClass::Conflicting, key);
            }
        }
        match Exportable::decode(index, item, self.invocation.config) {
            Err(rejection) => self.judge_rejected(part, index, item_key, &keys, &rejection),
            Ok(index) => {
                let bytes = item.bytes();
                let waiting = WaitingIndex { item: item_key.clone(), keys, index, bytes };
                if self.api_keys.knows(&waiting.index.owner) {
                    self.judge(part, waiting);
                } else {
                    asks.wait(waiting);
                }
            }
        }
    }

    /// Compares the keys of an index whose API key is known, or known to be unavailable.
    pub(super) fn judge(&mut self, part: &mut Part, waiting: WaitingIndex) {
        let WaitingIndex { item, keys, index, .. } = waiting;
        let desired = Desired::of_settings(&index, &self.api_keys);
        let wanted = match desired {
            Ok(desired) => Wanted::Value(desired.digest()),
            Err(NotExportable::Unavailable(_)) => Wanted::Unknown,
            Err(NotExportable::Rejected(rejection)) => {
                return self.judge_rejected(part, &index.settings.index, &item, &keys, &rejection);
            }
        };
        for key in &keys {
            part.keys.judge(key, &item, wanted);
        }
    }

    fn judge_rejected(
        &mut self,
        part: &mut Part,
        index: &IndexRef,
        item: &ItemKey,
        keys: &[String],
        rejection: &Rejection,
    ) {
        // Each part's pass sees the item; the one that has its index id counts it.
        let index_id = index.index_id();
        if part.covers(&index_id) {
            self.reject(Namespace::Settings, index, &index_id, rejection);
        }
        for key in keys {
            part.keys.judge(key, item, Wanted::Rejected);
        }
    }

    fn add_query_config(
        &mut self,
        part: &mut Part,
        config: &QueryConfigRef,
        key: &ItemKey,
        item: &Item,
    ) {
        let is_compared = part.namespace == Namespace::QueryConfigs;
        if is_compared && !part.covers(&config.kv_key()) {
            return;
        }
        let wanted = Desired::of_query_config(config, item).map(|desired| desired.digest());
        let claim = Claim { item: key.clone(), wanted };
        if is_compared {
            self.claim_query_config(part, &claim);
        } else {
            self.kept_claims.keep(claim);
        }
    }

    fn claim_query_config(&mut self, part: &mut Part, Claim { item, wanted }: &Claim) {
        let ItemKind::QueryConfig(config) = item.kind() else { return };
        let key = config.kv_key();
        if !part.covers(&key) {
            return;
        }
        let wanted = match wanted {
            Ok(digest) => Wanted::Value(*digest),
            Err(rejection) => {
                self.reject(Namespace::QueryConfigs, &config.index, &key, rejection);
                Wanted::Rejected
            }
        };
        if check_key(&key).is_err() {
            return;
        }
        if part.keys.claim(&key, &config.index, item) {
            self.report.add_example(KeyClass::Conflicting, &key);
        }
        part.keys.judge(&key, item, wanted);
    }
}

/// The keys that items ask for and that the listing's prefix leaves out.
fn unlisted_keys(part: &Part, items: &[(ItemKey, Item)]) -> BTreeSet<String> {
    if part.namespace != Namespace::Settings {
        return BTreeSet::new();
    }
    let claimed = items.iter().filter_map(|(key, item)| match key.kind() {
        ItemKind::IndexSettings(index) => Some(claimed_keys(&index, &item.attributes())),
        ItemKind::QueryConfig(_) | ItemKind::Skipped => None,
    });
    claimed.flatten().filter(|key| !part.matches_prefix(key) && part.covers(key)).collect()
}

/// Notes what the active aliases of an item point at, itself left out, and KV does not list.
fn note_aliases(part: &mut Part, key: &ItemKey, own: Option<&IndexRef>, item: &Map<'_>) {
    let own = own.map(IndexRef::index_id);
    for target in alias_targets(&key.pk, item) {
        if let AliasTarget::IndexId(index_id) = target
            && Some(&index_id) != own.as_ref()
            && part.covers(&index_id)
            && !part.keys.holds(&index_id)
            && part.pointed_at.len() < MAX_POINTED_AT
        {
            part.pointed_at.insert(index_id);
        }
    }
}
