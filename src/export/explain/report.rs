//! The answer to an explain. Nothing in it is longer than a person wants to read.

use serde::Serialize;

use super::gathered::{AskedItem, Gathered};
use super::judge::{Judged, Verdict};
use crate::export::differs::cut;
use crate::index::IndexRef;
use crate::item::{ItemKey, ItemKind};
use crate::kv::Source;

/// The most indexes that a list names.
const MAX_INDEXES: usize = 100;

/// The longest name that is told whole, in characters: a stranger's value may hold any.
const MAX_NAME_CHARACTERS: usize = 512;

/// What KV holds of an index, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Report {
    /// The index that it is about; absent where nothing says which.
    #[serde(flatten)]
    pub index: Option<IndexName>,
    /// Its item.
    pub item: ItemState,
    /// The field at fault, where the item is rejected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its keys, the primary one first.
    pub keys: Vec<KeyReport>,
    /// The other items whose active aliases point at it.
    pub pointed_at_by: Vec<IndexName>,
    /// What to do, in one sentence.
    pub advice: String,
}

/// An index, or another item: its sort key stands for the index's name then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexName {
    /// The account.
    pub system_account_id: String,
    /// The index.
    pub index_name: String,
}

/// Whether an item can be exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ItemState {
    /// It can be exported.
    Exportable,
    /// It can't.
    Rejected,
    /// There is none.
    Absent,
}

/// What is known of one key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyReport {
    /// The key.
    pub key: String,
    /// What it is.
    pub verdict: Verdict,
    /// The index that KV's value names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named: Option<IndexName>,
    /// The environment that wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub environment: Option<String>,
    /// When it was written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exported_at: Option<String>,
    /// When the table took the change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<String>,
    /// What made the function write it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<Source>,
    /// The paths at which the value differs from what the table asks for.
    pub differs: Vec<String>,
    /// The items that ask for the key.
    pub claimed_by: Vec<IndexName>,
}

/// The report on what was gathered and judged.
pub fn report(gathered: &Gathered, judged: &[Judged<'_>], advice: String) -> Report {
    let (item, path) = match &gathered.item {
        AskedItem::Exportable => (ItemState::Exportable, None),
        AskedItem::Absent => (ItemState::Absent, None),
        AskedItem::Rejected(rejection) => {
            (ItemState::Rejected, Some(cut(&rejection.path, MAX_NAME_CHARACTERS)))
        }
    };
    Report {
        index: gathered.index.as_ref().map(IndexName::from),
        item,
        path,
        keys: judged.iter().map(KeyReport::from).collect(),
        pointed_at_by: gathered.pointers.iter().take(MAX_INDEXES).map(IndexName::from).collect(),
        advice,
    }
}

impl From<&Judged<'_>> for KeyReport {
    fn from(Judged { facts, verdict, differs, provenance, .. }: &Judged<'_>) -> Self {
        let provenance = provenance.clone();
        Self {
            key: facts.key.clone(),
            verdict: *verdict,
            named: facts.named.as_ref().map(IndexName::from),
            environment: provenance.environment,
            exported_at: provenance.exported_at,
            changed_at: provenance.changed_at,
            source: provenance.source,
            differs: differs.clone(),
            claimed_by: facts.claimants.iter().take(MAX_INDEXES).map(IndexName::from).collect(),
        }
    }
}

impl From<&IndexRef> for IndexName {
    fn from(index: &IndexRef) -> Self {
        Self {
            system_account_id: cut(&index.account, MAX_NAME_CHARACTERS),
            index_name: cut(&index.name, MAX_NAME_CHARACTERS),
        }
    }
}

impl From<&ItemKey> for IndexName {
    fn from(key: &ItemKey) -> Self {
        match key.kind() {
            ItemKind::IndexSettings(index) => Self::from(&index),
            ItemKind::QueryConfig(_) | ItemKind::Skipped => Self {
                system_account_id: cut(&key.pk, MAX_NAME_CHARACTERS),
                index_name: cut(&key.sk, MAX_NAME_CHARACTERS),
            },
        }
    }
}
