//! Reads KV's side and the table's side, and decides for each key.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tokio::time::Instant;

use super::action::LastStep;
use super::decide::{Decision, ItemNow, decide};
use super::table_view::{Held, Named, TableView};
use super::{SettleRequest, Settling, TIME_FOR_A_WRITE};
use crate::export::api_keys::{ApiKeys, Exportable};
use crate::export::bulk::{self, Failures};
use crate::export::desired::Desired;
use crate::export::invocation::{Invocation, OutOfTime};
use crate::export::table::{Pass, PassOver, ReadError, read_items};
use crate::index::IndexRef;
use crate::item::{ItemKey, Rejection};
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::kv::{Digest, Entry, StoredValue, check_key};
use crate::ports::{Namespace, ScanColumns, Services};

/// What the values of keys that are settled in groups may take, in bytes; one request reads up to 25 MB
/// more.
const MAX_HELD_BYTES: usize = 16 * 1024 * 1024;

impl<S: Services> Settling<'_, '_, S> {
    /// Reads what KV holds, first under the keys, then under the shop ids that those lead to.
    pub async fn read_held(&mut self, request: &SettleRequest) {
        self.hold(request.keys.clone()).await;
        for index_id in &request.with_shop_id_in_value {
            let held = self.held.get(index_id).and_then(Held::named_by_value);
            let Some(shop_id) = held.and_then(|named| named.shop_ids.first()) else { continue };
            let is_known = request.keys.contains_key(shop_id) || request.written.contains(shop_id);
            if !is_known && check_key(shop_id).is_ok() {
                self.shop_ids_in_values.insert(index_id.clone(), shop_id.clone());
            }
        }
        let shop_ids = self.shop_ids_in_values.values().cloned();
        self.hold(shop_ids.map(|key| (key, BTreeSet::new())).collect()).await;
    }

    /// Takes the first keys into the work, until their values take [`MAX_HELD_BYTES`].
    pub async fn hold_first(&mut self, keys: &mut VecDeque<String>) {
        let mut bytes = 0;
        while bytes < MAX_HELD_BYTES && !keys.is_empty() {
            let first = keys.drain(..MAX_BULK_GET_KEYS.min(keys.len()));
            self.hold(first.map(|key| (key, BTreeSet::new())).collect()).await;
            let values = self.held.values().filter_map(|held| held.stored.as_ref());
            bytes = values.map(|stored| stored.value.len()).sum();
        }
    }

    async fn hold(&mut self, keys: BTreeMap<String, BTreeSet<Named>>) {
        let (held, failures) = read_held(self.invocation, keys).await;
        self.held.extend(held);
        for (key, error) in failures {
            self.fail(&key, error.into());
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
        let reserved = if self.has_deleted() { TIME_FOR_A_WRITE } else { Duration::ZERO };
        deadline.checked_sub(reserved).unwrap_or_else(Instant::now)
    }

    /// Takes out the keys whose shop id was written for an item that has changed since, or can't be read.
    pub async fn take_out_outdated(&mut self, leading: &mut BTreeMap<String, Option<StoredValue>>) {
        let written = leading.keys().filter_map(|key| self.written_shop_id(key));
        let indexes: BTreeSet<IndexRef> = written.map(|(_, index, _)| index.clone()).collect();
        if indexes.is_empty() {
            return;
        }
        let until = self.reads_until();
        let read = read_whole(self.invocation, indexes, self.api_keys);
        let read = tokio::time::timeout_at(until, read).await;
        let items = read.ok().and_then(Result::ok).unwrap_or_default();
        leading.retain(|key, _| {
            let Some((shop_id, index, digest)) = self.written_shop_id(key) else { return true };
            let is_its = |entry: &Rc<Entry>| entry.digest() == digest;
            let item = items.get(index).filter(|item| item.asks_for(shop_id));
            item.is_some_and(|item| item.entry.as_ref().is_ok_and(is_its))
        });
    }

    /// The shop id that only this key's value names, if it was written, for what index and which value.
    fn written_shop_id(&self, key: &str) -> Option<(&String, &IndexRef, Digest)> {
        let shop_id = self.shop_ids_in_values.get(key)?;
        match self.last.get(shop_id)? {
            LastStep::Written(index, digest) => Some((shop_id, index, *digest)),
            LastStep::Deleted { .. } => None,
        }
    }

    /// Reads the table's side and decides for each key.
    async fn look(&mut self) -> Result<BTreeMap<String, Decision>, ReadError> {
        let table = pass(self.invocation, TableView::for_keys(&self.held)).await?;
        let indexes = table.items_to_read(&self.held);
        let items = read_whole(self.invocation, indexes, self.api_keys).await?;
        let decisions = self.held.iter().map(|(key, held)| {
            let decision = decide(key, held, &table, &items);
            (key.clone(), decision)
        });
        Ok(decisions.collect())
    }
}

/// Makes a pass over the table, for what the view looks for.
pub async fn pass<S: Services>(
    invocation: &Invocation<'_, S>,
    mut view: TableView,
) -> Result<TableView, ReadError> {
    let mut pass = Pass::new(invocation, PassOver::Table(ScanColumns::Claims));
    while let Some(items) = pass.next().await? {
        for (key, item) in &items {
            view.add(key, item);
        }
    }
    Ok(view)
}

/// Reads items whole: what each would be exported as.
pub async fn read_whole<S: Services>(
    invocation: &Invocation<'_, S>,
    indexes: BTreeSet<IndexRef>,
    api_keys: &mut ApiKeys,
) -> Result<BTreeMap<IndexRef, ItemNow>, ReadError> {
    let items = read_items(invocation, indexes.iter().map(ItemKey::of_index)).await?;
    let decode = |index: IndexRef| {
        let item = items.get(&ItemKey::of_index(&index))?;
        let exportable = Exportable::decode(&index, item, invocation.config);
        Some((index, exportable))
    };
    let decoded: Vec<(IndexRef, Result<Exportable, Rejection>)> =
        indexes.into_iter().filter_map(decode).collect();
    drop(items);
    let exportable = decoded.iter().filter_map(|(_, exportable)| exportable.as_ref().ok());
    api_keys.ask(invocation, exportable).await;
    let stamp = invocation.stamp();
    let now = decoded.into_iter().map(|(index, exportable)| {
        let entry = match &exportable {
            Ok(exportable) => Desired::entry_of_settings(exportable, api_keys, &stamp),
            Err(rejection) => Err(rejection.clone().into()),
        };
        (index, ItemNow { exportable, entry })
    });
    Ok(now.collect())
}

/// Reads what KV holds under keys, each with what it is known to have been written for; nothing can be
/// under a name that KV can't hold. Answers also with the keys that can't be read.
pub async fn read_held<S: Services>(
    invocation: &Invocation<'_, S>,
    mut keys: BTreeMap<String, BTreeSet<Named>>,
) -> (BTreeMap<String, Held>, Failures) {
    keys.retain(|key, _| check_key(key).is_ok());
    let names = keys.keys().cloned().collect();
    let (mut stored, failures) = bulk::read(invocation, Namespace::Settings, names).await;
    keys.retain(|key, _| !failures.contains_key(key));
    let held = keys.into_iter().map(|(key, written_for)| {
        let held = match stored.remove(&key) {
            Some(stored) => Held::new(stored, &invocation.config.environment),
            None => Held { stored: None, named: written_for },
        };
        (key, held)
    });
    (held.collect(), failures)
}
