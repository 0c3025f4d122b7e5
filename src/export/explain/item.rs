//! Explains an item: the saved one, or one that is tried. What would become of KV if that were saved, or removed,
//! is judged by a table that has it instead of the saved one.

use std::collections::BTreeSet;

use super::report::{Explained, ItemState, MAX_ITEMS, TargetReport, TriedReport, report, short};
use super::stages::{Judged, Values, judge_keys, look_at, points_at, read};
use super::{Explain, Failure, Found, Subject, nearest};
use crate::export::invocation::Invocation;
use crate::export::judge::{KvKey, Row, Table, Verdict, Wants};
use crate::export::table::read_items;
use crate::index::{IndexRef, ItemRef};
use crate::item::{Item, ItemKey, claimed_keys};
use crate::kv::StoredValue;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::{ScanColumns, Services};

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
    let is_config = item_ref.as_ref().is_some_and(|item| item.query.is_some());
    let until = invocation.budget.deadline;
    let saved = read_items(invocation, until, [key.clone()]).await?.remove(key);
    let (item, is_tried) = match &request.subject {
        Subject::Item(_, tried) => (tried.as_ref(), true),
        _ => (saved.as_ref(), false),
    };

    let asked = asked_keys(key, item);
    let asked_before = asked_keys(key, saved.as_ref());
    let mut own: BTreeSet<KvKey> = asked.union(&asked_before).cloned().collect();
    own.extend(item_ref.as_ref().map(KvKey::of));
    own.extend(values.keys().cloned());
    // A query config has no aliases.
    let targets_of = |item: Option<&Item>| {
        let index_ids = item.filter(|_| is_tried && !is_config).map(|item| points_at(key, item));
        index_ids.unwrap_or_default().into_iter().map(KvKey::of_settings)
    };
    let targets: BTreeSet<KvKey> = targets_of(item).take(MAX_TARGETS).collect();
    let released = targets_of(saved.as_ref()).take(MAX_TARGETS - targets.len());
    let keys = own.union(&targets).cloned().chain(released);
    let values = read(invocation, values, keys).await?;
    let settings = values.values().flatten().filter_map(StoredValue::settings);
    let of_index = settings.filter(|it| !is_config && Some(&it.index) == index);
    let shop_ids = of_index.filter_map(|it| it.shop_id).map(KvKey::of_settings);
    let shop_ids: BTreeSet<KvKey> = shop_ids.collect();
    own.extend(shop_ids.iter().cloned());
    let values = read(invocation, values, shop_ids).await?;

    let mut names = BTreeSet::new();
    let table = look_at(invocation, ScanColumns::Claims, &values, |seen| {
        if seen.pk == key.pk {
            names.extend(seen.item().map(|item| item.index.name));
        }
        seen != key
    })
    .await?;
    // Whether the index's item can be exported decides about a query config's key that no item asks for.
    let owner = index.filter(|_| is_config && item.is_none()).cloned();
    let known = item.map(|item| (key, item));
    let mut judged = judge_keys(invocation, values, table, known, owner.as_slice()).await?;
    if let Some(item_ref) = item_ref.as_ref().filter(|_| is_tried) {
        judged = with_its_keys(judged, item_ref);
    }

    let wanted = item_ref.as_ref().and_then(|item| judged.wanted.get(item));
    let is_shown = |key: &KvKey| {
        let is_released = !targets.contains(key) && judged.table.verdict(key) == Verdict::Orphaned;
        (is_config || judged.knows(key)) && (own.contains(key) || is_released)
    };
    let mut report = report(&judged, index, wanted, is_shown, request.values);
    if index.is_none() && item.is_some() {
        report.item = ItemState::Skipped;
    }
    let is_absent = report.item == ItemState::Absent;
    if is_absent && report.keys.is_empty() && report.pointed_at_by.is_empty() {
        return Err(Failure::Unknown(match index {
            Some(index) if !is_tried => nearest(&index.name, &names),
            _ => String::new(),
        }));
    }
    if is_tried {
        let Judged { table, .. } = &judged;
        let rejected = match &report.item {
            ItemState::Rejected { path } => Some(format!("the item can't be exported: {path}")),
            _ => None,
        };
        let lacks = targets.iter().filter_map(|key| lack(key, &judged));
        let taken = asked.iter().filter_map(|key| taken(key, index?, table));
        let needed = asked_before.difference(&asked).filter_map(|key| needed(key, index, table));
        let moved = taken.chain(needed).filter(|_| rejected.is_none());
        report.tried = Some(TriedReport {
            warning: wanted.and_then(|wanted| wanted.warning.clone()),
            targets: targets.iter().map(|target| report_target(target, &key.pk, &judged)).collect(),
            breaks: rejected.iter().cloned().chain(lacks).chain(moved).collect(),
        });
    }
    Ok(Explained::Index(report))
}

/// Returns the settings keys that an item asks for.
fn asked_keys(key: &ItemKey, item: Option<&Item>) -> BTreeSet<KvKey> {
    let claimant = key.item().filter(|claimant| claimant.query.is_none()).zip(item);
    let keys = claimant.map(|(claimant, item)| claimed_keys(&claimant, &item.attributes()));
    keys.into_iter().flatten().map(KvKey::of_settings).collect()
}

/// Gives an item that can be exported the keys that it asks for, whoever has them, as a write does.
fn with_its_keys(mut judged: Judged, item: &ItemRef) -> Judged {
    let wants = judged.wanted.get(item).map(|wanted| wanted.wants);
    let Some(wants) = wants.filter(|wants| *wants != Wants::Rejected) else { return judged };
    for Row { claims, .. } in judged.table.rows.values_mut() {
        if let Some(place) = claims.iter().position(|claim| *claim.index == item.index) {
            claims.swap(0, place);
            claims[0].wants = wants;
        }
    }
    judged
}

fn report_target(key: &KvKey, account: &str, judged: &Judged) -> TargetReport {
    let points_at = judged.wanted_under(key).into_iter().flat_map(|wanted| &wanted.points_at);
    let claim = judged.table.claim_of(key);
    TargetReport {
        index_id: short(&key.name),
        verdict: judged.table.verdict(key),
        points_at: points_at.take(MAX_ITEMS).map(|name| short(name)).collect(),
        another_account: claim.is_some_and(|claim| claim.index.account != account),
    }
}

/// Returns what an alias target lacks.
fn lack(key: &KvKey, Judged { values, table, .. }: &Judged) -> Option<String> {
    let has_key = values.get(key).is_some_and(Option::is_some);
    let lacks = match (table.claim_of(key).is_some(), has_key) {
        (true, true) => return None,
        (true, false) => "no key in KV",
        (false, true) => "no item",
        (false, false) => "neither an item nor a key in KV",
    };
    Some(format!("the alias target {} has {lacks}", short(&key.name)))
}

/// Returns from whom a key that an index asks for would be taken.
fn taken(key: &KvKey, index: &IndexRef, table: &Table) -> Option<String> {
    let others = table.claimants(key).filter(|it| ***it != *index).map(ToString::to_string);
    let others: Vec<String> = others.collect();
    let has_it = table.owner_of(key).is_some_and(|owner| **owner == *index);
    let from = match table.verdict(key) {
        Verdict::Conflicting => "another environment".to_owned(),
        _ if others.is_empty() || has_it => return None,
        _ => short(&others.join(", ")),
    };
    Some(format!("the key {} would be taken from {from}", key.name))
}

/// Returns who needs a key that is given up and that no item asks for.
fn needed(key: &KvKey, index: Option<&IndexRef>, table: &Table) -> Option<String> {
    let pointers = table.pointers_at(&key.name, index).into_iter().map(ToString::to_string);
    let pointers = short(&pointers.collect::<Vec<_>>().join(", "));
    let is_needed = !pointers.is_empty() && table.claim_of(key).is_none();
    let key = &key.name;
    is_needed.then(|| format!("the key {key} is given up, and active aliases need it: {pointers}"))
}
