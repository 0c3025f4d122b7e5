//! Reads KV's side and the table's side, and decides for each key.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::TIME_FOR_A_WRITE;
use super::action::LastStep;
use super::decide::{Decision, ItemNow, decide};
use super::settling::{SettleRequest, Settling};
use super::table_view::{Held, Named, TableView};
use crate::export::api_keys::{ApiKeys, Exportable, NotExportable};
use crate::export::bulk;
use crate::export::desired::Desired;
use crate::export::invocation::{Invocation, OutOfTime};
use crate::export::table::{Pass, PassOver, ReadError, read_items};
use crate::index::IndexRef;
use crate::item::ItemKey;
use crate::kv::check_key;
use crate::ports::{Namespace, ScanColumns, Services};

impl<S: Services> Settling<'_, '_, S> {
    /// Reads what KV holds, first under the keys, then under the shop ids that those lead to.
    pub async fn read_held(&mut self, request: &SettleRequest) {
        // Nothing can be under a name that KV can't hold.
        let mut keys = request.keys.clone();
        keys.retain(|key, _| check_key(key).is_ok());
        self.read_keys(keys).await;
        for index_id in &request.with_shop_id_in_value {
            let Some(Held::Ours { named, .. }) = self.held.get(index_id) else { continue };
            let Some(shop_id) = named.shop_ids.first().cloned() else { continue };
            let is_known =
                request.keys.contains_key(&shop_id) || request.written.contains(&shop_id);
            if !is_known && check_key(&shop_id).is_ok() {
                self.shop_ids_in_values.insert(index_id.clone(), shop_id);
            }
        }
        let shop_ids = self.shop_ids_in_values.values();
        let shop_ids = shop_ids.map(|key| (key.clone(), BTreeSet::new())).collect();
        self.read_keys(shop_ids).await;
    }

    async fn read_keys(&mut self, keys: BTreeMap<String, BTreeSet<Named>>) {
        if keys.is_empty() {
            return;
        }
        let names = keys.keys().cloned().collect();
        let (mut stored, failures) = bulk::read(self.invocation, Namespace::Settings, names).await;
        for (key, written_for) in keys {
            if let Some(error) = failures.get(&key) {
                self.fail(&key, error.clone().into());
                continue;
            }
            let held = match stored.remove(&key) {
                Some(stored) => Held::new(stored, &self.invocation.config.environment),
                None => Held::Nothing(written_for),
            };
            self.held.insert(key, held);
        }
    }

    /// A look that leaves time for a put-back where something was deleted.
    pub async fn look_in_time(&mut self) -> Result<BTreeMap<String, Decision>, ReadError> {
        let started = Instant::now();
        let look = tokio::time::timeout_at(self.reads_until(), self.look()).await;
        self.last_look = started.elapsed();
        look.unwrap_or(Err(ReadError::OutOfTime(OutOfTime)))
    }

    /// When reads have to end, so that what was deleted can still be put back.
    fn reads_until(&self) -> Instant {
        let deadline = self.invocation.deadline;
        let deleted = self.last.values().any(|step| matches!(step, LastStep::Deleted { .. }));
        let reserved = if deleted { TIME_FOR_A_WRITE } else { Duration::ZERO };
        deadline.checked_sub(reserved).unwrap_or_else(Instant::now)
    }

    /// Those of the keys whose shop id was written for an item that has changed since, or can't be read.
    pub async fn lead_to_outdated(
        &mut self,
        keys: impl Iterator<Item = &String>,
    ) -> BTreeSet<String> {
        let written = keys.filter_map(|key| {
            let shop_id = self.shop_ids_in_values.get(key)?;
            let Some(LastStep::Written { index, digest }) = self.last.get(shop_id) else {
                return None;
            };
            Some((key.clone(), shop_id.clone(), index.clone(), *digest))
        });
        let mut written: Vec<_> = written.collect();
        if written.is_empty() {
            return BTreeSet::new();
        }
        let indexes = written.iter().map(|(_, _, index, _)| index.clone()).collect();
        let read = tokio::time::timeout_at(self.reads_until(), self.read_items(indexes)).await;
        let items = read.ok().and_then(Result::ok).unwrap_or_default();
        written.retain(|(_, shop_id, index, digest)| match items.get(index) {
            Some(ItemNow::Exportable { keys, entry }) => {
                !keys.contains(shop_id) || entry.digest() != *digest
            }
            _ => true,
        });
        written.into_iter().map(|(key, ..)| key).collect()
    }

    /// Reads the table's side and decides for each key.
    pub async fn look(&mut self) -> Result<BTreeMap<String, Decision>, ReadError> {
        let mut table = TableView::for_keys(&self.held);
        let mut pass = Pass::new(self.invocation, PassOver::Table(ScanColumns::Claims));
        while let Some(items) = pass.next().await? {
            for (key, item) in &items {
                table.add(key, item);
            }
        }
        let items = self.read_items(table.items_to_read(&self.held)).await?;
        let decisions = self.held.iter().map(|(key, held)| {
            let decision = decide(key, held, &table, &items);
            (key.clone(), decision)
        });
        Ok(decisions.collect())
    }

    /// Reads items whole, and what each would be exported as.
    async fn read_items(
        &mut self,
        indexes: BTreeSet<IndexRef>,
    ) -> Result<BTreeMap<IndexRef, ItemNow>, ReadError> {
        let (mut now, exportable) = read_whole(self.invocation, indexes).await?;
        self.api_keys.ask(self.invocation, &exportable).await;
        for index in exportable {
            let item = item_now(self.invocation, &index, self.api_keys);
            now.insert(index.settings.index, item);
        }
        Ok(now)
    }
}

/// Reads items whole: what is known of some at once, and those whose API keys have to be asked for.
pub async fn read_whole<S: Services>(
    invocation: &Invocation<'_, S>,
    indexes: BTreeSet<IndexRef>,
) -> Result<(BTreeMap<IndexRef, ItemNow>, Vec<Exportable>), ReadError> {
    let items = read_items(invocation, indexes.iter().map(ItemKey::of_index)).await?;
    let mut now = BTreeMap::new();
    let mut exportable = Vec::new();
    for index in indexes {
        let decoded = items
            .get(&ItemKey::of_index(&index))
            .map(|item| Exportable::decode(&index, item, invocation.config));
        match decoded {
            None => drop(now.insert(index, ItemNow::Gone)),
            Some(Err(rejection)) => drop(now.insert(index, ItemNow::Rejected(rejection))),
            Some(Ok(index)) => exportable.push(index),
        }
    }
    Ok((now, exportable))
}

/// What an item would be exported as, given the API keys that have been asked for.
pub fn item_now<S: Services>(
    invocation: &Invocation<'_, S>,
    index: &Exportable,
    api_keys: &ApiKeys,
) -> ItemNow {
    match Desired::of_settings(index, api_keys) {
        Ok(desired) => match desired.entry(&invocation.stamp()) {
            Ok(entry) => ItemNow::Exportable { keys: desired.keys, entry },
            Err(rejection) => ItemNow::Rejected(rejection),
        },
        Err(NotExportable::Rejected(rejection)) => ItemNow::Rejected(rejection),
        Err(NotExportable::Unavailable(error)) => {
            ItemNow::Unavailable { keys: index.settings.kv_keys(), error }
        }
    }
}
