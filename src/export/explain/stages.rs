//! The stages of an explain: what KV holds, what the table says of it, and what the items want.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;

use super::{Explain, Subject, Tried};
use crate::export::api_keys::{ApiKeys, Fallback, NotExportable};
use crate::export::bulk;
use crate::export::error::ExportError;
use crate::export::exportable::Exportable;
use crate::export::invocation::Invocation;
use crate::export::judge::{Claim, Held, KvKey, Range, Row, Table, Wants};
use crate::export::remove::look;
use crate::export::table::read_items;
use crate::index::{IndexRef, ItemRef};
use crate::item::{Item, ItemKey, Rejection};
use crate::kv::{Digest, Namespace, StoredValue, check_key};
use crate::ports::Services;

/// What KV holds under the keys that were read. A name that KV can't hold counts as read.
pub type Values = BTreeMap<KvKey, Option<StoredValue>>;

/// What an item wants under its keys.
pub struct Wanted {
    pub key: ItemKey,
    pub item: Item,
    pub wants: Wants,
    /// The value, without its API key where that is unavailable.
    pub value: Result<String, Rejection>,
}

/// What items want, by their indexes.
pub type WantedBy = BTreeMap<IndexRef, Wanted>;

/// The keys that were read, with what the table says of them.
pub struct Judged {
    pub values: Values,
    pub table: Table,
    pub wanted: WantedBy,
    /// The names of the account's indexes, if the request names an index.
    pub names: BTreeSet<String>,
}

impl Judged {
    /// Returns whether KV holds something under a key, or an item asks for it.
    pub fn knows(&self, key: &KvKey) -> bool {
        self.values.get(key).is_some_and(Option::is_some) || self.table.claim_of(key).is_some()
    }
}

/// Returns the index that a value names, or else its metadata, whichever environment wrote them.
pub fn named_by(stored: &StoredValue) -> Option<IndexRef> {
    let by_value = stored.settings().map(|settings| settings.index);
    by_value.or_else(|| Some(stored.metadata()?.index))
}

pub struct Explaining<'a, 's, S> {
    pub invocation: &'a Invocation<'s, S>,
    pub request: &'a Explain,
}

impl<S: Services> Explaining<'_, '_, S> {
    /// Returns the item that counts instead of the saved one.
    pub fn item_to_try(&self) -> Option<&Tried> {
        match &self.request.subject {
            Subject::Item(tried) => Some(tried),
            _ => None,
        }
    }

    /// Reads what KV holds under the keys that were not read before.
    pub async fn read(
        &self,
        mut values: Values,
        namespace: Namespace,
        names: impl IntoIterator<Item = String>,
    ) -> Result<Values, ExportError> {
        let keys = names.into_iter().map(|name| KvKey { namespace, name });
        let keys: Vec<KvKey> = keys.filter(|key| !values.contains_key(key)).collect();
        let names = keys.iter().map(|key| key.name.clone());
        let names = names.filter(|name| check_key(name).is_ok());
        let mut failure = None;
        values.extend(keys.iter().map(|key| (key.clone(), None)));
        let budget = self.invocation.budget;
        bulk::read(self.invocation, namespace, budget, names, |name, stored| match stored {
            Ok(stored) => {
                values.insert(KvKey { namespace, name }, stored);
            }
            Err(error) => failure = Some(ExportError::kv(&name, error)),
        })
        .await;
        failure.map_or(Ok(values), Err)
    }

    /// Returns a table for the keys that were read.
    pub fn table(&self, values: &Values) -> Table {
        let mut table = Table::new(Range::empty());
        for (key, stored) in values {
            let held = Held::read(stored.as_ref(), &self.invocation.config.environment);
            table.hold(key.clone(), held);
        }
        table
    }

    /// Returns what items want. An item that is tried counts as if it were saved.
    pub async fn want(&self, items: BTreeSet<ItemRef>) -> Result<WantedBy, ExportError> {
        let (invocation, keys) = (self.invocation, items.iter().map(ItemRef::key));
        let mut found = read_items(invocation, invocation.budget.deadline, keys).await?;
        if let Some(Tried { key, item }) = self.item_to_try() {
            found.remove(key);
            found.extend(item.clone().map(|item| (key.clone(), item)));
        }
        let decoded = items.into_iter().filter_map(|item_ref| {
            let (key, item) = found.remove_entry(&item_ref.key())?;
            let exportable = Exportable::decode(&item_ref, &item, invocation.config);
            Some((item_ref.index, key, item, exportable))
        });
        let decoded: Vec<_> = decoded.collect();
        let mut api_keys = ApiKeys::new(Fallback::Nothing, invocation.budget.api_keys);
        let exportable = decoded.iter().filter_map(|(.., exportable)| exportable.as_ref().ok());
        api_keys.find(invocation, exportable).await;
        let wanted = decoded.into_iter().map(|(index, key, item, exportable)| {
            let settings = exportable.as_ref().ok().and_then(Exportable::settings);
            let without_api_key = settings.map(|(it, _)| it.value(&SecretString::default()));
            let value = exportable.map_err(Into::into).and_then(|it| it.value(&api_keys));
            let (wants, value) = match value {
                Ok(value) => (Wants::Value(Digest::of(value.as_bytes())), Ok(value)),
                Err(NotExportable::Rejected(rejection)) => (Wants::Rejected, Err(rejection)),
                Err(NotExportable::Unavailable(_)) => {
                    (Wants::Unavailable, Ok(without_api_key.unwrap_or_default()))
                }
            };
            (index, Wanted { key, item, wants, value })
        });
        Ok(wanted.collect())
    }

    /// Makes a pass for the keys that were read, and judges them by what these indexes want, and the items that
    /// have the keys. An item that is tried counts instead of the saved one.
    pub async fn judge(
        &self,
        values: Values,
        indexes: &[IndexRef],
        mut wanted: WantedBy,
    ) -> Result<Judged, ExportError> {
        let tried = self.item_to_try();
        let mut table = self.table(&values);
        // The pass leaves query configs out.
        for Wanted { key, item, wants, .. } in wanted.values() {
            table.add(key, &item.attributes(), *wants);
        }
        let mut names = BTreeSet::new();
        let mut table = look(self.invocation, table, |key| {
            if let Subject::Index(asked) = &self.request.subject
                && asked.account == key.pk
            {
                names.extend(key.item().map(|item| item.index.name));
            }
            tried.is_none_or(|tried| tried.key != *key)
        })
        .await?;
        if let Some(Tried { key, item: Some(item) }) = tried {
            let decoded =
                key.item().map(|it| Exportable::decode(&it, item, self.invocation.config));
            let is_rejected = decoded.is_some_and(|decoded| decoded.is_err());
            let wants = if is_rejected { Wants::Rejected } else { Wants::Unmade };
            table.add(key, &item.attributes(), wants);
        }
        let claims = table.rows.values().filter_map(|row| row.claim.as_ref());
        let asking = claims.map(Claim::item).chain(indexes.iter().cloned().map(ItemRef::from));
        let is_open = |it: &ItemRef| it.query.is_none() && !wanted.contains_key(&it.index);
        let asking = asking.filter(is_open).collect();
        wanted.extend(self.want(asking).await?);
        for (index, Wanted { key, .. }) in
            wanted.iter().filter(|(_, it)| it.wants == Wants::Rejected)
        {
            if *key == ItemRef::from(index.clone()).key() {
                table.resolve_owner(index, Some(Wants::Rejected));
            }
        }
        let is_rejected = |index| wanted.get(index).is_some_and(|it| it.wants == Wants::Rejected);
        let written = indexes.iter().find(|index| tried.is_some() && !is_rejected(index));
        for Row { claim, others, .. } in table.rows.values_mut() {
            let Some(claim) = claim else { continue };
            // A write gives an item the keys that it asks for, whoever has them.
            if let Some(other) = others.iter_mut().find(|other| Some(&***other) == written) {
                std::mem::swap(&mut claim.index, other);
            }
            claim.wants = wanted.get(&*claim.index).map_or(claim.wants, |wanted| wanted.wants);
        }
        Ok(Judged { values, table, wanted, names })
    }
}
