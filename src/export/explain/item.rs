//! Explains an item: the saved one, or one that is tried. What would become of KV if that were saved, or removed,
//! is judged by a table that has it instead of the saved one.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{Explained, ItemState, MAX_ITEMS, TargetReport, TriedReport, short};
use super::stages::{Explaining, Judged, Values};
use super::{Failure, Found};
use crate::export::judge::{KvKey, Table, Verdict};
use crate::export::table::read_items;
use crate::index::{IndexRef, ItemRef};
use crate::item::{AliasTarget, Item, ItemKey, alias_targets, claimed_keys};
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
    /// Explains an item that is exported, or another item with aliases, and the keys that have been read before.
    pub async fn item(&self, key: &ItemKey, values: Values) -> Found {
        let item_ref = key.item();
        let index = item_ref.as_ref().map(|item| &item.index);
        let namespace = item_ref.as_ref().map(ItemRef::namespace).unwrap_or_default();
        let until = self.invocation.budget.deadline;
        let saved = read_items(self.invocation, until, [key.clone()]).await?.remove(key);
        let tried = self.item_to_try();
        let item = tried.map_or_else(|| saved.clone(), |tried| tried.item.clone());

        let [asked, asked_before] = [&item, &saved].map(|item| match (&item_ref, item) {
            (Some(ItemRef { index, query: None }), Some(item)) => {
                BTreeSet::from_iter(claimed_keys(index, &item.attributes()))
            }
            _ => BTreeSet::new(),
        });
        let mut own: BTreeSet<String> = values.keys().map(|key| key.name.clone()).collect();
        own.extend(asked.union(&asked_before).cloned());
        own.extend(item_ref.as_ref().map(ItemRef::kv_key));
        let has_aliases = tried.is_some() && namespace == Namespace::Settings;
        let [targets, released] = [&item, &saved].map(|item| {
            let item = item.iter().filter(|_| has_aliases);
            item.flat_map(|item| points_at(key, item))
        });
        let targets: BTreeSet<String> = targets.take(MAX_TARGETS).collect();
        let others = targets.iter().cloned().chain(released).take(MAX_TARGETS);
        let values = self.read(values, namespace, own.iter().cloned().chain(others)).await?;
        let shop_ids = values.iter().filter_map(|(key, stored)| {
            let settings = stored.as_ref()?.settings()?;
            let is_its = own.contains(&key.name) && Some(&settings.index) == index;
            settings.shop_id.filter(|_| is_its && namespace == Namespace::Settings)
        });
        let shop_ids: BTreeSet<String> = shop_ids.collect();
        own.extend(shop_ids.iter().cloned());
        let values = self.read(values, namespace, shop_ids).await?;

        // Whether the index's item can be exported decides about a key that no item asks for.
        let owner = index.filter(|_| item.is_none()).cloned();
        let known = BTreeMap::from([(key.clone(), item.clone())]);
        let judged = self.judge(values, known, owner.as_slice()).await?;
        let wanted = item_ref.as_ref().and_then(|item| judged.wanted.get(item));
        let mut report = self.report(&judged, index, wanted, |key| {
            let is_known = judged.knows(key) || namespace == Namespace::QueryConfigs;
            let is_released = !targets.contains(&key.name) && judged.table.is_orphaned(&key.name);
            is_known && (own.contains(&key.name) || is_released)
        });
        if index.is_none() && item.is_some() {
            report.item = ItemState::Skipped;
        }
        let is_absent = report.item == ItemState::Absent;
        if is_absent && report.keys.is_empty() && report.pointed_at_by.is_empty() {
            return Err(Failure::Unknown(judged.names));
        }
        if tried.is_some() {
            let path = report.path.iter();
            let rejected = path.map(|path| format!("the item can't be exported: {path}"));
            let lacks = targets.iter().filter_map(|it| lack(it, &judged));
            let taken = asked.iter().filter_map(|name| taken(name, index?, &judged.table));
            let given_up = asked_before.difference(&asked);
            let needed = given_up.filter_map(|name| needed(name, index, &judged.table));
            let moved = taken.chain(needed).filter(|_| report.path.is_none());
            report.tried = Some(TriedReport {
                warning: wanted.and_then(|wanted| wanted.warning.clone()),
                targets: targets.iter().map(|it| target(it, &key.pk, &judged)).collect(),
                breaks: rejected.chain(lacks).chain(moved).collect(),
            });
        }
        Ok(Explained::Index(report))
    }
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

fn target(index_id: &str, account: &str, judged: &Judged) -> TargetReport {
    let key = KvKey::of_settings(index_id);
    let points_at = judged.wanted_under(&key).into_iter().flat_map(|wanted| &wanted.points_at);
    let claim = judged.table.claim_of(&key);
    TargetReport {
        index_id: short(index_id),
        verdict: judged.table.verdict(&key),
        points_at: points_at.take(MAX_ITEMS).map(|name| short(name)).collect(),
        another_account: claim.is_some_and(|claim| claim.index.account != account),
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
