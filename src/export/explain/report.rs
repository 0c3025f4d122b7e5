//! The answer to an explain. Nothing in it is longer than a person wants to read.

use serde::Serialize;

use super::judge::{JudgedKey, KeyVerdict};
use super::{AskedItem, Findings};
use crate::export::differs::cut;
use crate::index::IndexRef;
use crate::item::{ItemKey, ItemKind};
use crate::kv::Provenance;

const MAX_INDEXES: usize = 100;

/// The longest name that is told whole, in characters: a stranger's value may hold any.
const MAX_NAME_CHARACTERS: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExplainReport {
    /// The index that it is about; absent where nothing says which.
    #[serde(flatten)]
    pub index: Option<IndexName>,
    pub item: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its keys, the primary one first.
    pub keys: Vec<KeyReport>,
    /// The other items whose active aliases point at it.
    pub pointed_at_by: Vec<IndexName>,
    pub advice: String,
}

/// An index, or another item: its sort key stands for the index's name then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct IndexName {
    pub system_account_id: String,
    pub index_name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct KeyReport {
    pub key: String,
    pub verdict: KeyVerdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub named: Option<IndexName>,
    #[serde(flatten)]
    pub provenance: Provenance,
    /// The paths at which the value differs from what the table asks for.
    pub differs: Vec<String>,
    pub claimed_by: Vec<IndexName>,
}

pub fn report(findings: &Findings, judged: &[JudgedKey<'_>], advice: String) -> ExplainReport {
    let (item, path) = match &findings.item {
        AskedItem::Exportable => ("exportable", None),
        AskedItem::Absent => ("absent", None),
        AskedItem::Rejected(rejection) => {
            ("rejected", Some(cut(&rejection.path, MAX_NAME_CHARACTERS)))
        }
    };
    ExplainReport {
        index: findings.index.as_ref().map(IndexName::from),
        item,
        path,
        keys: judged.iter().map(key_report).collect(),
        pointed_at_by: findings.pointers.iter().take(MAX_INDEXES).map(IndexName::from).collect(),
        advice,
    }
}

fn key_report(JudgedKey { facts, verdict, named, differs, .. }: &JudgedKey<'_>) -> KeyReport {
    let metadata = facts.stored.as_ref().and_then(|stored| stored.metadata.as_deref());
    KeyReport {
        key: facts.key.clone(),
        verdict: *verdict,
        named: named.as_ref().map(IndexName::from),
        provenance: metadata.map(|json| Provenance::parse(json.get())).unwrap_or_default(),
        differs: differs.clone(),
        claimed_by: facts.claimants.iter().take(MAX_INDEXES).map(IndexName::from).collect(),
    }
}

impl IndexName {
    fn cut(account: &str, name: &str) -> Self {
        Self {
            system_account_id: cut(account, MAX_NAME_CHARACTERS),
            index_name: cut(name, MAX_NAME_CHARACTERS),
        }
    }
}

impl From<&IndexRef> for IndexName {
    fn from(index: &IndexRef) -> Self {
        Self::cut(&index.account, &index.name)
    }
}

impl From<&ItemKey> for IndexName {
    fn from(key: &ItemKey) -> Self {
        match key.kind() {
            ItemKind::IndexSettings(index) => Self::from(&index),
            ItemKind::QueryConfig(_) | ItemKind::Skipped => Self::cut(&key.pk, &key.sk),
        }
    }
}
