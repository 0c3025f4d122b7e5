//! Explains an item: the saved one, or one that is tried. What would become of KV if that were saved, or removed,
//! is judged by a table that has it instead of the saved one.

use std::collections::BTreeSet;

use super::report::{Explained, ItemState, MAX_ITEMS, TargetReport, short};
use super::stages::{Explaining, Judged, Values, WantedBy};
use super::{Failure, Found};
use crate::export::judge::{KvKey, Table, Verdict};
use crate::export::table::read_items;
use crate::index::IndexRef;
use crate::item::{AliasTarget, IndexSettings, Item, ItemKey, alias_targets, claimed_keys};
use crate::kv::Namespace;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::Services;

/// The most alias targets that are looked at, including the targets that the item gives up. One request reads
/// them and the item's own keys: an index id, a shop id, and the shop id of the saved item.
const MAX_TARGETS: usize = 90;
const _: () = assert!(MAX_TARGETS + 3 <= MAX_BULK_GET_KEYS);

/// An item that is not saved.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    pub key: ItemKey,
    /// `None` tries the item's removal.
    pub item: Option<Item>,
}

impl<S: Services> Explaining<'_, '_, S> {
    /// Explains an index item, or another item with aliases, and the settings keys that have been read before.
    pub async fn item(&self, key: &ItemKey, mut values: Values) -> Found {
        let index = key.item().map(|item| item.index);
        let index = index.as_ref();
        let until = self.invocation.budget.deadline;
        let saved = read_items(self.invocation, until, [key.clone()]).await?;
        let saved = saved.get(key);
        let tried = self.item_to_try();
        let item = tried.map_or(saved, |tried| tried.item.as_ref());

        let asked_by = |item: Option<&Item>| -> BTreeSet<String> {
            let keys = index.zip(item).map(|(index, item)| claimed_keys(index, &item.attributes()));
            keys.into_iter().flatten().collect()
        };
        let asked = asked_by(item);
        let given_up = &asked_by(saved) - &asked;
        let mut own: BTreeSet<String> = values.keys().map(|key| key.name.clone()).collect();
        own.extend(asked.iter().chain(&given_up).cloned());
        own.extend(index.map(IndexRef::index_id));
        let [targets, released] = [item, saved].map(|item| {
            let item = item.filter(|_| tried.is_some());
            item.into_iter().flat_map(|item| points_at(key, item)).take(MAX_TARGETS)
        });
        let targets: BTreeSet<String> = targets.collect();
        let others = targets.iter().cloned().chain(released.take(MAX_TARGETS - targets.len()));
        values = self.read(values, Namespace::Settings, &own | &others.collect()).await?;
        let shop_ids = values.iter().filter_map(|(key, stored)| {
            let settings = stored.as_ref()?.settings()?;
            settings.shop_id.filter(|_| own.contains(&key.name) && Some(&settings.index) == index)
        });
        let shop_ids: BTreeSet<String> = shop_ids.collect();
        own.extend(shop_ids.iter().cloned());
        values = self.read(values, Namespace::Settings, shop_ids).await?;

        let indexes = index.map(std::slice::from_ref).unwrap_or_default();
        let judged = self.judge(values, indexes, WantedBy::new()).await?;
        let mut report = self.report(&judged, index, |key| {
            let is_released =
                !targets.contains(&key.name) && judged.table.verdict(key) == Verdict::Orphaned;
            judged.knows(key) && (own.contains(&key.name) || is_released)
        });
        if index.is_none() && item.is_some() {
            report.item = ItemState::Skipped;
        }
        if let Some(findings) = &mut report.tried {
            findings.warning = index.zip(item).and_then(|(index, item)| {
                IndexSettings::decode(index, &item.attributes()).ok()?.warning
            });
            findings.targets = targets.iter().map(|it| target(it, &key.pk, &judged)).collect();
            findings.breaks.extend(targets.iter().filter_map(|it| lack(it, &judged)));
            if report.item != ItemState::Rejected {
                let taken = asked.iter().filter_map(|name| taken(name, index?, &judged.table));
                let needed = given_up.iter().filter_map(|name| needed(name, index, &judged.table));
                findings.breaks.extend(taken.chain(needed));
            }
        }
        let is_absent = report.item == ItemState::Absent;
        if is_absent && report.keys.is_empty() && report.pointed_at_by.is_empty() {
            return Err(Failure::Unknown(judged.names));
        }
        Ok(Explained::Index(report))
    }
}

/// Returns the index ids that the active aliases of an item name, without its own.
fn points_at(key: &ItemKey, item: &Item) -> BTreeSet<String> {
    let own = key.item().map(|item| item.index.index_id());
    let targets = alias_targets(&key.pk, &item.attributes()).into_iter();
    let index_ids = targets.filter_map(|target| match target {
        AliasTarget::IndexId(index_id) => Some(index_id),
        AliasTarget::ShopId(_) => None,
    });
    index_ids.filter(|index_id| Some(index_id) != own.as_ref()).collect()
}

fn target(index_id: &str, account: &str, Judged { table, wanted, .. }: &Judged) -> TargetReport {
    let key = KvKey::of_settings(index_id);
    let index = table.claim_of(&key).map(|claim| &*claim.index);
    let wanted = index.and_then(|index| wanted.get(index));
    let points_at = wanted.into_iter().flat_map(|wanted| points_at(&wanted.key, &wanted.item));
    TargetReport {
        index_id: short(index_id),
        verdict: table.verdict(&key),
        points_at: points_at.take(MAX_ITEMS).map(|name| short(&name)).collect(),
        another_account: index.is_some_and(|index| index.account != account),
    }
}

/// Returns what an alias target lacks.
fn lack(index_id: &str, Judged { values, table, .. }: &Judged) -> Option<String> {
    let key = KvKey::of_settings(index_id);
    let has_key = values.get(&key).is_some_and(Option::is_some);
    let lacks = match (table.claim_of(&key).is_some(), has_key) {
        (true, true) => return None,
        (true, false) => "no key in KV",
        (false, true) => "no item",
        (false, false) => "neither an item nor a key in KV",
    };
    Some(format!("the alias target {} has {lacks}", short(index_id)))
}

/// Returns from whom a key that an index asks for would be taken.
fn taken(name: &str, index: &IndexRef, table: &Table) -> Option<String> {
    let key = KvKey::of_settings(name);
    let others = table.claimants(&key).filter(|it| ***it != *index).map(ToString::to_string);
    let others: Vec<String> = others.collect();
    let has_it = table.owner_of(&key).is_some_and(|owner| **owner == *index);
    let from = match table.verdict(&key) {
        Verdict::Conflicting => "another environment".to_owned(),
        _ if others.is_empty() || has_it => return None,
        _ => short(&others.join(", ")),
    };
    Some(format!("the key {name} would be taken from {from}"))
}

/// Returns who needs a key that is given up and that no item asks for.
fn needed(name: &str, index: Option<&IndexRef>, table: &Table) -> Option<String> {
    let pointers = table.pointers_at(name, index).into_iter().map(ToString::to_string);
    let pointers = short(&pointers.collect::<Vec<_>>().join(", "));
    let is_needed = !pointers.is_empty() && table.claim_of(&KvKey::of_settings(name)).is_none();
    is_needed.then(|| format!("the key {name} is given up, and active aliases need it: {pointers}"))
}
