//! The stages of an explain: what KV holds, what the table says of it, and what the items want.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;

use super::item::points_at;
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
    pub wants: Wants,
    /// The value, without its API key where that is unavailable.
    pub value: Result<String, Rejection>,
    /// What is odd about the item, which can be exported all the same.
    pub warning: Option<String>,
    /// The index ids that its active aliases name, without its own.
    pub points_at: BTreeSet<String>,
}

/// The keys that were read, with what the table says of them.
#[derive(Default)]
pub struct Judged {
    pub values: Values,
    pub table: Table,
    /// What items want: those that have the keys, and those that were asked about.
    pub wanted: BTreeMap<ItemRef, Wanted>,
    /// The names of the account's indexes, if the request names an index.
    pub names: BTreeSet<String>,
}

impl Judged {
    /// Returns whether KV holds something under a key, or an item asks for it.
    pub fn knows(&self, key: &KvKey) -> bool {
        self.values.get(key).is_some_and(Option::is_some) || self.table.claim_of(key).is_some()
    }

    /// Returns what the item that has a key wants.
    pub fn wanted_under(&self, key: &KvKey) -> Option<&Wanted> {
        self.wanted.get(&self.table.claim_of(key)?.item())
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
        let keys: BTreeSet<KvKey> = keys.filter(|key| !values.contains_key(key)).collect();
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

    /// Makes a pass for the keys that were read, and judges them. Reads what the items that have them want, and the
    /// items of these indexes. A known item counts whatever the table has; `None` counts as absent.
    pub async fn judge(
        &self,
        values: Values,
        known: BTreeMap<ItemKey, Option<Item>>,
        indexes: &[IndexRef],
    ) -> Result<Judged, ExportError> {
        let mut names = BTreeSet::new();
        let mut table = look(self.invocation, self.table(&values), |key| {
            if let Subject::Index(asked) = &self.request.subject
                && asked.account == key.pk
            {
                names.extend(key.item().map(|item| item.index.name));
            }
            !known.contains_key(key)
        })
        .await?;
        for (key, item) in &known {
            item.iter().for_each(|item| table.add(key, &item.attributes(), Wants::Unmade));
        }
        let claims = table.rows.values().filter_map(|row| row.claim.as_ref());
        let asked = claims.map(Claim::item).chain(indexes.iter().cloned().map(ItemRef::from));
        let unread = asked.map(|item| item.key()).filter(|key| !known.contains_key(key));
        let unread: BTreeSet<ItemKey> = unread.collect();
        let until = self.invocation.budget.deadline;
        let mut items = read_items(self.invocation, until, unread).await?;
        items.extend(known.into_iter().filter_map(|(key, item)| Some((key, item?))));
        let wanted = self.want(items).await;

        let is_rejected = |item: &ItemRef| wanted[item].wants == Wants::Rejected;
        for item in wanted.keys().filter(|item| item.query.is_none() && is_rejected(item)) {
            table.resolve_owner(&item.index, Some(Wants::Rejected));
        }
        let written = self.item_to_try().and_then(|tried| tried.key.item());
        let written = written.filter(|item| wanted.contains_key(item) && !is_rejected(item));
        let written = written.map(|item| item.index);
        for Row { claim, others, .. } in table.rows.values_mut() {
            let Some(claim) = claim else { continue };
            // A write gives an item the keys that it asks for, whoever has them.
            if let Some(other) = others.iter_mut().find(|other| Some(&***other) == written.as_ref())
            {
                std::mem::swap(&mut claim.index, other);
            }
            claim.wants = wanted.get(&claim.item()).map_or(claim.wants, |wanted| wanted.wants);
        }
        Ok(Judged { values, table, wanted, names })
    }

    /// Returns what items want. Items that are never exported are left out.
    async fn want(&self, items: BTreeMap<ItemKey, Item>) -> BTreeMap<ItemRef, Wanted> {
        let invocation = self.invocation;
        let decoded = items.into_iter().filter_map(|(key, item)| {
            let item_ref = key.item()?;
            let exportable = Exportable::decode(&item_ref, &item, invocation.config);
            Some((item_ref, points_at(&key, &item), exportable))
        });
        let decoded: Vec<_> = decoded.collect();
        let mut api_keys = ApiKeys::new(Fallback::Nothing, invocation.budget.api_keys);
        let exportable = decoded.iter().filter_map(|(.., exportable)| exportable.as_ref().ok());
        api_keys.find(invocation, exportable).await;
        let wanted = decoded.into_iter().map(|(item, points_at, exportable)| {
            let settings = exportable.as_ref().ok().and_then(Exportable::settings);
            let without_api_key = settings.map(|(it, _)| it.value(&SecretString::default()));
            let warning = settings.and_then(|(it, _)| it.warning.clone());
            let value = exportable.map_err(Into::into).and_then(|it| it.value(&api_keys));
            let (wants, value) = match value {
                Ok(value) => (Wants::Value(Digest::of(value.as_bytes())), Ok(value)),
                Err(NotExportable::Rejected(rejection)) => (Wants::Rejected, Err(rejection)),
                Err(NotExportable::Unavailable(_)) => {
                    (Wants::Unavailable, Ok(without_api_key.unwrap_or_default()))
                }
            };
            (item, Wanted { wants, value, warning, points_at })
        });
        wanted.collect()
    }
}
