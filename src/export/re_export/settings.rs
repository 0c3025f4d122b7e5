//! The settings part of a re-export.

use std::collections::BTreeSet;

use super::ReExportError;
use crate::export::api_keys::{
    ApiKeyOwner, ApiKeys, BATCH_TIME_FOR_API_KEYS, Exportable, NotExportable, Patience, Reuse,
};
use crate::export::desired::{Desired, warn_if_odd};
use crate::export::error::KeyError;
use crate::export::invocation::Invocation;
use crate::export::settle::{KeyOutcome, SettleRequest, settle};
use crate::export::table::{ReadError, read_items};
use crate::export::verified_write::{ItemWrite, Reread, WriteOutcome, verified_write};
use crate::index::IndexRef;
use crate::item::{IndexSettings, Item, ItemKey};
use crate::ports::{Namespace, Services};

/// Exports the settings; answers with the keys that hold them, none if they are gone.
pub async fn re_export<S: Services>(
    invocation: &Invocation<'_, S>,
    index: &IndexRef,
) -> Result<Vec<String>, ReExportError> {
    let key = ItemKey::of_index(index);
    let failed = |error: KeyError| ReExportError::of(index, error, false);
    let not_exportable = |why| match why {
        NotExportable::Unavailable(error) => failed(error.into()),
        NotExportable::Rejected(rejection) => {
            ReExportError::RecordRejected { index: index.clone(), rejection, partly_written: false }
        }
    };
    let items = read_items(invocation, [key.clone()]).await;
    let items = items.map_err(|error| failed(error.into()))?;
    let item = items.get(&key).ok_or_else(|| ReExportError::IndexNotFound(index.clone()))?;
    let exportable = Exportable::decode(index, item, invocation.config);
    let exportable = exportable.map_err(|rejection| not_exportable(rejection.into()))?;
    warn_if_odd(&exportable.settings);
    let mut api_keys = ApiKeys::new(Patience::InAll(BATCH_TIME_FOR_API_KEYS), Reuse::FromKv);
    api_keys.ask(invocation, [&exportable]).await;
    let (entry, keys) = Desired::of_settings(&exportable, &api_keys)
        .and_then(|desired| Ok((desired.entry(&invocation.stamp())?, desired.keys)))
        .map_err(not_exportable)?;
    let write = ItemWrite { item: key, entry, keys: keys.into_iter().collect() };
    let record = IndexItem { invocation, index, owner: &exportable.owner, api_keys: &api_keys };
    let written = verified_write(invocation, Namespace::Settings, &record, vec![write]).await;
    keys_that_hold(invocation, index, written, &mut api_keys).await
}

/// Read again by its key.
struct IndexItem<'a, S> {
    invocation: &'a Invocation<'a, S>,
    index: &'a IndexRef,
    /// Whose API key was asked for.
    owner: &'a ApiKeyOwner,
    api_keys: &'a ApiKeys,
}

impl<S: Services> Reread for IndexItem<'_, S> {
    const WRITES_NEW_KEYS: bool = true;

    async fn read_again(
        &self,
        items: &[ItemKey],
        mut found: impl FnMut(&ItemKey, &Item),
    ) -> Result<(), ReadError> {
        for (key, item) in &read_items(self.invocation, items.iter().cloned()).await? {
            found(key, item);
        }
        Ok(())
    }

    fn desired(&self, _key: &ItemKey, item: &Item) -> Result<Desired, NotExportable> {
        let settings = IndexSettings::decode(self.index, &item.attributes())?;
        // Written with the API key that there is, though the account may have moved.
        let owner = self.owner.clone();
        Desired::of_settings(&Exportable { settings, owner }, self.api_keys)
    }
}

/// The keys that hold the record, after those were settled that it no longer asks for.
async fn keys_that_hold<S: Services>(
    invocation: &Invocation<'_, S>,
    index: &IndexRef,
    written: WriteOutcome,
    api_keys: &mut ApiKeys,
) -> Result<Vec<String>, ReExportError> {
    let partly_written = written.sent;
    let failed = |error| ReExportError::of(index, error, partly_written);
    if let Some((_, rejection)) = written.rejected.into_iter().next() {
        let index = index.clone();
        return Err(ReExportError::RecordRejected { index, rejection, partly_written });
    }
    if let Some(error) = written.failed.into_values().next() {
        return Err(failed(error));
    }
    let mut keys = written.written;
    let left_behind: BTreeSet<String> = written.left_behind.into_values().flatten().collect();
    if !left_behind.is_empty() {
        let mut request = SettleRequest::default();
        request.add_written_for(index, left_behind);
        for (key, verdict) in settle(invocation, request, api_keys).await {
            match verdict {
                KeyOutcome::Written(claimant) if claimant == *index => drop(keys.insert(key)),
                KeyOutcome::Failed(error) => {
                    return Err(failed(KeyError::NotSettled { key, source: Box::new(error) }));
                }
                _ => {}
            }
        }
    }
    let index_id = index.index_id();
    let mut keys: Vec<String> = keys.into_iter().collect();
    keys.sort_by_key(|key| *key == index_id);
    Ok(keys)
}
