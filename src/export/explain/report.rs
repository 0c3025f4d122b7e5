//! The reports of an explain.

use std::collections::BTreeSet;

use serde::Serialize;

use super::differs::{Difference, differences};
use super::stages::{Judged, Wanted, named_by};
use crate::export::judge::{KvKey, Verdict, Wants};
use crate::index::IndexRef;
use crate::item::ItemKey;
use crate::kv::{Source, StoredValue};
use crate::text::cut;

/// The most items that a report names in one place.
pub const MAX_ITEMS: usize = 100;

/// The longest name that is shown whole, in characters: a stranger's value may hold any.
const MAX_NAME_CHARACTERS: usize = 512;

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Explained {
    Index(ExplainReport),
    Account {
        system_account_id: String,
        indexes: Vec<ExplainReport>,
        /// The last of these indexes, where there are more.
        #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
        progress: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ExplainReport {
    /// The index that it is about; absent where nothing says which.
    #[serde(flatten)]
    pub index: Option<ItemName>,
    #[serde(flatten)]
    pub item: ItemState,
    /// Its keys, the primary one first, and the one that was asked about.
    pub keys: Vec<KeyReport>,
    /// The other items whose active aliases point at it.
    pub pointed_at_by: Vec<ItemName>,
    /// Whether an API key was unavailable, so that `marqo_api_key` is not compared.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub api_key_unavailable: bool,
    /// Set where an item is tried.
    #[serde(flatten)]
    pub tried: Option<TriedReport>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "item", rename_all = "lowercase")]
pub enum ItemState {
    Exportable,
    /// With the field for which it is.
    Rejected {
        path: String,
    },
    Absent,
    /// An item of the table that is never exported; its aliases count.
    Skipped,
}

/// An index, or another item: its sort key stands for the index's name then.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ItemName {
    pub system_account_id: String,
    pub index_name: String,
}

impl From<&IndexRef> for ItemName {
    fn from(index: &IndexRef) -> Self {
        Self { system_account_id: short(&index.account), index_name: short(&index.name) }
    }
}

impl From<&ItemKey> for ItemName {
    fn from(key: &ItemKey) -> Self {
        let name = key.item().map_or_else(|| key.sk.clone(), |item| item.index.name);
        Self { system_account_id: short(&key.pk), index_name: short(&name) }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct KeyReport {
    pub key: String,
    pub verdict: Verdict,
    /// The index that the value, or else its metadata, names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named: Option<ItemName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exported_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The paths at which the value differs from what a re-export would write.
    pub differs: Vec<String>,
    /// The values at these paths, if they were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<Difference>>,
    pub claimed_by: Vec<ItemName>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub api_key_unavailable: bool,
}

/// What saving an item would do beside what its keys say.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TriedReport {
    /// What is odd about the item, which would be exported all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warning: Option<String>,
    /// What its active aliases point at.
    pub targets: Vec<TargetReport>,
    /// What saving it would break, one sentence each.
    pub breaks: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TargetReport {
    pub index_id: String,
    pub verdict: Verdict,
    /// What the target's own active aliases point at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub points_at: Vec<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub another_account: bool,
}

/// Returns the report on an index, its item, and the keys that are shown.
pub fn report(
    judged: &Judged,
    index: Option<&IndexRef>,
    item: Option<&Wanted>,
    shows: impl Fn(&KvKey) -> bool,
    with_values: bool,
) -> ExplainReport {
    let Judged { values, table, .. } = judged;
    let index_id = index.map(IndexRef::index_id).unwrap_or_default();
    let is_its = |key: &KvKey| table.claimants(key).any(|claimant| Some(&**claimant) == index);
    let owns = |key: &KvKey| table.owner_of(key).is_some_and(|owner| Some(&**owner) == index);
    let has = |key: &&KvKey| is_its(key) || owns(key);
    let names = values.keys().filter(has).map(|key| &key.name);
    let pointers = names.chain([&index_id]).flat_map(|name| table.pointers_at(name, index));
    let mut keys: Vec<&KvKey> = values.keys().filter(|key| shows(key)).collect();
    // The primary key first, then the index id's, then what is left over.
    keys.sort_by_key(|key| (!is_its(key), key.name == index_id));
    let keys: Vec<KeyReport> =
        keys.into_iter().map(|key| report_key(judged, key, with_values)).collect();
    ExplainReport {
        index: index.map(ItemName::from),
        item: match item.map(|item| &item.value) {
            None => ItemState::Absent,
            Some(Ok(_)) => ItemState::Exportable,
            Some(Err(rejection)) => ItemState::Rejected { path: short(&rejection.path) },
        },
        pointed_at_by: names_of(pointers.collect()),
        api_key_unavailable: keys.iter().any(|key| key.api_key_unavailable),
        tried: None,
        keys,
    }
}

fn report_key(judged: &Judged, key: &KvKey, with_values: bool) -> KeyReport {
    let stored = judged.values[key].as_ref();
    let metadata = stored.and_then(StoredValue::metadata);
    let wanted = judged.wanted_under(key);
    let differs = stored.zip(wanted).and_then(|(held, wanted)| {
        Some(differences(&held.value, wanted.value.as_ref().ok()?, wanted.wants))
    });
    let differs = differs.unwrap_or_default();
    let claimants: BTreeSet<&IndexRef> = judged.table.claimants(key).map(|it| &**it).collect();
    KeyReport {
        key: key.name.clone(),
        verdict: judged.table.verdict(key),
        named: stored.and_then(named_by).as_ref().map(ItemName::from),
        environment: metadata.as_ref().and_then(|it| it.shown_environment().map(str::to_owned)),
        exported_at: metadata.as_ref().and_then(|it| it.exported_at.clone()),
        changed_at: metadata.as_ref().and_then(|it| it.changed_at.clone()),
        source: metadata.as_ref().and_then(|it| it.source),
        differs: differs.iter().map(|difference| difference.path.clone()).collect(),
        values: with_values.then_some(differs),
        claimed_by: names_of(claimants),
        api_key_unavailable: wanted.is_some_and(|it| it.wants == Wants::Unavailable),
    }
}

pub fn names_of<T: Into<ItemName>>(items: BTreeSet<T>) -> Vec<ItemName> {
    items.into_iter().take(MAX_ITEMS).map(Into::into).collect()
}

/// Returns a name as a report shows it.
pub fn short(name: &str) -> String {
    cut(name, MAX_NAME_CHARACTERS)
}
