//! Tries an item: what would become of KV, were it saved or removed. Everything is judged by a table that has
//! the item in the place of the saved one.

use std::collections::BTreeSet;

use super::report::{ItemState, MAX_NAME_CHARACTERS, TargetReport};
use super::{Explaining, Found, MAX_ITEMS, WantedBy, index_ids};
use crate::config::ExporterConfig;
use crate::export::desired::Exportable;
use crate::export::judge::{KvKey, OwnerItem, Table, Verdict, Wants};
use crate::export::reconcile::cut;
use crate::export::table::read_items;
use crate::index::{IndexRef, ItemRef};
use crate::item::{Item, ItemKey, Map, claimed_keys};
use crate::kv::Namespace;
use crate::kv::limits::MAX_BULK_GET_KEYS;
use crate::ports::Services;

/// Alias targets that are looked at, those that the item gives up included. One request reads them, and the
/// item's own keys: an index id, a shop id, and the one that is saved.
const MAX_TARGETS: usize = 90;
const _: () = assert!(MAX_TARGETS + 3 <= MAX_BULK_GET_KEYS);

/// An item that is not saved.
#[derive(Debug, Clone, PartialEq)]
pub struct Tried {
    pub key: ItemKey,
    /// `None` is its removal.
    pub item: Option<Item>,
}

impl Tried {
    /// Adds it to a table that was made without the saved one. A query config is added where its value is made.
    pub(super) fn add_to(&self, table: &mut Table, config: &ExporterConfig) {
        let (Some(content), item) = (&self.item, self.key.item()) else { return };
        if item.as_ref().is_some_and(|item| item.query.is_some()) {
            return;
        }
        table.add(&self.key, &content.attributes(), Wants::Unmade);
        if let Some(ItemRef { index, .. }) = item
            && Exportable::decode(&index, content, config).is_err()
        {
            table.resolve_owner(&index, OwnerItem::Rejected);
        }
    }
}

impl<S: Services> Explaining<'_, '_, S> {
    pub(super) async fn tried(&mut self, tried: &Tried) -> Found {
        let index = match tried.key.item() {
            Some(item @ ItemRef { query: Some(_), .. }) => {
                return self.query_config(&item.kv_key(), Some(item)).await;
            }
            item => item.map(|item| item.index),
        };
        let index = index.as_ref();
        let until = self.invocation.budget.deadline;
        let saved =
            read_items(self.invocation, until, [tried.key.clone()]).await?.remove(&tried.key);
        let [new, saved] = [&tried.item, &saved].map(|item| item.as_ref().map(Item::attributes));
        let claims = |item: &Option<Map>| -> BTreeSet<String> {
            let keys = index.zip(item.as_ref()).map(|(index, item)| claimed_keys(index, item));
            keys.into_iter().flatten().collect()
        };
        let index_id = index.map(IndexRef::index_id);
        let targets = |item: &Option<Map>| {
            let own = index_id.as_deref().unwrap_or_default();
            item.as_ref().map(|item| index_ids(item, &tried.key.pk, own)).unwrap_or_default()
        };
        let asked = claims(&new);
        let given_up = &claims(&saved) - &asked;
        let mut own: BTreeSet<String> =
            asked.iter().chain(&given_up).chain(&index_id).cloned().collect();
        let aims: BTreeSet<String> = targets(&new).into_iter().take(MAX_TARGETS).collect();
        let released: BTreeSet<String> =
            (&targets(&saved) - &aims).into_iter().take(MAX_TARGETS - aims.len()).collect();

        let names = own.iter().chain(&aims).chain(&released).cloned().collect();
        self.read(Namespace::Settings, names).await?;
        let shop_ids = self.shop_ids(|key, of| own.contains(key) && Some(of) == index);
        let released_with = self.shop_ids(|key, _| released.contains(key));
        self.read(Namespace::Settings, &shop_ids | &released_with).await?;
        own.extend(shop_ids);

        let (mut table, wanted) = self.judged(index).await?;
        let is_rejected =
            index.is_some_and(|index| wanted.get(index).is_some_and(|it| it.rejection.is_some()));
        if let Some(index) = index.filter(|_| !is_rejected) {
            table.give(index);
        }
        for (index, it) in &wanted {
            table.resolve_claims(index, it.wants);
        }
        let shows = |key: &KvKey| {
            let is_released = !aims.contains(&key.name) && table.verdict(key) == Verdict::Orphaned;
            own.contains(&key.name) || is_released
        };
        let mut report = self.report(index, &table, &wanted, shows);
        if index.is_none() && tried.item.is_some() {
            report.item = ItemState::Skipped;
        } else if report.item == ItemState::Absent
            && report.keys.is_empty()
            && report.pointed_at_by.is_empty()
        {
            return Ok(None);
        }
        let Some(findings) = &mut report.tried else { return Ok(Some(report.into())) };
        findings.targets =
            aims.iter().map(|it| self.target(it, &tried.key.pk, &table, &wanted)).collect();
        findings.breaks.extend(aims.iter().filter_map(|index_id| self.lack(index_id, &table)));
        if !is_rejected {
            let taken = asked.iter().filter_map(|name| taken(name, index?, &table));
            let needed = given_up.iter().filter_map(|name| needed(name, index, &table));
            findings.breaks.extend(taken.chain(needed));
        }
        Ok(Some(report.into()))
    }

    fn target(
        &self,
        index_id: &str,
        account: &str,
        table: &Table,
        wanted: &WantedBy,
    ) -> TargetReport {
        let key = KvKey::of_settings(index_id);
        let index = table.claim_of(&key).map(|claim| &*claim.index);
        let points_at = index.and_then(|index| wanted.get(index)).map(|it| &it.points_at);
        let points_at = points_at.into_iter().flatten().take(MAX_ITEMS);
        TargetReport {
            index_id: cut(index_id, MAX_NAME_CHARACTERS),
            verdict: table.verdict(&key),
            points_at: points_at.map(|name| cut(name, MAX_NAME_CHARACTERS)).collect(),
            another_account: match index {
                Some(index) => index.account != account,
                None => !index_id.starts_with(&format!("{account}-")),
            },
        }
    }

    /// What an alias target lacks.
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

/// Whom a key would be taken from that an index asks for.
fn taken(name: &str, index: &IndexRef, table: &Table) -> Option<String> {
    let key = KvKey::of_settings(name);
    let others: Vec<String> =
        table.claimants(&key).filter(|it| ***it != *index).map(ToString::to_string).collect();
    let from = match table.verdict(&key) {
        Verdict::Conflicting => "another environment".to_owned(),
        _ if others.is_empty() || table.owner_of(&key).is_some_and(|it| **it == *index) => {
            return None;
        }
        _ => others.join(", "),
    };
    Some(format!("the key {name} would be taken from {}", cut(&from, MAX_NAME_CHARACTERS)))
}

/// Who needs a key that is given up and that no item asks for.
fn needed(name: &str, index: Option<&IndexRef>, table: &Table) -> Option<String> {
    let pointers = table.pointers_at(name, index);
    let is_needed = !pointers.is_empty() && table.claim_of(&KvKey::of_settings(name)).is_none();
    let pointers: Vec<String> = pointers.into_iter().map(ToString::to_string).collect();
    let pointers = cut(&pointers.join(", "), MAX_NAME_CHARACTERS);
    is_needed
        .then(|| format!("the key {name} is given up, and active aliases point at it: {pointers}"))
}
