//! The stages of an explain: what KV holds, what the table says of it, and what the items want.

use std::collections::{BTreeMap, BTreeSet};

use secrecy::SecretString;

use crate::export::api_keys::{ApiKeys, Fallback, NotExportable};
use crate::export::bulk;
use crate::export::error::ExportError;
use crate::export::exportable::Exportable;
use crate::export::invocation::Invocation;
use crate::export::judge::{Claim, Held, KvKey, Range, Row, Table, Wants};
use crate::export::remove::look;
use crate::export::table::read_items;
use crate::index::{IndexRef, ItemRef};
use crate::item::{AliasTarget, Item, ItemKey, Rejection, alias_targets};
use crate::kv::{Digest, Namespace, StoredValue, check_key};
use crate::ports::{ScanColumns, Services};

/// What KV holds under the keys that were read. A name that KV can't hold counts as read.
pub type Values = BTreeMap<KvKey, Option<StoredValue>>;

/// Returns the index that a value names, or else its metadata, whichever environment wrote them.
pub fn named_by(stored: &StoredValue) -> Option<IndexRef> {
    let by_value = stored.settings().map(|settings| settings.index);
    by_value.or_else(|| Some(stored.metadata()?.index))
}

/// Adds what KV holds under the keys that were not read before.
pub async fn read<S: Services>(
    invocation: &Invocation<'_, S>,
    mut values: Values,
    keys: impl IntoIterator<Item = KvKey>,
) -> Result<Values, ExportError> {
    let keys: BTreeSet<KvKey> = keys.into_iter().filter(|key| !values.contains_key(key)).collect();
    values.extend(keys.iter().map(|key| (key.clone(), None)));
    let mut failure = None;
    for namespace in [Namespace::Settings, Namespace::QueryConfigs] {
        let names = keys.iter().filter(|key| key.namespace == namespace).map(|key| &key.name);
        let names = names.filter(|name| check_key(name).is_ok()).cloned();
        bulk::read(invocation, namespace, invocation.budget, names, |name, stored| match stored {
            Ok(stored) => {
                values.insert(KvKey { namespace, name }, stored);
            }
            Err(error) => failure = Some(ExportError::kv(&name, error)),
        })
        .await;
    }
    failure.map_or(Ok(values), Err)
}

/// Makes a pass for the keys that were read, over the items that count.
pub async fn look_at<S: Services>(
    invocation: &Invocation<'_, S>,
    columns: ScanColumns,
    values: &Values,
    counts: impl FnMut(&ItemKey) -> bool,
) -> Result<Table, ExportError> {
    let mut table = Table::new(Range::empty());
    for (key, stored) in values {
        let held = Held::read(stored.as_ref(), &invocation.config.environment);
        table.hold(key.clone(), held);
    }
    Ok(look(invocation, columns, table, counts).await?)
}

/// The keys that were read, with what the table says of them.
pub struct Judged {
    pub values: Values,
    pub table: Table,
    /// What items want: those that have the keys, and those that were asked about.
    pub wanted: BTreeMap<ItemRef, Wanted>,
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

/// Judges the keys that were read. `known` is an item that the pass has left out. The items that have the keys are
/// read, and the items of these indexes.
pub async fn judge_keys<S: Services>(
    invocation: &Invocation<'_, S>,
    values: Values,
    mut table: Table,
    known: Option<(&ItemKey, &Item)>,
    indexes: &[IndexRef],
) -> Result<Judged, ExportError> {
    if let Some((key, item)) = known {
        table.add(key, &item.attributes(), Wants::Unmade);
    }
    let claims = table.rows.values().filter_map(Row::claim);
    let asked = claims.map(Claim::item).chain(indexes.iter().cloned().map(ItemRef::from));
    let mut unread: BTreeSet<ItemKey> = asked.map(|item| item.key()).collect();
    unread.retain(|key| known.is_none_or(|(known, _)| key != known));
    let mut items = read_items(invocation, invocation.budget.deadline, unread).await?;
    items.extend(known.map(|(key, item)| (key.clone(), item.clone())));
    let wanted = want(invocation, items).await;
    for (item, Wanted { wants, .. }) in &wanted {
        if item.query.is_none() && *wants == Wants::Rejected {
            table.resolve_owner(&item.index, Some(Wants::Rejected));
        }
    }
    for claim in table.rows.values_mut().filter_map(|row| row.claims.first_mut()) {
        if let Some(wanted) = wanted.get(&claim.item()) {
            claim.wants = wanted.wants;
        }
    }
    Ok(Judged { values, table, wanted })
}

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

/// Returns what items want. Items that are never exported are left out.
async fn want<S: Services>(
    invocation: &Invocation<'_, S>,
    items: BTreeMap<ItemKey, Item>,
) -> BTreeMap<ItemRef, Wanted> {
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

/// Returns the index ids that the active aliases of an item name, without its own.
pub fn points_at(key: &ItemKey, item: &Item) -> BTreeSet<String> {
    let own = key.item().map(|item| item.index.index_id());
    let targets = alias_targets(&key.pk, &item.attributes()).into_iter();
    let index_ids = targets.filter_map(|target| match target {
        AliasTarget::IndexId(index_id) => Some(index_id),
        AliasTarget::ShopId(_) => None,
    });
    index_ids.filter(|index_id| Some(index_id) != own.as_ref()).collect()
}
