//! The reports of an explain.

use serde::Serialize;

use super::differs::Difference;
use crate::export::judge::Verdict;
use crate::export::reconcile::cut;
use crate::index::{IndexRef, ItemRef};
use crate::item::ItemKey;
use crate::kv::Source;

/// The longest name that is shown whole, in characters: a stranger's value may hold any.
pub const MAX_NAME_CHARACTERS: usize = 512;

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Explained {
    Index(ExplainReport),
    Account(AccountReport),
}

impl ExplainReport {
    /// Returns whether the table, KV or an alias knows what the report is about.
    pub fn is_known(&self) -> bool {
        self.item != ItemState::Absent || !self.keys.is_empty() || !self.pointed_at_by.is_empty()
    }
}

impl From<ExplainReport> for Explained {
    fn from(report: ExplainReport) -> Self {
        Self::Index(report)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ExplainReport {
    /// The index that it is about; absent where nothing says which.
    #[serde(flatten)]
    pub index: Option<ItemName>,
    pub item: ItemState,
    /// The field for which the item is rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its keys, the primary one first, and the one that was asked about.
    pub keys: Vec<KeyReport>,
    /// The other items whose active aliases point at it.
    pub pointed_at_by: Vec<ItemName>,
    /// Whether an API key could not be had, so that `marqo_api_key` is not compared.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub api_key_unavailable: bool,
    /// Set where an item is tried.
    #[serde(flatten)]
    pub tried: Option<TriedReport>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemState {
    Exportable,
    Rejected,
    #[default]
    Absent,
    /// An item of the table that is never exported; its aliases count.
    Skipped,
}

/// An index, or another item: its sort key stands for the index's name then.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct ItemName {
    pub system_account_id: String,
    pub index_name: String,
}

impl From<&IndexRef> for ItemName {
    fn from(IndexRef { account, name }: &IndexRef) -> Self {
        Self {
            system_account_id: cut(account, MAX_NAME_CHARACTERS),
            index_name: cut(name, MAX_NAME_CHARACTERS),
        }
    }
}

impl From<&ItemKey> for ItemName {
    fn from(key: &ItemKey) -> Self {
        match key.item() {
            Some(ItemRef { index, query: None }) => Self::from(&index),
            _ => Self {
                system_account_id: cut(&key.pk, MAX_NAME_CHARACTERS),
                index_name: cut(&key.sk, MAX_NAME_CHARACTERS),
            },
        }
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
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
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

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AccountReport {
    pub system_account_id: String,
    pub indexes: Vec<ExplainReport>,
    /// The last of these indexes, where there are more.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
}
