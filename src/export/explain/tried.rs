//! Tries an item: what would become of KV if it were saved, or removed. Everything is judged by a table that has
//! this item instead of the saved one.

use std::collections::BTreeSet;

use super::report::{
    ExplainReport, Explained, ItemState, MAX_NAME_CHARACTERS, TargetReport, TriedReport,
};
use super::{Explaining, Found, MAX_ITEMS, WantedBy, index_ids};
use crate::config::ExporterConfig;
use crate::export::exportable::Exportable;
use crate::export::judge::{KvKey, OwnerItem, Table, Verdict, Wants};
use crate::export::reconcile::cut;
use crate::export::table::read_items;
use crate::index::{IndexRef, ItemRef};
use crate::item::{IndexSettings, Item, ItemKey, claimed_keys};
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

impl Tried {
    /// Adds the item to a table that was made without the saved one. A query config is added where its value is
    /// made.
    pub(super) fn add_to(&self, table: &mut Table, config: &ExporterConfig) {
        let (Some(content), item) = (&self.item, self.key.item()) else { return };
        if item.as_ref().is_some_and(|item| item.query.is_some()) {
            return;
        }
        table.add(&self.key, &content.attributes(), Wants::Unmade);
        if let Some(item) = item
            && Exportable::decode(&item, content, config).is_err()
        {
            table.resolve_owner(&item.index, OwnerItem::Rejected);
        }
    }
}

impl<S: Services> Explaining<'_, '_, S> {
    pub(super) async fn tried(&mut self, tried: &Tried) -> Found {
        let index = match tried.key.item() {
            Some(item @ ItemRef { query: Some(_), .. }) => {
                let mut report = self.query_config(&item.kv_key(), Some(item)).await?;
                if let Some(Explained::Index(report)) = &mut report {
                    report.tried = Some(TriedReport::of(report));
                }
                return Ok(report);
            }
            item => item.map(|item| item.index),
        };
        let index = index.as_ref();
        let until = self.invocation.budget.deadline;
        let saved = read_items(self.invocation, until, [tried.key.clone()]).await?;
        let saved = saved.get(&tried.key);
        let claims = |item: Option<&Item>| -> BTreeSet<String> {
            let keys = index.zip(item).map(|(index, item)| claimed_keys(index, &item.attributes()));
            keys.into_iter().flatten().collect()
        };
        let index_id = index.map(IndexRef::index_id);
        let aims = |item: Option<&Item>| -> BTreeSet<String> {
            let of_item =
                |item: &Item| index_ids(&item.attributes(), &tried.key.pk, index_id.as_deref());
            item.map(of_item).into_iter().flatten().collect()
        };
        let asked = claims(tried.item.as_ref());
        let given_up = &claims(saved) - &asked;
        let mut own: BTreeSet<String> =
            asked.iter().chain(&given_up).chain(&index_id).cloned().collect();
        let targets: BTreeSet<String> =
            aims(tried.item.as_ref()).into_iter().take(MAX_TARGETS).collect();
        let released = aims(saved).into_iter().take(MAX_TARGETS - targets.len());
        self.read(
            Namespace::Settings,
            own.iter().chain(&targets).cloned().chain(released).collect(),
        )
        .await?;
        own.extend(self.shop_ids(|key, of| own.contains(key) && Some(of) == index));
        self.read(Namespace::Settings, own.clone()).await?;

        let (table, wanted) =
            self.judged(index.map(std::slice::from_ref).unwrap_or_default()).await?;
        let shows = |key: &KvKey| {
            let is_released =
                !targets.contains(&key.name) && table.verdict(key) == Verdict::Orphaned;
            own.contains(&key.name) || is_released
        };
        let mut report = self.report(index, &table, &wanted, shows);
        if index.is_none() && tried.item.is_some() {
            report.item = ItemState::Skipped;
        }
        let mut findings = TriedReport::of(&report);
        findings.warning = index.zip(tried.item.as_ref()).and_then(|(index, item)| {
            IndexSettings::decode(index, &item.attributes()).ok()?.warning
        });
        let account = &tried.key.pk;
        findings.targets = targets.iter().map(|it| target(it, account, &table, &wanted)).collect();
        findings.breaks.extend(targets.iter().filter_map(|index_id| self.lack(index_id, &table)));
        if report.item != ItemState::Rejected {
            let taken = asked.iter().filter_map(|name| taken(name, index?, &table));
            let needed = given_up.iter().filter_map(|name| needed(name, index, &table));
            findings.breaks.extend(taken.chain(needed));
        }
        report.tried = Some(findings);
        Ok(report.is_known().then(|| report.into()))
    }

    /// Returns what an alias target lacks.
    fn lack(&self, index_id: &str, table: &Table) -> Option<String> {
        let key = KvKey::of_settings(index_id);
        let has_key = self.values.get(&key).is_some_and(Option::is_some);
        let lacks = match (table.claim_of(&key).is_some(), has_key) {
            (true, true) => return None,
            (true, false) => "no key in KV",
            (false, true) => "no item",
            (false, false) => "neither an item nor a key in KV",
        };
        Some(format!("the alias target {} has {lacks}", cut(index_id, MAX_NAME_CHARACTERS)))
    }
}

impl TriedReport {
    fn of(report: &ExplainReport) -> Self {
        let rejected =
            report.path.as_ref().map(|path| format!("the item can't be exported: {path}"));
        Self { breaks: rejected.into_iter().collect(), ..Self::default() }
    }
}

fn target(index_id: &str, account: &str, table: &Table, wanted: &WantedBy) -> TargetReport {
    let key = KvKey::of_settings(index_id);
    let index = table.claim_of(&key).map(|claim| &*claim.index);
    let points_at = index.and_then(|index| Some(&wanted.get(index)?.points_at));
    let points_at = points_at.into_iter().flatten().take(MAX_ITEMS);
    TargetReport {
        index_id: cut(index_id, MAX_NAME_CHARACTERS),
        verdict: table.verdict(&key),
        points_at: points_at.map(|name| cut(name, MAX_NAME_CHARACTERS)).collect(),
        another_account: index.is_some_and(|index| index.account != account),
    }
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
        _ => cut(&others.join(", "), MAX_NAME_CHARACTERS),
    };
    Some(format!("the key {name} would be taken from {from}"))
}

/// Returns who needs a key that is given up and that no item asks for.
fn needed(name: &str, index: Option<&IndexRef>, table: &Table) -> Option<String> {
    let pointers = table.pointers_at(name, index).into_iter().map(ToString::to_string);
    let pointers = cut(&pointers.collect::<Vec<_>>().join(", "), MAX_NAME_CHARACTERS);
    let is_needed = !pointers.is_empty() && table.claim_of(&KvKey::of_settings(name)).is_none();
    is_needed.then(|| format!("the key {name} is given up, and active aliases need it: {pointers}"))
}

#[cfg(test)]
mod tests;
