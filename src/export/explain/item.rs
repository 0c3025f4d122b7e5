//! Explains an item: the saved one, or one that is tried. What would become of KV if that were saved, or removed,
//! is judged by a table that has it instead of the saved one.

use std::collections::{BTreeMap, BTreeSet};

use super::report::{Explained, ItemState, MAX_ITEMS, TargetReport, TriedReport, report, short};
use super::stages::{Judged, Values, judge, look_at, points_at, read};
use super::{Explain, Failure, Found, Subject, nearest};
use crate::export::invocation::Invocation;
use crate::export::judge::{KvKey, Row, Table, Verdict, Wants};
use crate::export::table::read_items;
use crate::index::{IndexRef, ItemRef};
use crate::item::{Item, ItemKey, claimed_keys};
use crate::kv::Namespace;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::Services;

/// The most alias targets that are looked at, including the targets that the item gives up. One request reads
/// them and the item's own keys: an index id, a shop id, and the shop id of the saved item.
const MAX_TARGETS: usize = 90;
const _: () = assert!(MAX_TARGETS + 3 <= MAX_BULK_GET_KEYS);

/// Explains an item that is exported, or another item with aliases, and the keys that have been read before.
pub async fn explain_item<S: Services>(
    invocation: &Invocation<'_, S>,
    request: &Explain,
    key: &ItemKey,
    values: Values,
) -> Found {
    let item_ref = key.item();
    let index = item_ref.as_ref().map(|item| &item.index);
    let namespace = item_ref.as_ref().map(ItemRef::namespace).unwrap_or_default();
    let is_config = namespace == Namespace::QueryConfigs;
    let until = invocation.budget.deadline;
    let saved = read_items(invocation, until, [key.clone()]).await?.remove(key);
    let (item, is_tried) = match &request.subject {
        Subject::Item(_, tried) => (tried.as_ref(), true),
        _ => (saved.as_ref(), false),
    };

    let asked = asked_keys(key, item);
    let asked_before = asked_keys(key, saved.as_ref());
    let mut own: BTreeSet<String> = values.keys().map(|key| key.name.clone()).collect();
    own.extend(asked.union(&asked_before).cloned());
    own.extend(item_ref.as_ref().map(ItemRef::kv_key));
    // Aliases are looked at where an item is tried.
    let points_at = |item: Option<&Item>| {
        let item = item.filter(|_| is_tried);
        item.map(|item| points_at(key, item)).unwrap_or_default().into_iter()
    };
    let targets: BTreeSet<String> = points_at(item).take(MAX_TARGETS).collect();
    let released: BTreeSet<String> = points_at(saved.as_ref()).collect();
    let others = targets.iter().chain(&released).take(MAX_TARGETS);
    let values = read(invocation, values, namespace, own.iter().chain(others).cloned()).await?;
    let shop_ids = values.iter().filter_map(|(key, stored)| {
        let settings = stored.as_ref()?.settings()?;
        let is_its = own.contains(&key.name) && Some(&settings.index) == index;
        settings.shop_id.filter(|_| is_its && !is_config)
    });
    let shop_ids: BTreeSet<String> = shop_ids.collect();
    own.extend(shop_ids.iter().cloned());
    let values = read(invocation, values, namespace, shop_ids).await?;

    let mut names = BTreeSet::new();
    let mut table = look_at(invocation, &values, |seen| {
        if seen.pk == key.pk {
            names.extend(seen.item().map(|item| item.index.name));
        }
        seen != key
    })
    .await?;
    let mut known = BTreeMap::new();
    if let Some(item) = item {
        table.add(key, &item.attributes(), Wants::Unmade);
        known.insert(key.clone(), item.clone());
    }
    // Whether the index's item can be exported decides about a query config's key that no item asks for.
    let owner = index.filter(|_| is_config && item.is_none()).cloned();
    let mut judged = judge(invocation, values, table, known, owner.as_slice()).await?;
    if let Some(item_ref) = item_ref.as_ref().filter(|_| is_tried) {
        judged = with_its_keys(judged, item_ref);
    }

    let wanted = item_ref.as_ref().and_then(|item| judged.wanted.get(item));
    let is_shown = |key: &KvKey| {
        let is_released = !targets.contains(&key.name) && judged.table.is_orphaned(&key.name);
        (is_config || judged.knows(key)) && (own.contains(&key.name) || is_released)
    };
    let mut report = report(&judged, index, wanted, is_shown, request.values);
    if index.is_none() && item.is_some() {
        report.item = ItemState::Skipped;
    }
    let is_absent = report.item == ItemState::Absent;
    if is_absent && report.keys.is_empty() && report.pointed_at_by.is_empty() {
        let nearest = index.filter(|_| !is_tried).map(|index| nearest(&index.name, &names));
        return Err(Failure::Unknown { nearest: nearest.unwrap_or_default() });
    }
    if is_tried {
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

/// Returns the settings keys that an item asks for.
fn asked_keys(key: &ItemKey, item: Option<&Item>) -> BTreeSet<String> {
    match (key.item(), item) {
        (Some(ItemRef { index, query: None }), Some(item)) => {
            BTreeSet::from_iter(claimed_keys(&index, &item.attributes()))
        }
        _ => BTreeSet::new(),
    }
}

/// Gives an item that can be exported the keys that it asks for, whoever has them, as a write does.
fn with_its_keys(mut judged: Judged, item: &ItemRef) -> Judged {
    let wants = judged.wanted.get(item).map(|wanted| wanted.wants);
    let Some(wants) = wants.filter(|wants| *wants != Wants::Rejected) else { return judged };
    for Row { claim, others, .. } in judged.table.rows.values_mut() {
        let Some(claim) = claim else { continue };
        if let Some(other) = others.iter_mut().find(|other| ***other == item.index) {
            std::mem::swap(&mut claim.index, other);
            claim.wants = wants;
        }
    }
    judged
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
